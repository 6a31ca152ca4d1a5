"""A name in backticks of a docstring leads to where it is documented, if it is."""

from typing import cast

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import ObjectEntry, PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: Element
) -> Element | None:
    """Called for what Sphinx itself has not found. What is nobody's name stays code."""
    if node["refdomain"] != "py":
        return None
    objects = cast("PythonDomain", env.get_domain("py")).objects
    found = _documented(node["reftarget"], objects, str(node.get("py:class") or ""))
    if found is not None:
        place = objects[found]
        return make_refnode(
            app.builder, node["refdoc"], place.docname, place.node_id, contnode, found
        )
    # Of the role that docstrings use for all names, also those of PostgreSQL and of drivers.
    return contnode if node["reftype"] == "obj" else None


def _documented(target: str, objects: dict[str, ObjectEntry], near: str) -> str | None:
    """The one documented name that this may be short for. ``near``: the class where it stands."""
    name = target.removesuffix("()")
    if name.startswith("pyscopg2."):
        name = name.rpartition(".")[2]
    ends = [full for full in objects if full.endswith(f".{name}")]
    same = [full for full in ends if near and f".{near}." in f".{full}"]
    # A bare word such as `timeout` is a name of the class that it stands in, or an argument.
    elsewhere = ends if "." in name or not name[:1].islower() else []
    for candidates in (same, elsewhere):
        real = sorted({full for full in candidates if not objects[full].aliased})
        if len(real) == 1:
            return real[0]
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
