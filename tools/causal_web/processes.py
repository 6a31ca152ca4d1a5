"""The processes of the service, from their start to their end."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx

from .service import DSN, SECRET

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds that a process may take to begin, and to end."""


@contextlib.contextmanager
def process(dsn: str, secret: str) -> Generator[str]:
    """The address of one, which serves in the block."""
    command = [sys.executable, "-m", "tools.causal_web.service"]
    environment = os.environ | {DSN: dsn, SECRET: secret}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as service:
        try:
            assert service.stdout is not None
            address = f"http://127.0.0.1:{service.stdout.readline().strip()}"
            _await_answer(service, address)
            yield address
        finally:
            service.terminate()
            try:
                service.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                service.kill()


def _await_answer(service: "subprocess.Popen[str]", address: str) -> None:
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            httpx.get(f"{address}/0", timeout=PATIENCE).raise_for_status()
        except httpx.TransportError:
            if service.poll() is not None or time.monotonic() > limit:
                raise
            time.sleep(0.05)
        else:
            return
