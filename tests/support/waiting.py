"""Tests wait for conditions, never for time to pass."""

import asyncio
import inspect
from collections.abc import Callable

PATIENCE = 30.0
"""Seconds after which a condition is taken for one that never comes, also on a busy machine."""

SOON = 5.0
"""Seconds within which what happens at once has happened, on a busy machine."""


async def eventually(
    condition: Callable[[], object], what: str = "", timeout: float = PATIENCE
) -> None:
    """Ask, and await the answer where it is awaitable, until it is true."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                answer = condition()
                if await answer if inspect.isawaitable(answer) else answer:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {timeout:g} s: {what or condition}") from None


async def turns(count: int) -> None:
    """Let the event loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)
