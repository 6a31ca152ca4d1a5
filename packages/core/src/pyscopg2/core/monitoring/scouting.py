"""Where an address leads now: a name may move, a balancer or a service lead to several servers.

A scout is a check over a connection of its own, apart from the reserved one. It is sent where there
is a reason to think that it would find another server than that does.
"""

import asyncio
import math
from typing import Generic

from pyscopg2.core.adapter.protocol import PoolT
from pyscopg2.core.dsn.target import Target
from pyscopg2.core.monitoring.attention import CONNECT_GAP, LONGEST_GAP, Attention
from pyscopg2.core.monitoring.held_connection import HeldConnection
from pyscopg2.core.monitoring.pool_keeper import PoolKeeper
from pyscopg2.core.monitoring.route import is_direct
from pyscopg2.core.topology.host_state import Role
from pyscopg2.core.topology.role_query import Answer
from pyscopg2.core.topology.store import Store

LEAST_GAP = 0.5
"""Seconds between two scouts, at least."""

AFTER_PROMOTION = 3
"""So many are sent after a promotion was seen over a connection from before."""


class Scouting(Generic[PoolT]):
    """Says whether a scout is to be sent, and when."""

    def __init__(
        self,
        target: Target,
        store: Store,
        attention: Attention,
        keeper: PoolKeeper[PoolT],
        held: HeldConnection[PoolT],
    ) -> None:
        self._target = target
        self._store = store
        self._attention = attention
        self._summons = attention.of(target.address)
        self._keeper = keeper
        self._held = held
        self._left = 0
        """How many are to be sent yet because of a promotion."""
        self.is_due = False
        """Whether there is a reason to send one."""
        self.next_at = -math.inf
        """When it may be sent, on the event loop's clock, in seconds."""
        self._gap = LEAST_GAP
        self._pause = LEAST_GAP

    def promoted(self) -> None:
        """A promotion was seen over a connection from before."""
        self._left = AFTER_PROMOTION

    def pool_opened(self) -> None:
        """The host's pool is a new one: it leads where the address leads now."""
        self._summons.route_in_doubt = False

    async def is_pool_in_doubt(self, answer: Answer, serial: int) -> bool:
        """Whether the pool is to be replaced, whatever a scout finds, for one of these reasons:

        1. A user's connection has told another role than this check, which has the number
           ``serial``, made after it: the pool leads to several servers.
        2. The master has changed, and something stands between this replica's address and its
           server: the pool may lead to the new master.
        """
        return self._is_contradicted(answer, serial) or await self._is_rerouted(answer)

    def consider(self, answer: Answer, pool_in_doubt: bool) -> bool:
        """Whether to send one now, for one of these reasons:

        1. The pool is in doubt.
        2. This is a rival: it may be the master's own server, by another address.
        3. A promotion was seen: the pool may lead elsewhere than the reserved connection.
        4. Somebody waits for a master, there is none, and this is a standby over a connection from
           before: a name or a service that moves leaves the flows that there are alone.
        """
        now = asyncio.get_running_loop().time()
        lasting = pool_in_doubt or self._role is Role.RIVAL
        is_master_missing = (
            not answer.writable
            and self._attention.is_role_missing
            and not self._store.topology.masters
        )
        self.is_due = lasting or is_master_missing or self._left > 0
        if not self.is_due:
            if now >= self.next_at:
                self._gap = LEAST_GAP
            return False
        if now < self.next_at or self._held.is_new:
            return False
        self._left = max(0, self._left - 1)
        gap = self._gap
        if lasting:
            self._gap = min(2 * gap, LONGEST_GAP)
        if self._held.is_in_pool:
            # A pool may open as many connections as it has slots: each is one more connect.
            gap = min(max(gap, CONNECT_GAP * (self._keeper.size or 0)), LONGEST_GAP)
        self._pause = gap
        return True

    def sent(self) -> None:
        """The scout has ended, with an answer or without."""
        self.next_at = asyncio.get_running_loop().time() + self._pause

    def taken(self) -> None:
        """What was found has been taken for the host: nobody contradicts that yet."""
        self._summons.contradiction = None

    @property
    def _role(self) -> Role:
        return self._store.topology[self._target.address].role

    async def _is_rerouted(self, answer: Answer) -> bool:
        summons = self._summons
        may_lead_elsewhere = self._keeper.pool is not None and self._role is Role.REPLICA
        if not summons.route_in_doubt or not may_lead_elsewhere:
            return False
        summons.route_in_doubt = not await is_direct(self._target, answer.address)
        return summons.route_in_doubt

    def _is_contradicted(self, answer: Answer, serial: int) -> bool:
        contradiction = self._summons.contradiction
        if contradiction is None:
            return False
        in_recovery, since = contradiction
        if serial <= since:
            return False
        # Behind some proxies what a connection tells of its server is that of an earlier one.
        trusted = self._held.is_open and self._held.in_recovery is answer.in_recovery
        if not trusted or in_recovery is answer.in_recovery:
            self._summons.contradiction = None
            return False
        return True
