"""The README's application, on a real cluster, and what it says of others."""

import inspect
import re
from pathlib import Path
from typing import Any

from tests.asgi.support import COOKIE, Browser, lifespan

from pyscopg2.asgi import CausalMiddleware, Counts, StatusPage
from pyscopg2.asgi.arguments import LEAST_SECRET
from pyscopg2.asgi.journal import MOST_EVENTS, QUIET, WINDOW
from pyscopg2.asgi.middleware import MOST
from pyscopg2.asgi.signer import SKEW
from pyscopg2.asgi.status_page import MOST as MOST_PAGES
from pyscopg2.asgi.stream import BACKLOG
from pyscopg2.testing.cluster import LocalCluster

README = Path(__file__).parents[2] / "packages/asgi/README.md"
PLACEHOLDER = "postgresql://app:secret@db1:5432,db2:5432,db3:5432/app"
TEXT = README.read_text()


async def test_the_application() -> None:
    first = re.search(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert first is not None
    assert PLACEHOLDER in first[1]
    with LocalCluster(replicas=1) as cluster:
        names: dict[str, Any] = {"__name__": "readme"}
        exec(first[1].replace(PLACEHOLDER, cluster.dsn), names)
        application = names["create_app"]()
        assert isinstance(application, CausalMiddleware)
        async with lifespan(application):
            browser = Browser(application)
            for count in range(1, 6):
                assert (await browser("POST", "/visits")).status_code == 200
                assert await browser.reads("/visits", count=3) == {str(count)}
            # Each response that told something new was one of a write's.
            assert application.counts == Counts(accepted=5 * 4 - 1, told=5)
            assert COOKIE in browser.cookies


def test_its_figures() -> None:
    assert f"{LEAST_SECRET} bytes at least" in TEXT
    assert f"more than {SKEW:g} seconds" in TEXT
    assert {4: "up to four"}[MOST] in TEXT
    for name in Counts.__slots__:
        assert f"`{name}`" in TEXT, name


def test_the_status_pages_figures() -> None:
    renew_after = inspect.signature(StatusPage).parameters["renew_after"].default
    assert f"`renew_after={renew_after}`" in TEXT
    assert f"every {renew_after:g} seconds" in TEXT
    assert f"the last {MOST_EVENTS} of them" in TEXT
    assert WINDOW == 600
    assert "for ten minutes" in TEXT
    assert f"At most {MOST_PAGES} pages" in TEXT
    assert f"{BACKLOG} events are kept" in TEXT
    assert f"one in {QUIET:g} seconds" in TEXT
