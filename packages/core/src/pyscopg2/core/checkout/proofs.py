"""What is proven of the hosts now, for those who hold it: the host pools, and bounded queues."""

import logging

from pyscopg2.core.checkout.bound import Bound
from pyscopg2.core.diagnosis import log
from pyscopg2.core.topology.freshness import Freshness
from pyscopg2.core.topology.host_state import HostState
from pyscopg2.core.topology.snapshot import Topology
from pyscopg2.core.wal import WalPosition

_LOST = Freshness(reason="what it told was of another server")


class Proofs:
    """Of the present snapshot, which `Slots` sets anew with each change."""

    __slots__ = ("_distrusted", "_warned", "topology")

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._distrusted: dict[str, HostState] = {}
        self._warned: set[tuple[int, int]] = set()
        """The system and the timeline of positions of which somebody was warned."""

    def freshness(self, address: str) -> Freshness:
        """`KeyError`: there is no host of that address."""
        if self._distrusted and self._distrusted.get(address) is self.topology[address]:
            return _LOST
        return self.topology.freshness(address)

    def distrust(self, host: HostState) -> None:
        """What it told is not of the server that is there now: its connection is closed over which
        it told this, or its address led elsewhere. Until its next check nothing is known of it."""
        self._distrusted[host.address] = host

    def refusal(self, bound: Bound) -> ValueError | None:
        """Why no host will ever keep this bound: its position is of another system than the one
        that counts."""
        after = bound.after
        if after is None:
            return None
        known = self.topology.system
        if bound.is_explicit and known is not None and known != after.system_identifier:
            mine, theirs = after.system_identifier, known
            return ValueError(f"the position is of system {mine}, and the hosts are of {theirs}")
        self._warn(after)
        return None

    def _warn(self, after: WalPosition) -> None:
        """Once for each timeline, where a write may be lost: it is on a timeline that the master
        has left, beyond where it left it."""
        clock = self.topology.clock
        if clock is None or clock.system != after.system_identifier:
            return
        if after.timeline >= clock.timeline or after.lsn <= clock.began_at:
            return
        key = after.system_identifier, after.timeline
        if key not in self._warned:
            self._warned.add(key)
            text = "position %s is beyond where timeline %d began: that write may be lost"
            log.say(logging.WARNING, text, after, clock.timeline)
