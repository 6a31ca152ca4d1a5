"""When one host is checked next."""

import asyncio
import math
import random
from typing import Any

from pyscopg2.core.monitoring.attention import CONNECT_GAP, MISSING_GAP, WAITING_GAP, Attention
from pyscopg2.core.monitoring.held_connection import HeldConnection
from pyscopg2.core.monitoring.pool_keeper import PoolKeeper
from pyscopg2.core.monitoring.scouting import Scouting
from pyscopg2.core.topology.store import Store

JITTER = 0.2
"""Checks come up to this part later than their time, so that many clients do not beat as one."""


class Schedule:
    """Sleeps from one check to the next, and wakes early where `Attention` says so."""

    def __init__(
        self,
        address: str,
        store: Store,
        attention: Attention,
        keeper: PoolKeeper[Any],
        held: HeldConnection[Any],
        scouting: Scouting[Any],
    ) -> None:
        self._address = address
        self._store = store
        self._attention = attention
        self._summons = attention.of(address)
        self._keeper = keeper
        self._held = held
        self._scouting = scouting
        self._began = 0.0
        """When the last check did, on the event loop's clock, in seconds."""
        self._next_asked_at = -math.inf
        """When a check may begin that is only asked for."""

    def begin(self) -> None:
        """A check begins: what it was wanted for is done with it."""
        self._began = asyncio.get_running_loop().time()
        summons = self._summons
        if summons.asked_for and self._began >= self._next_asked_at:
            summons.asked_for = False
            self._next_asked_at = self._began + WAITING_GAP
        summons.suspected = False

    async def pause(self, failures: int) -> None:
        """Until the next check is due. ``failures``: how often in a row the host failed in a way
        that waiting does not heal."""
        loop = asyncio.get_running_loop()
        stretch = 1 + JITTER * random.random()
        wake = self._summons.wake
        while loop.time() < (until := self._began + self._delay(failures) * stretch):
            wake.clear()
            timer = loop.call_at(until, wake.set)
            try:
                await wake.wait()
            finally:
                timer.cancel()

    def _delay(self, failures: int) -> float:
        """Seconds from the last check's beginning to the next one's, before jitter."""
        least = self._least_gap()
        host = self._store.topology[self._address]
        delay = self._attention.delay(host, failures, least)
        if self._summons.suspected:
            delay = min(delay, least)
        if self._summons.asked_for:
            delay = min(delay, max(self._next_asked_at - self._began, least))
        if self._scouting.is_due:
            delay = min(delay, max(self._scouting.next_at - self._began, least))
        return delay

    def _least_gap(self) -> float:
        """Longer where the check has to connect."""
        if not self._held.is_open or self._keeper.error is not None:
            return CONNECT_GAP
        if self._held.is_closed():
            return max(MISSING_GAP, self._held.broke_at + CONNECT_GAP - self._began)
        return MISSING_GAP
