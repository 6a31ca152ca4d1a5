"""The README's programs, against a real cluster."""

import asyncio
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import httpx
import pytest

from pyscopg2.testing.cluster import LocalCluster

from .support import with_driver

README = Path(__file__).parents[3] / "packages" / "sqlalchemy" / "README.md"
PLACEHOLDER = "postgresql://app:secret@db1:5432,db2:5432,db3:5432/app"


def snippet(word: str, dsn: str) -> str:
    """The Python snippet that contains the word."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    (found,) = (block for block in blocks if word in block)
    assert PLACEHOLDER in found
    return str(found).replace(PLACEHOLDER, dsn)


async def test_plain_asyncio(cluster: LocalCluster, driver: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(snippet("class Note", with_driver(cluster.dsn, driver)))
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-X", "dev", "-W", "error", str(program)],
        capture_output=True,
        text=True,
    )
    cluster.psql(cluster.primary, "DROP TABLE sqlalchemy_notes")
    # On a busy machine the master serves the read, until the replica has been heard.
    printed = ("['hello']\nTrue\n", "['hello']\nFalse\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout in printed, done.stderr
    assert "Traceback" not in done.stderr


async def test_fastapi(cluster: LocalCluster, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # FastAPI looks the annotations up in the module.
    module: Any = types.ModuleType("snippet_of_the_readme")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(snippet("FastAPI", with_driver(cluster.dsn, driver)), module.__dict__)
    try:
        # As in the tests of an application: each has its own.
        for first in (1, 3):
            app = module.create_app()
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app=app), base_url="http://test"
                ) as client,
            ):
                manager = app.state.manager
                await manager.ready(1, 1)
                for count in (first, first + 1):
                    answer = await client.post("/visits")
                    assert (answer.status_code, answer.json()) == (200, count)
                answers = await asyncio.gather(*(client.get("/replaying") for _ in range(10)))
                assert [answer.json() for answer in answers] == [True] * 10
                assert {manager.get_pool_freesize(pool) for pool in manager.pools} == {15}
    finally:
        cluster.psql(cluster.primary, "DROP TABLE IF EXISTS visits")
