"""What `acquire` returns: `await` it, or enter it with ``async with``."""

from collections.abc import Generator
from types import TracebackType
from typing import Any, Generic

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.checkout import Checkout, Checkouts
from pyscopg2.core.selection import Request


class AcquireContext(Generic[PoolT, ConnT]):
    """A connection to come: nothing happens before it is awaited or entered.

    ``await`` gives the connection, which has to be given to `release` later. ``async with`` gives
    it for the block, ends the block as the driver's own pool does, and releases it in any case.
    The errors are those of `BasePoolManager.acquire`.
    """

    __slots__ = ("_checkout", "_checkouts", "_kwargs", "_request", "_timeout")

    def __init__(
        self,
        checkouts: Checkouts[PoolT, ConnT],
        request: Request,
        timeout: float,
        kwargs: dict[str, Any],
    ) -> None:
        self._checkouts = checkouts
        self._request = request
        self._timeout = timeout
        self._kwargs = kwargs
        self._checkout: Checkout[PoolT, ConnT] | None = None

    def __await__(self) -> Generator[Any, Any, ConnT]:
        return self._acquire().__await__()

    async def _acquire(self) -> ConnT:
        checkout = await self._checkouts.acquire(self._request, self._timeout, self._kwargs)
        return checkout.connection

    async def __aenter__(self) -> ConnT:
        if self._checkout is not None:
            raise RuntimeError("this acquire has been entered already; call acquire() once a block")
        self._checkout = checkout = await self._checkouts.acquire(
            self._request, self._timeout, self._kwargs
        )
        return checkout.connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        checkout, self._checkout = self._checkout, None
        if checkout is None:
            raise RuntimeError("this acquire has not been entered")
        await self._checkouts.end_block(checkout, exc)
