"""The documents, what stands in their blocks, and where that is run."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PLACEHOLDER = "postgresql://app:secret@db1:5432,db2:5432,db3:5432/app"

FRAMEWORKS = sorted(ROOT.glob("packages/core/docs/frameworks/*.md"))
"""Their programs are run by tests/frameworks, in the environment of that name."""

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "RELEASING.md",
    ROOT / "SECURITY.md",
    *sorted(ROOT.glob("packages/*/README.md")),
    *sorted(ROOT.glob("packages/*/docs/*.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
]
"""Their Python blocks are run one by one, by tests/test_docs.py."""


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """The line that each begins at, and what is in it."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, block.start()) + 1, block[1]) for block in found]


def files(text: str) -> dict[str, str]:
    """The blocks that have a name above them: a line with nothing but "`app.py`:"."""
    found = re.finditer(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return {block[1]: block[2] for block in found}


def commands(text: str) -> list[str]:
    """The lines of the blocks for a shell, without their comments."""
    lines = "".join(block for _, block in blocks(text, "sh")).splitlines()
    return [line.partition("  #")[0].strip() for line in lines]
