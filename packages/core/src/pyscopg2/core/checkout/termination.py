"""The end of connections that are out: their users get errors at once."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Generic

from pyscopg2.core.adapter.protocol import Adapter, ConnT, PoolT
from pyscopg2.core.checkout.checkout import ENDED, OUT, Checkout
from pyscopg2.core.checkout.slots import Slots
from pyscopg2.core.diagnosis import log
from pyscopg2.core.events.event import ConnectionsTerminated
from pyscopg2.core.events.listeners import Listeners
from pyscopg2.core.statistics.tally import Tallies
from pyscopg2.core.timing.background import Background


class Termination(Generic[PoolT, ConnT]):
    """Terminates connections, and sees to it that their slots become free."""

    def __init__(
        self,
        adapter: Adapter[PoolT, ConnT],
        slots: Slots[PoolT],
        background: Background,
        listeners: Listeners,
        tallies: Tallies,
        patience: float,
    ) -> None:
        """``patience``: seconds for the driver to take a dead connection back."""
        self._adapter = adapter
        self._slots = slots
        self._background = background
        self._listeners = listeners
        self._tallies = tallies
        self._patience = patience

    def end(self, address: str, checkouts: Iterable[Checkout[PoolT, ConnT]], why: str) -> None:
        """Terminate those of them that a user has, and give them back to the driver: the user gets
        an error now, and the user's own release, later, does nothing. All are of one host."""
        lost = [checkout for checkout in checkouts if checkout.stage is OUT]
        if lost:
            self._note(address, len(lost), why)
            log.say(logging.WARNING, "connections terminated: %d, %s", len(lost), why, host=address)
        for checkout in lost:
            checkout.stage = ENDED
            self.cut(checkout)
            self._background.spawn(self.bury(checkout))

    def bite(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """The end of a block, or a release, was not answered in time: so it fails. Its user gives
        the connection back still."""
        self._note(checkout.host_pool.address, 1, "no answer at its end")
        self.cut(checkout)
        self._listeners.flush()

    def _note(self, address: str, count: int, why: str) -> None:
        self._tallies.hosts[address].terminated += count
        self._listeners.note(ConnectionsTerminated(address=address, count=count, why=why))

    def cut(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """What waits for an answer on this connection fails. An adapter that raises, though it must
        not, does not stop what follows."""
        try:
            self._adapter.terminate_connection(checkout.connection)
        except Exception as exc:
            log.say(logging.ERROR, "the adapter's terminate_connection raised", exc=exc)

    async def bury(self, checkout: Checkout[PoolT, ConnT]) -> None:
        """Give a dead connection back: it occupies the driver's pool otherwise."""
        host_pool = checkout.host_pool
        try:
            self.cut(checkout)
            async with asyncio.timeout(self._patience):
                await self._adapter.release_to_pool(checkout.connection, host_pool.pool)
        finally:
            self._slots.free(host_pool)
