"""The invariants that are looked at between two turns of the event loop."""

import asyncio
import math
from typing import Any

from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.topology import HostState, Role, Topology
from pyscopg2.testing.fake import FakePool
from pyscopg2.testing.fake_server import FakeServer

from .chronicle import Chronicle
from .driver import HAIR
from .reader import Reader
from .user import POOL_KINDS, Operation, Stage
from .world import World

SPINNING = 10_000
"""Turns of the loop without a pause: somebody asks again and again."""


class Inspection:
    """Looks at the manager, its pools, hosts and tasks, and at what users are about."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._topology: Topology = world.manager.topology
        self._chronicle = Chronicle(self._topology, world.broken)
        world.manager.subscribe(self._chronicle.hear)
        self._host_pools: list[HostPool[FakePool]] = []
        self._turns = 0
        """Since time passed."""
        self._looked_at: object = None
        """What the hosts were last looked at with."""

    def look(self, idle: bool) -> None:
        self._world.oracle.turn += 1
        self._turns = 0 if idle else self._turns + 1
        if self._turns > SPINNING:
            self._world.broken(
                "the clock moves on", f"{SPINNING} turns of the loop without a pause"
            )
        topology = self._world.manager.topology
        if topology is not self._topology or self._world.closed:
            self._host_pools = self._world.manager.slots.host_pools
        if topology is not self._topology:
            self._follow(self._topology, topology)
        for host_pool in self._host_pools:
            if (
                not 0 <= host_pool.in_use <= host_pool.size
                or not 0 <= host_pool.limit <= host_pool.size
            ):
                self._world.broken("slots add up", f"{host_pool!r}, limit {host_pool.limit}")
        if idle and self._world.found is None:
            self._look_closely()
        if self._world.found is not None:
            raise self._world.found

    def _follow(self, before: Topology, after: Topology) -> None:
        self._topology = after
        self._chronicle.compare(after)
        self._look_at_masters(before, after)
        for old, new in zip(before, after, strict=True):
            if old.role is not new.role:
                self._world.note("{} is {} (was {})", new.address, new.role.value, old.role.value)
            if old.pool is not None and old.pool is not new.pool:
                self._retire(old, new)

    def _look_at_masters(self, before: Topology, after: Topology) -> None:
        """One system has one history, and a master is named when the others had time to answer."""
        if not self._world.plan.fencing:
            return
        named = [host.address for host in after.masters if host.system is not None]
        if len(named) > 1:
            self._world.broken("one master", f"{after}")
        unheard = [host for host in after if not host.serial]
        if named and unheard and self._world.loop.time() < self._world.plan.refresh_timeout - HAIR:
            self._world.broken("the first master is named when all have answered", f"{after}")
        old, new = before.master, after.master
        if old is None or new in (None, old):
            return
        if old in self._world.oracle.rivals(str(new)):
            self._world.broken("the one that was master stays it", f"{old} and {new}: {after}")

    def _retire(self, old: HostState, new: HostState) -> None:
        assert isinstance(old.pool, FakePool)
        account = self._world.adapter.accounts.get(old.pool)
        if account is not None and account.ends is None:
            now = self._world.loop.time()
            answered_at = now if new.answered_at is None else new.answered_at
            account.ends = max(now, answered_at + self._world.plan.abandon_timeout)

    def _look_closely(self) -> None:
        """Nothing is ready: whatever was handed over has arrived."""
        now = self._world.loop.time()
        self._look_at_pools(now)
        self._look_at_operations()
        self._look_at_holders()
        if not self._world.closed:
            self._look_at_hosts()
        if self._world.oracle.turn % 8 == 0:
            self._look_at_tasks()

    def _look_at_pools(self, now: float) -> None:
        host_pools = {id(host_pool.pool): host_pool for host_pool in self._host_pools}
        for account in list(self._world.adapter.accounts.values()):
            pool = account.pool
            if pool.is_closed and not account.in_use:
                del self._world.adapter.accounts[pool]
                continue
            host_pool = host_pools.get(id(pool))
            if host_pool is not None:
                if host_pool.in_use != account.in_use:
                    detail = f"{host_pool!r}, and the driver has {account.in_use} of them"
                    self._world.broken("slots add up", detail)
            elif self._world.closed or pool.is_closed:
                pass
            elif account.ends is None:
                age = now - self._world.loop.stalled - account.began
                if age > 2 * self._world.plan.refresh_timeout + self._world.plan.cancel_delay:
                    self._world.broken("no pool is forgotten", f"{pool!r} never came into service")
            elif now > account.ends + HAIR:
                self._world.broken("a retired pool ends in time", f"{pool!r}")
            if len(pool.out) + len(pool.idle) + len(pool.returning) > pool.max_size:
                self._world.broken("connections add up", f"{pool!r}")

    def _look_at_operations(self) -> None:
        for operation in self._world.present.values():
            if operation.stage == Stage.ACQUIRE:
                self._look_at_acquire(operation)
            elif operation.stage == Stage.RELEASE:
                # Its commit, then its reset, each with a quarter more; and each starts anew where
                # our loop has stood still.
                bound = 2 * 1.25 * self._world.plan.refresh_timeout
                bound *= 2 if self._world.loop.stalled > operation.stalled else 1
                if operation.lasts() > bound + HAIR:
                    self._world.broken("giving back is bounded", f"{operation}")
            elif operation.stage == Stage.OTHER and operation.timeout is not None:
                if operation.lasts() > operation.timeout + HAIR:
                    self._world.broken("no wait outlives its deadline", f"{operation}")
                if self._world.closed:
                    self._world.broken("nobody is left behind at the end", f"{operation}")
                if operation.goal():
                    self._world.broken("who waits for hosts hears of them", f"{operation}")

    def _look_at_acquire(self, operation: Operation) -> None:
        if operation.lasts() > operation.allowed + HAIR:
            self._world.broken("no acquire outlives its deadline", f"{operation}")
        if operation.cancelled:
            if operation.connecting is None:
                self._world.broken("a cancellation comes out", f"{operation} goes on waiting")
            return
        if self._world.closed:
            self._world.broken("nobody is left behind at the end", f"{operation}")
            return
        able = self.able(operation)
        pools = [host_pool.pool for host_pool in able]
        if operation.connecting is None:
            if free := [host_pool for host_pool in able if host_pool.in_use < host_pool.limit]:
                self._world.broken("no slot is free while somebody waits", f"{operation}: {free}")
        elif self._world.plan.cancel_delay == 0 and operation.connecting not in pools:
            address = operation.connecting.address
            self._world.broken(
                "nobody connects to a host that is lost", f"{operation} to {address}"
            )

    def able(self, operation: Operation) -> list[Any]:
        """The host pools that could serve it: the rules of the design, once more."""
        topology = self._world.manager.topology
        if isinstance(operation, Reader) and operation.read_only:
            # Whether a host is proven to be fresh enough is judged where it is handed out.
            return [] if operation.connecting is None else list(self._host_pools)
        if operation.kind in POOL_KINDS:
            hosts = [h for h in topology if h.serving and h.pool is operation.pool]
        elif not operation.read_only:
            hosts = list(topology.masters)
        else:
            hosts, masters = list(topology.replicas), list(topology.masters)
            connects = operation.connecting is not None
            # It may have gone to a master before there was a replica, or because of the dice.
            maybe = connects and (operation.falls_back or operation.masters_too is None)
            if operation.masters_too or maybe or (not hosts and operation.falls_back):
                hosts += masters
        pools = [host.pool for host in hosts]
        host_pools = [s for s in self._host_pools if s.pool in pools]
        if operation.connecting is not None:
            return host_pools
        able = [host_pool for host_pool in host_pools if not host_pool.suspended]
        topology = self._world.manager.topology
        prompt = [host_pool for host_pool in able if not topology[host_pool.address].overdue]
        # The dice may have said that a prompt master is to be preferred to an overdue replica.
        return prompt if operation.masters_too is None else prompt or able

    def _look_at_holders(self) -> None:
        now = self._world.loop.time()
        for connection, operation in self._world.holders.items():
            if connection.is_closed:
                continue
            host = self._world.manager.topology[connection.address]
            if host.role is Role.SUPERSEDED:
                self._world.broken("superseded masters are left", f"{operation} on {host}")
            for account in self._world.adapter.accounts.values():
                over = account.ends is not None and now > account.ends + HAIR
                if over and connection in account.out:
                    self._world.broken("what hangs is terminated", f"{operation} on {host}")
            if self._world.ended:
                self._world.broken("nothing is out after the end", f"{operation} on {host}")

    def _look_at_hosts(self) -> None:
        known = self._topology, self._world.oracle.version
        if known != self._looked_at:
            self._looked_at = known
            for host in self._topology:
                if not self._world.oracle.is_asked(host.address):
                    self._look_at_role(host)
        for address, server in self._world.network.servers.items():
            if self._world.trouble.is_settled(server):
                self._look_at_settled(self._topology[address], server)

    def _is_superseded(self, address: str) -> bool:
        return self._world.plan.fencing and self._world.oracle.superseded_by(address) is not None

    def _look_at_role(self, host: HostState) -> None:
        said, superseded = self._world.oracle.last(host.address), self._is_superseded(host.address)
        foreign = self._world.plan.fencing and self._world.oracle.is_foreign(host.address)
        serves = said is not None and not superseded and not foreign
        right = {
            Role.MASTER: serves and said is not None and said.writable,
            Role.REPLICA: serves and said is not None and not said.writable,
            Role.SUPERSEDED: superseded,
            Role.RIVAL: bool(self._world.oracle.rivals(host.address)),
            Role.FOREIGN: said is not None and said.system != str(self._topology.system),
        }
        if not right.get(host.role, True):
            self._world.broken("roles are those last answered", f"{host}: {said}")
        if host.role not in (Role.MASTER, Role.REPLICA) and host.serving:
            self._world.broken("who is lost does not serve", f"{host}")

    def _look_at_settled(self, host: HostState, server: FakeServer) -> None:
        truth = Role.REPLICA if server.transaction_read_only else Role.MASTER
        if host.role is truth:
            return
        if self._is_superseded(host.address):
            truth = Role.SUPERSEDED
        elif host.role is Role.RIVAL and self._world.oracle.rivals(host.address):
            truth = Role.RIVAL
        elif host.role is Role.FOREIGN and self._topology.system != host.system:
            truth = Role.FOREIGN
        if host.role is not truth:
            self._world.broken("who is well is known", f"{server!r}, and {host}")

    def _look_at_tasks(self) -> None:
        # Each host: its monitor, checks that the driver is slow to give up, their remains. Each
        # slot: its way back, or its end.
        hosts, plan = self._world.plan.hosts, self._world.plan
        checks = 6 + 2 * math.ceil(plan.cancel_delay / plan.refresh_timeout)
        pools = len(self._world.adapter.accounts) + hosts
        most = hosts * checks + 2 * pools * (plan.size + 1)
        mine = len(self._world.present) + len(self._world.users) + 3
        if (count := len(asyncio.all_tasks(self._world.loop))) > most + mine:
            self._world.broken("tasks are bounded", f"{count}, of which {mine} are the users'")
