"""Why hosts are checked sooner than their time, and how soon.

The one thing that travels against the stream: acquires and releases that meet a sign of trouble, or
wait for what no host has, say so here; each host's monitor reads it here.
"""

import asyncio
import math
from collections.abc import Hashable, Iterable, Sequence

from pyscopg2.core.topology.host_state import HostState, Role
from pyscopg2.core.topology.snapshot import Change, Topology
from pyscopg2.core.topology.store import Store

MISSING_GAP = 0.05
"""Seconds between two checks of a host, at least, on a connection that is open: on suspicion, or
while somebody waits for a role that nobody has."""

CONNECT_GAP = 0.2
"""The same where the check has to connect: each connect costs the server a fork."""

WATCHFUL_GAP = 0.2
"""The same while the master is lost, or overdue with its answer, whether anybody waits or not."""

WATCHFUL_TIME = 60.0
"""Seconds for which a lost master is a reason to check that often."""

WAITING_GAP = 0.5
"""The same for anything else that somebody waits for: a host that is down, a slot in a pool."""

PROOFS_PER_BOUND = 3
"""Checks in the time of a bound that is read with: as one proves what was before it, two do not
suffice."""

KEPT_TIME = 1.0
"""Seconds for which they go on after the last such read."""

HOPELESS_GAP = 1.0
"""The same for a host whose error waiting does not heal, while somebody waits."""

LONGEST_GAP = 10.0
"""The same at the most for such a host, while nobody does."""


class Summons:
    """What is asked of one host's monitor. `Attention` writes it, the monitor takes it back."""

    __slots__ = ("asked_for", "contradiction", "route_in_doubt", "suspected", "wake")

    def __init__(self) -> None:
        self.suspected = False
        """Something may have changed: a check is due as soon as the gap between checks allows."""
        self.asked_for = False
        """Somebody waits for what this host has not got just now, and it may be stuck: a check is
        due, but for this reason no oftener than every `WAITING_GAP` seconds."""
        self.contradiction: tuple[bool, int] | None = None
        """Whether the server is in recovery by what a user's connection has told, against the last
        answer; and the serial from which on a check knows better. Where the next check says the
        same as the last, several servers stand behind the address."""
        self.route_in_doubt = False
        """The master has changed: if the address may lead to several servers, one that the host's
        pool knows may be the new master."""
        self.wake = asyncio.Event()
        """Set where the monitor has to ask anew how long it may sleep."""


class Attention:
    """Says of each host why it is to be checked soon, and tells its monitor how long it may sleep.

    The rules, in this order, for a host whose last check failed in a way that waiting does not
    heal (a wrong password): once a second while somebody waits, else ever more seldom. For all
    others, the smallest that applies:

    - somebody waits for a role that nobody has: the least that the host is asked to bear,
      `MISSING_GAP`, or `CONNECT_GAP` where the check has to connect;
    - the master is lost, for up to a minute, or overdue: `WATCHFUL_GAP`;
    - somebody waits for hosts, and this one does not answer: `WAITING_GAP`;
    - the host answers, and somebody waits for a replica that is proven to be fresh enough:
      `MISSING_GAP`; and while somebody reads with a bound, `PROOFS_PER_BOUND` checks in that time;
    - the manager's ``refresh_delay``.
    """

    def __init__(self, store: Store, refresh_delay: float) -> None:
        self._store = store
        self._refresh_delay = refresh_delay
        self._summons = {host.address: Summons() for host in store.topology}
        self._missing: set[Hashable] = set()
        self._unproven: set[Hashable] = set()
        self._kept = math.inf
        """The smallest bound that was read with lately, in seconds."""
        self._kept_until = -math.inf
        """Until when that counts, on the event loop's clock."""
        self._reign = store.topology.reign
        self._lost_at = -math.inf
        """When the last master was lost, on the event loop's clock; infinite while there is one,
        or never was."""
        store.subscribe(self._follow)

    # Said by acquires, releases, and the manager

    def check_soon(self, address: str) -> None:
        """Something may have changed there."""
        summons = self._summons[address]
        summons.suspected = True
        summons.wake.set()

    def check_now_and_then(self, address: str) -> None:
        """Somebody waits for what this host has not got just now, and it may be stuck."""
        summons = self._summons[address]
        summons.asked_for = True
        summons.wake.set()

    def check_all_soon(self) -> None:
        for address in self._summons:
            self.check_soon(address)

    def contradict(self, address: str, in_recovery: bool) -> None:
        """A user's connection to this address says otherwise than the last answer did."""
        summons = self._summons[address]
        summons.contradiction = in_recovery, self._store.next_serial()
        self.check_soon(address)

    def miss(self, what: Hashable) -> None:
        """Somebody waits for this, and no host can serve it; until `found`."""
        if what not in self._missing:
            self._missing.add(what)
            self.hurry()

    def found(self, what: Hashable) -> None:
        """A host can serve this, or nobody waits for it any more."""
        self._missing.discard(what)

    def prove(self, what: Hashable) -> None:
        """Somebody waits for this, and no replica is proven to be fresh enough; until `proved`."""
        if what not in self._unproven:
            self._unproven.add(what)
            self.hurry()

    def proved(self, what: Hashable) -> None:
        """A replica is fresh enough for this, or nobody waits for it any more."""
        self._unproven.discard(what)

    def keep_proving(self, max_lag: float, now: float) -> None:
        """Somebody reads with this bound, in seconds, at this moment on the event loop's clock: for
        a while checks come so often that nobody has to wait for them."""
        if max_lag < self._kept or now >= self._kept_until:
            self._kept = max_lag
            if max_lag / PROOFS_PER_BOUND < self._refresh_delay:
                self.hurry()
        self._kept_until = now + KEPT_TIME if max_lag <= self._kept else self._kept_until

    def hurry(self) -> None:
        """Have each monitor ask anew how long it may sleep."""
        for summons in self._summons.values():
            summons.wake.set()

    # Asked by the monitors

    def of(self, address: str) -> Summons:
        """What is asked of this host's monitor: the same object each time."""
        return self._summons[address]

    @property
    def is_role_missing(self) -> bool:
        """Whether somebody waits for a role that nobody has."""
        return bool(self._missing) or self._store.urgent

    @property
    def is_master_lost(self) -> bool:
        """Whether there was a master less than a minute ago, which is lost, or is overdue."""
        lost_for = asyncio.get_running_loop().time() - self._lost_at
        return 0 <= lost_for < WATCHFUL_TIME or _is_overdue(self._store.topology.masters)

    def delay(self, host: HostState, failures: int, least: float) -> float:
        """Seconds from the beginning of one check of this host to the next one's.

        ``failures``: how often in a row it failed in a way that waiting does not heal. ``least``:
        what the host is asked to bear.
        """
        delay = self._refresh_delay
        missing = self.is_role_missing
        if failures:
            longer = max(delay, min(delay * float(2 ** min(failures, 10)), LONGEST_GAP))
            return min(longer, HOPELESS_GAP) if missing or self._store.awaited else longer
        if missing:
            delay = min(delay, least)
        if self.is_master_lost:
            delay = min(delay, WATCHFUL_GAP)
        if self._store.awaited and (host.has_failed or host.role is Role.UNKNOWN):
            delay = min(delay, WAITING_GAP)
        if self._unproven and host.answering:
            delay = min(delay, least)
        if self._kept < math.inf and host.answering:
            delay = min(delay, self._proving_gap(least))
        return delay

    def _proving_gap(self, least: float) -> float:
        if asyncio.get_running_loop().time() >= self._kept_until:
            self._kept = math.inf
            return math.inf
        return max(least, self._kept / PROOFS_PER_BOUND)

    def _follow(self, after: Topology, changes: Sequence[Change]) -> None:
        """The store's listener."""
        if after.masters:
            self._lost_at = math.inf
        elif self._lost_at == math.inf:
            self._lost_at = asyncio.get_running_loop().time()
            self.hurry()
        if any(new.overdue and not old.overdue for old, new in changes):
            self.hurry()
        before, self._reign = self._reign, after.reign
        if before[0] is not None and before != self._reign:
            for summons in self._summons.values():
                summons.route_in_doubt = True
            self.check_all_soon()


def _is_overdue(masters: Iterable[HostState]) -> bool:
    return any(host.overdue for host in masters)
