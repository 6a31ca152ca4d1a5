"""What goes wrong with the hosts, and how it is put right again."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Protocol

from pyscopg2.testing.fake import FakeNetwork, FakeQuirks
from pyscopg2.testing.fake_server import FULL, STARTING, WRONG_PASSWORD, FakeServer

from .driver import SimulationLoop
from .history import History
from .plan import Plan


class Scene(Protocol):
    """What trouble needs of the world."""

    loop: SimulationLoop
    plan: Plan
    network: FakeNetwork
    quirks: FakeQuirks
    history: History

    def note(self, text: str, *arguments: object) -> None: ...


HOPELESS = 12.5
"""Seconds that a host with a wrong password may be left alone, jitter included."""

FOREIGN = 5
"""The identifier of another system."""

STALL_GAP = 6.0
"""Seconds between two stalls of our own loop."""


class Trouble:
    """Breaks hosts at random, and knows which of them are well, and since when."""

    def __init__(self, scene: Scene, roll: Random) -> None:
        self._scene = scene
        self._roll = roll
        self._network = scene.network
        self._well_from = dict.fromkeys(scene.network.servers.values(), scene.plan.recovery)
        """When a host has recovered, if nothing happens until then."""
        self._system = next(iter(scene.network.servers.values())).system_identifier
        self._stalled = -STALL_GAP
        self._timers: list[asyncio.TimerHandle] = []
        self.over = False
        self.silent = False
        """Some flow has died without a sign: who looks at its connection sees nothing."""

    def is_settled(self, server: FakeServer) -> bool:
        """Whether it has been well for so long that the manager must know it."""
        now = self._scene.loop.time() - self._scene.loop.stalled
        return self._is_well(server) and now > self._well_from[server]

    def _is_well(self, server: FakeServer) -> bool:
        return (
            server.is_up
            and server.latency == self._scene.plan.latency
            and server.refuse_connects is None
            and not server.silent_to_connects
        )

    def _touch(self, *servers: FakeServer, longer: float = 0.0) -> None:
        plan, loop = self._scene.plan, self._scene.loop
        for server in servers:
            until = loop.time() - loop.stalled + plan.recovery + longer
            self._well_from[server] = max(self._well_from[server], until)

    def _touch_all(self) -> None:
        self._touch(*self._network.servers.values())

    async def run(self) -> None:
        """Fault after fault, until the time of trouble is over."""
        loop, plan, roll = self._scene.loop, self._scene.plan, self._roll
        until = loop.time() + plan.trouble
        if roll.random() < 0.2:
            # Before anybody has answered.
            self.freeze(roll.choice(list(self._network.servers.values())))
        while (pause := roll.expovariate(1 / plan.fault_gap)) < until - loop.time():
            await asyncio.sleep(pause)
            fault = roll.choice(FAULTS)
            server = roll.choice(list(self._network.servers.values()))
            fault(self, server)
            self._scene.history.follow()
        await asyncio.sleep(max(0.0, until - loop.time()))
        self.heal()

    def heal(self) -> None:
        """Everything is up, one master, the others follow it."""
        network = self._network
        self.over = True
        for timer in self._timers:
            timer.cancel()
        self._scene.quirks.release_hangs = False
        for server in network.servers.values():
            self._repair(server)
            self._give_port_back(server)
        if not network.masters:
            network.failover()
        master = network.master
        for server in network.masters:
            if server is not master:
                server.demote(follows=master)
        for server in network.replicas:
            server.timeline = master.timeline
        self._scene.history.calm()
        self._scene.history.follow()
        self._touch_all()
        self._note("healed: {} is master, timeline {}", master.name, master.timeline)

    def _repair(self, server: FakeServer) -> None:
        longer = HOPELESS if server.refuse_connects == WRONG_PASSWORD else 0.0
        server.refuse_connects = None
        server.latency = self._scene.plan.latency
        server.read_only = False
        server.up()
        self._touch(server, longer=longer)

    def _later(self, undo: Callable[[FakeServer], None], server: FakeServer) -> None:
        """Put it right after a while, unless all is put right before."""

        def fire() -> None:
            undo(server)
            self._touch(server)
            self._scene.history.follow()

        after = self._roll.choice((0.02, 0.3, 1.0, 2.5))
        self._timers.append(self._scene.loop.call_later(after, fire))

    def _note(self, text: str, *arguments: object) -> None:
        self._scene.note("TROUBLE " + text, *arguments)

    # Faults

    def kill(self, server: FakeServer) -> None:
        self._note("{} is killed", server.name)
        server.down()
        self._touch(server)
        self._later(self._repair_one, server)

    def freeze(self, server: FakeServer) -> None:
        if server.is_up:
            self._note("{} freezes", server.name)
            server.freeze()
            self._touch(server)
            self._later(self._thaw, server)

    def slow(self, server: FakeServer) -> None:
        server.latency = self._roll.choice((0.02, 0.1, 0.6, 2.0))
        self._note("{} is slow: {}", server.name, server.latency)
        self._touch(server)
        self._later(self._hasten, server)

    def cut_flows(self, server: FakeServer) -> None:
        self._note("flows to {} die without a sign", server.name)
        self._cut_flows(server)
        self._touch(server)

    def partition(self, server: FakeServer) -> None:
        self._note("{} is cut off", server.name)
        self._cut_flows(server)
        server.silent_to_connects = True
        self._touch(server)
        self._later(self._join, server)

    def drop_connects(self, server: FakeServer) -> None:
        self._note("{} is silent to connects", server.name)
        server.silent_to_connects = True
        self._touch(server)
        self._later(self._join, server)

    def refuse(self, server: FakeServer) -> None:
        code = self._roll.choice((FULL,) * 8 + (STARTING, STARTING, WRONG_PASSWORD))
        self._note("{} refuses connects: {}", server.name, code)
        server.refuse_connects = code
        self._touch(server, longer=HOPELESS if code == WRONG_PASSWORD else 0.0)
        self._later(self._accept, server)

    def reset(self, server: FakeServer) -> None:
        self._note("connections to {} are reset", server.name)
        server.break_connections()
        self._touch(server)

    def restart(self, server: FakeServer) -> None:
        self._note("{} restarts in place", server.name)
        server.restart()
        self._touch(server)

    def set_read_only(self, server: FakeServer) -> None:
        self._note("{} is set read-only", server.name)
        server.read_only = True
        self._touch(server)
        self._later(self._set_writable, server)

    def promote(self, _: FakeServer) -> None:
        """A failover: the master goes down, and comes back as a replica."""
        old = self._network.masters
        if any(server.is_up for server in self._network.replicas):
            new = self._network.failover()
            self._note("{} is promoted, timeline {}", new.name, new.timeline)
            self._touch_all()
            for server in old:
                self._later(self._rejoin, server)

    def switch_over(self, _: FakeServer) -> None:
        """Clean: the master is demoted at the same moment."""
        masters = self._network.masters
        if any(server.is_up for server in self._network.replicas):
            new = self._network.failover(old_stays=True)
            for server in masters:
                server.demote(follows=new)
            self._note("switch-over to {}, timeline {}", new.name, new.timeline)
            self._touch_all()

    def split(self, _: FakeServer) -> None:
        """A promotion while the old master lives on, until it is rebuilt."""
        old = self._network.masters
        if any(server.is_up for server in self._network.replicas):
            new = self._network.failover(old_stays=True)
            self._note("split brain: {} is promoted, timeline {}", new.name, new.timeline)
            self._touch_all()
            for server in old:
                self._later(self._rejoin, server)

    def promote_by_accident(self, server: FakeServer) -> None:
        """And rebuilt from the true master after a while."""
        if server.in_recovery and server.is_up and self._network.masters:
            server.promote()
            self._note("{} is promoted by accident, timeline {}", server.name, server.timeline)
            self._touch_all()
            self._later(self._rebuild, server)

    def clone(self, server: FakeServer) -> None:
        """A replica is opened for writes as it is, without a timeline of its own."""
        if server.in_recovery and server.is_up and self._network.masters:
            server.in_recovery = False
            self._note("{} is a second primary, timeline {}", server.name, server.timeline)
            self._touch_all()
            self._later(self._rebuild, server)

    def take_port(self, server: FakeServer) -> None:
        """Another cluster's server answers at this address."""
        if server.system_identifier != FOREIGN:
            server.system_identifier = FOREIGN
            server.in_recovery = self._roll.random() < 0.3
            server.timeline += 7
            server.restart()
            self._note("{} is of another system now", server.name)
            self._touch_all()
            self._later(self._give_port_back, server)

    def demote(self, server: FakeServer) -> None:
        if not server.in_recovery:
            self._note("{} is demoted", server.name)
            server.demote()
            self._touch_all()

    def hang_releases(self, server: FakeServer) -> None:
        self._note("releases hang")
        self._scene.quirks.release_hangs = True
        self._later(self._end_hanging, server)

    def stall(self, _: FakeServer) -> None:
        loop = self._scene.loop
        if loop.time() - self._stalled >= STALL_GAP:
            seconds = self._roll.choice((0.2, 0.7, 3.0))
            self._note("our own loop stands still: {} s", seconds)
            loop.stall(seconds)
            self._stalled = loop.time()

    def _cut_flows(self, server: FakeServer) -> None:
        """Those that are open: a connect is sent again by TCP until it is answered."""
        for flow in server.flows:
            if flow.is_established:
                flow.is_cut = True
                self.silent = True

    # And back

    def _repair_one(self, server: FakeServer) -> None:
        if not server.is_up:
            self._note("{} is up", server.name)
            server.up()

    def _thaw(self, server: FakeServer) -> None:
        self._note("{} thaws", server.name)
        server.thaw()

    def _hasten(self, server: FakeServer) -> None:
        self._note("{} is fast again", server.name)
        server.latency = self._scene.plan.latency

    def _join(self, server: FakeServer) -> None:
        self._note("{} answers connects", server.name)
        if server.is_up:
            server.up()
        server.silent_to_connects = False

    def _accept(self, server: FakeServer) -> None:
        self._note("{} accepts connects", server.name)
        if server.refuse_connects == WRONG_PASSWORD:
            self._touch(server, longer=HOPELESS)
        server.refuse_connects = None

    def _set_writable(self, server: FakeServer) -> None:
        self._note("{} is writable", server.name)
        server.read_only = False
        self._touch_all()

    def _end_hanging(self, _: FakeServer) -> None:
        self._scene.quirks.release_hangs = False

    def _give_port_back(self, server: FakeServer) -> None:
        """A replica of the cluster that is left, or its only primary, answers there."""
        if server.system_identifier == FOREIGN:
            server.system_identifier = self._system
            server.timeline = 1
            others = [m for m in self._network.masters if m.system_identifier == self._system]
            if others and others != [server]:
                master = max((m for m in others if m is not server), key=_timeline)
                server.demote(follows=master)
            else:
                server.demote()
            server.up()
            self._note("{} is of our system again", server.name)
            self._touch_all()

    def _rejoin(self, server: FakeServer) -> None:
        """An old master becomes a replica of the newest one."""
        master = next((m for m in self._network.masters if m is not server), None)
        if not server.in_recovery and master is not None:
            master = max((m for m in self._network.masters if m is not server), key=_timeline)
            self._note("{} rejoins behind {}", server.name, master.name)
            server.demote(follows=master)
            server.up()
            self._touch_all()

    def _rebuild(self, server: FakeServer) -> None:
        """A replica promoted by accident follows the true master again."""
        others = [master for master in self._network.masters if master is not server]
        if not server.in_recovery and others:
            master = max(others, key=_timeline)
            self._note("{} is rebuilt behind {}", server.name, master.name)
            server.demote(follows=master)
            self._touch_all()


def _timeline(server: FakeServer) -> int:
    return server.timeline


FAULTS: tuple[Callable[[Trouble, FakeServer], None], ...] = (
    Trouble.kill,
    Trouble.freeze,
    Trouble.freeze,
    Trouble.slow,
    Trouble.cut_flows,
    Trouble.partition,
    Trouble.drop_connects,
    Trouble.refuse,
    Trouble.refuse,
    Trouble.refuse,
    Trouble.reset,
    Trouble.restart,
    Trouble.set_read_only,
    Trouble.promote,
    Trouble.promote,
    Trouble.switch_over,
    Trouble.split,
    Trouble.promote_by_accident,
    Trouble.clone,
    Trouble.take_port,
    Trouble.demote,
    Trouble.hang_releases,
    Trouble.stall,
)
