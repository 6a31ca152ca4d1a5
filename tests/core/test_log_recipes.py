"""What the page on observing says of structlog and Sentry is so: its own programs do it."""

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyscopg2.core.diagnosis import log

PAGE = Path(__file__).parents[2] / "packages/core/docs/observing.md"


def program(word: str) -> str:
    """The one that has this word."""
    programs = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (found,) = (each for each in programs if word in each)
    return str(found)


@pytest.fixture
def handlers() -> Iterator[list[logging.Handler]]:
    """The root logger's; what is added is taken back."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield root.handlers
    root.handlers[:] = before


def warn() -> None:
    log.say(logging.WARNING, "db1 is gone", host="db1:5432", role="unavailable", cause="refused")


def test_structlog_shows_the_fields(handlers: list[logging.Handler]) -> None:
    exec(program("structlog.configure"), {})
    handler: Any = handlers[-1]
    stream = io.StringIO()
    handler.setStream(stream)
    warn()
    assert json.loads(stream.getvalue()) == {
        "event": "db1 is gone",
        "level": "warning",
        "host": "db1:5432",
        "role": "unavailable",
        "cause": "refused",
    }


SENTRY = """
import json, logging, sys
import sentry_sdk
from sentry_sdk.transport import Transport

from pyscopg2.core.diagnosis import log
from pyscopg2.core.dsn import parse_dsn


class Kept(Transport):
    events = []

    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event is not None:
            self.events.append(event)


init = sentry_sdk.init
sentry_sdk.init = lambda **options: init(
    **options | {"dsn": "https://key@localhost/1", "transport": Kept}
)
exec(sys.stdin.read())
try:
    parse_dsn("postgresql://app:s3cret@db1:port/app")
except ValueError as exc:
    sentry_sdk.capture_exception(exc)
log.say(logging.WARNING, "db1 is gone", host="db1:5432", role="unavailable", cause="refused")
print(json.dumps(Kept.events, default=str))
"""


def test_sentry_has_no_variables_of_ours() -> None:
    # By itself: Sentry changes the logging system for good.
    done = subprocess.run(
        [sys.executable, "-c", SENTRY],
        input=program("sentry_sdk.init"),
        capture_output=True,
        text=True,
        check=True,
    )
    error, warning = json.loads(done.stdout)
    frames = error["exception"]["values"][0]["stacktrace"]["frames"]
    ours = [frame for frame in frames if frame["module"].startswith("pyscopg2.")]
    assert ours
    assert not any("vars" in frame for frame in ours)
    assert "s3cret" not in json.dumps(ours)
    assert warning["fingerprint"] == ["pyscopg2", "db1:5432", "unavailable"]
