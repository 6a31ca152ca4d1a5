"""Sphinx's settings."""

import sys
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
for source in sorted(ROOT.glob("packages/*/src")):
    sys.path.append(str(source))


def stand_in(name: str, *classes: str) -> types.ModuleType:
    """What the adapters of drivers import that can't be installed beside SQLAlchemy 2."""
    module = types.ModuleType(name)
    for each in classes:
        setattr(module, each, type(each, (), {"__module__": name}))
    sys.modules[name] = module
    return module


def create_engine(dialect: object = None) -> None:
    """aiopg.sa's, as far as its signature is asked for."""


stand_in("asyncpgsa", "create_pool")
stand_in("asyncpgsa.connection", "SAConnection")
stand_in("aiopg.sa.exc", "ResourceClosedError")
stand_in("aiopg.sa", "Engine", "SAConnection").__dict__["create_engine"] = create_engine

project = "pyscopg2"
copyright = "the pyscopg2 maintainers"  # noqa: A001
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "tools.site.names"]

html_theme = "furo"
html_title = "pyscopg2"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]

autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "show-inheritance": True,
}
autoclass_content = "both"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
default_role = "py:obj"
nitpick_ignore_regex = [
    # Drivers and the standard library have sites of their own.
    (r"py:.*", r"(?!pyscopg2\.).*"),
    # Type variables.
    (r"py:class", r".*\.\w*T"),
    # What public classes are made of, and nobody else's business.
    (r"py:class", r"pyscopg2\.core\.adapter\.(aiopg|asyncpg)\.pools\.\w+"),
    (r"py:class", r"pyscopg2\.testing\.contracts\.\w+\.\w+\.\w+"),
    (r"py:class", r"pyscopg2\.asgi\.endpoint\.Endpoint"),
    (r"py:class", r"pyscopg2\.core\.attempts\.(course|shared)\.\w+"),
    (r"py:class", r"pyscopg2\.core\.dsn\.surroundings\.Files"),
    (r"py:class", r"pyscopg2\.core\.topology\.(freshness|lsn_clock)\.\w+"),
    (r"py:class", r"pyscopg2\.core\.topology\.(host_state\.Observation|role_query\.WalState)"),
    (r"py:class", r"pyscopg2\.core\.events\.listeners\.Listeners"),
    (r"py:class", r"pyscopg2\.opentelemetry\.names\.Names"),
    (r"py:class", r"pyscopg2\.psycopg\.reserved\.Reserved"),
]
