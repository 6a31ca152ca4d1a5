"""Programs that stand in documents."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PLACEHOLDER = "postgresql://app:secret@db1:5432,db2:5432,db3:5432/app"
"""Stands for the DSN of a cluster."""


def blocks(text: str, language: str) -> Iterator[tuple[int, str]]:
    """The line on which each begins, and its text."""
    for block in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, block.start()) + 1, block[1]


def files(text: str) -> dict[str, str]:
    """The blocks that have a name above them: a line with nothing but "`app.py`:"."""
    found = re.finditer(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return {block[1]: block[2] for block in found}


def commands(text: str) -> list[str]:
    """The lines of the blocks for a shell, without their comments."""
    lines = "".join(block for _, block in blocks(text, "sh")).splitlines()
    return [line.partition("  #")[0].strip() for line in lines]


def run_program(text: str, folder: Path) -> None:
    """It ends by itself, without an error or a warning; what is a test is run as one."""
    program = folder / "snippet.py"
    program.write_text(text)
    if re.search(r"^def test_|^async def test_", text, re.MULTILINE):
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    else:
        command = ["-W", "error"]
        if "pyscopg2.asyncpgsa" in text:
            # The SQLAlchemy 1.3 that it needs is older than Python 3.12.
            command += ["-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *command, str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
