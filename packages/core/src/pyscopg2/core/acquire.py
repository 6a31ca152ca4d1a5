"""What `acquire` returns: `await` it, or enter it with ``async with``."""

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.checkout import Checkout, Checkouts
from pyscopg2.core.selection import Request


class AcquireContext(Checkout[PoolT, ConnT]):
    """A connection to come: nothing happens before it is awaited or entered, once.

    ``await`` gives the connection, which has to be given to `release` later. ``async with`` gives
    it for the block, ends the block as the driver's own pool does, and releases it in any case.
    The errors are those of `BasePoolManager.acquire`.
    """

    __slots__ = ("_checkouts",)

    def __init__(
        self,
        checkouts: Checkouts[PoolT, ConnT],
        request: Request,
        timeout: float,
        kwargs: dict[str, Any],
    ) -> None:
        # What `Checkout` does, once more: each call costs every acquire.
        self.request = request
        self.timeout = timeout
        self.kwargs = kwargs
        self.begun = False
        self.ended = False
        self._checkouts = checkouts

    # Ordinary methods: each `async def` between the user and the driver costs every acquire.

    def __await__(self) -> Generator[Any, Any, ConnT]:
        return self._checkouts.acquire(self).__await__()

    def __aenter__(self) -> Coroutine[Any, Any, ConnT]:
        return self._checkouts.acquire(self)

    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Coroutine[Any, Any, None]:
        if not self.begun:
            raise RuntimeError("this acquire has not been entered")
        return self._checkouts.end_block(self, exc)
