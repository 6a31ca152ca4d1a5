"""The acquire of a block that writes, in a causal session."""

import contextlib
from collections.abc import Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import Any

from pyscopg2.core.adapter.cutting import cut_first
from pyscopg2.core.adapter.protocol import ConnT, PoolT
from pyscopg2.core.causal import CausalSession
from pyscopg2.core.checkout.acquire import OwnedAcquire
from pyscopg2.core.checkout.checkout import ENDED, OUT, RETURNING
from pyscopg2.core.checkout.checkouts import Checkouts
from pyscopg2.core.checkout.wait_queue import WaitQueue
from pyscopg2.core.diagnosis.error_class import is_suspicious
from pyscopg2.core.timing import stopwatch
from pyscopg2.core.topology.position_query import POSITION_QUERY, parse_position


class CausalAcquire(OwnedAcquire[PoolT, ConnT]):
    """One that moves its session on with what it has written, before the connection goes back."""

    __slots__ = ("_is_writing", "_session")

    def __init__(
        self,
        checkouts: Checkouts[PoolT, ConnT],
        queue: WaitQueue[PoolT],
        timeout: float,
        kwargs: dict[str, Any],
        session: CausalSession,
    ) -> None:
        super().__init__(checkouts, queue, timeout, kwargs)
        self._session = session
        self._is_writing = False

    def __await__(self) -> Generator[Any, Any, ConnT]:
        connection = yield from super().__await__()
        self._begin_write()
        return connection

    async def __aenter__(self) -> ConnT:
        connection = await super().__aenter__()
        self._begin_write()
        return connection

    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Coroutine[Any, Any, None]:
        if self.stage is OUT:
            return self._end_block(exc, self._end_and_ask(exc))
        if self.stage is ENDED:
            self._session.move_to(stopwatch.clock())
            self._end_write()
        return super().__aexit__(exc_type, exc, traceback)

    async def give_back(self, kwargs: dict[str, Any]) -> None:
        """What `BasePoolManager.release` does: ask, and then as `Checkouts.release`."""
        if self.stage is ENDED:
            self._session.move_to(stopwatch.clock())
            self._end_write()
        else:
            # Nobody gives it back a second time, while the server is asked.
            self.stage = RETURNING
            self.ticks = 0
            try:
                await self._ask()
            except BaseException:
                self.stage = OUT
                # A cancellation is not hidden by what a connection that was cut off raises.
                with contextlib.suppress(Exception):
                    await self._checkouts.release(self, {})
                raise
            finally:
                self._end_write()
            self.stage = OUT
        await self._checkouts.release(self, kwargs)

    async def _end_and_ask(self, exc: BaseException | None) -> None:
        """End the block as the driver does, and ask how far the log is. A block that is cancelled
        is not kept from ending by a question."""
        try:
            try:
                end_block = self._checkouts.end_block
                ending = None if end_block is None else end_block(self.connection, exc)
                if ending is not None:
                    await ending
            except BaseException:
                self._session.move_to(stopwatch.clock())
                raise
            if exc is None or isinstance(exc, Exception):
                await self._ask()
            else:
                self._session.move_to(stopwatch.clock())
        finally:
            self._end_write()

    def _begin_write(self) -> None:
        self._is_writing = True
        self._session.begin_write()

    def _end_write(self) -> None:
        """Once, whoever gives the connection back."""
        if self._is_writing:
            self._is_writing = False
            self._session.end_write()

    async def _ask(self) -> None:
        """Move the session to where the log is now: to its position, or where nobody tells that, to
        this moment. What the user has done is done, whatever comes of the question."""
        checkouts = self._checkouts
        adapter = checkouts.adapter
        moment = stopwatch.clock()
        try:
            # Who is cancelled meanwhile does not wait for a server that may be frozen.
            cut = partial(adapter.terminate_connection, self.connection)
            asking = adapter.fetch_scalar(self.connection, POSITION_QUERY)
            answer = await cut_first(asking, cut)
            position = parse_position(answer)
        except BaseException as exc:
            self._session.move_to(moment)
            if not isinstance(exc, Exception):
                raise
            if is_suspicious(exc, adapter.sqlstate):
                checkouts.attention.check_soon(self.host_pool.address)
        else:
            if position is not None:
                self._session.move(position)
            elif self._queue.request.pool_id is None:
                # Another server than the one that was written to, behind one address.
                self._session.move_to(moment)
