"""The places for users on all hosts, and the line of those who wait for one.

Here is counted, and nowhere else: everything happens in the event loop's thread, and no await
stands between a decision and the count that follows from it. So no place is free while somebody
who could have it waits, and none is given out twice.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, cast

from pyscopg2.core.adapter import PoolT
from pyscopg2.core.line import Line
from pyscopg2.core.queue import Queue, Waiter
from pyscopg2.core.selection import Request, eligible
from pyscopg2.core.spell import Spell
from pyscopg2.core.topology import Change, HostState, Topology

PATIENCE = 0.05
"""Seconds to wait for a place before a host that gave nothing back meanwhile is suspected."""

RETRY_GAP = 0.2
"""Seconds from a connect that failed to the next try there: each costs the server a fork."""

FORGOTTEN = 1.0
"""Seconds from the last failed or tentative connect to full trust, where the host answers."""

Choose = Callable[[list[Any]], Any]
"""`BalancerPolicy.choose`."""


class Places(Generic[PoolT]):
    """Gives out places by the rules of `selection` and the policy's choice."""

    def __init__(
        self,
        topology: Topology,
        choose: Choose,
        maxsize: Callable[[PoolT], int | None],
        *,
        suspect: Callable[[str], None],
        demand: Callable[[], None],
        emptied: Callable[[Spell[PoolT]], None],
    ) -> None:
        """``suspect`` is told the address of a host that may have changed, ``demand`` that
        somebody waits for a role that nobody has, ``emptied`` of a retired spell whose last place
        came back."""
        self._topology = topology
        self._choose = choose
        self._maxsize = maxsize
        self._suspect = suspect
        self._demand = demand
        self._emptied = emptied
        self._spells: dict[str, Spell[PoolT]] = {}
        self._queues: dict[Request, Queue[PoolT]] = {}
        self._masters = self.queue(Request())
        self.line = Line(self.candidates, self._see_to)
        """For those who `take` nothing: what it gives who joins becomes the spell on which a place
        is counted for them already; None when the time is up."""
        self._look: asyncio.TimerHandle | None = None

    @property
    def starving(self) -> bool:
        """Whether somebody waits for a role that nobody has."""
        return any(not self.candidates(queue) for queue in self.line.queues)

    @property
    def doubtful(self) -> bool:
        """Whether a master is overdue with its answer, so that there may be a new one already."""
        return any(spell.overdue for spell in self.candidates(self._masters))

    @property
    def spells(self) -> list[Spell[PoolT]]:
        """Those not retired, in the order of the DSN."""
        present = (self._spells.get(host.address) for host in self._topology)
        return [spell for spell in present if spell is not None]

    def spell_of(self, pool: PoolT) -> Spell[PoolT] | None:
        """The present spell with this driver pool; None where there is none any more."""
        return next((s for s in self._spells.values() if s.pool is pool), None)

    def queue(self, request: Request) -> Queue[PoolT]:
        """Of all who ask for this."""
        queue = self._queues.get(request)
        if queue is None:
            queue = self._queues[request] = Queue(request)
        return queue

    def candidates(self, queue: Queue[PoolT]) -> list[Spell[PoolT]]:
        """The spells that may serve it now, with a free place or without."""
        spells = queue.candidates
        if spells is None:
            hosts = eligible(self._topology, queue.request)
            present = (self._spells.get(host.address) for host in hosts)
            spells = [spell for spell in present if spell is not None and not spell.suspended]
            spells = [spell for spell in spells if not spell.overdue] or spells
            queue.reconsider(spells)
        return spells

    def _reconsider(self) -> None:
        """Who may serve whom has changed."""
        for queue in self._queues.values():
            queue.reconsider(None)

    def take(self, queue: Queue[PoolT]) -> Spell[PoolT] | None:
        """Choose a host and count a place on it, in one step; None where no place is free.

        `ValueError`: the one pool that is asked for has been retired.
        """
        spell = queue.sole
        if spell is not None:
            if spell.in_use >= spell.limit:
                return None
            spell.in_use += 1
            return spell
        candidates = queue.candidates
        if candidates is None:
            candidates = self.candidates(queue)
        free = [spell for spell in candidates if spell.in_use < spell.limit]
        if len(free) > 1:
            spell = self._choose(free)
            if spell not in free:
                raise TypeError(f"the balancer policy returned {spell!r}, not a candidate")
        elif free:
            spell = free[0]
        elif queue.retired:
            raise _retired()
        else:
            return None
        spell.in_use += 1
        return spell

    def leave(self, queue: Queue[PoolT], waiter: Waiter) -> None:
        """Stand in `line` no longer, because what it gave was awaited, and raised. A place that was
        handed over in the same turn goes to the next."""
        self.line.leave(queue, waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            spell = waiter.result()
            if spell is not None:
                self.free(spell)

    def free(self, spell: Spell[PoolT]) -> None:
        """Give a place back: from hand to hand where somebody waits for it."""
        line = self.line
        if line.queues and spell.in_use <= spell.limit:
            waiter = line.pop(spell)
            if waiter is not None:
                spell.moving = True
                waiter.set_result(spell)
                return
        spell.in_use -= 1
        if spell.retired and not spell.in_use:
            self._emptied(spell)

    def suspend(self, spell: Spell[PoolT]) -> None:
        """A connect failed, whose place is in use still: for a while no more goes there than what
        is open.

        So many are open as are in use beside it: the driver had none to spare, or it would not
        have connected.
        """
        if not spell.retired:
            spell.limit = max(0, spell.in_use - 1)
            spell.tried_at = asyncio.get_running_loop().time()
            self._reconsider()
            self._suspect(spell.address)
            # Without it, the overdue ones that it came before may be candidates.
            self._serve_all()
            if self.starving:
                self._demand()

    def doubt(self, spell: Spell[PoolT], queue: Queue[PoolT]) -> bool:
        """A connect takes very long, whatever the host's checks say. True where another host has
        a place for who waits for it."""
        self.suspend(spell)
        others = [each for each in self.candidates(queue) if each is not spell]
        return any(each.in_use < each.limit for each in others)

    def mark_overdue(self, address: str) -> None:
        """A host takes far longer than usual to answer its check.

        It may only be busy, so it goes on serving where there is no other. Where there are others,
        those who are just connecting to it go there.
        """
        spell = self._spells.get(address)
        if spell is not None and not spell.overdue:
            spell.overdue = True
            self._reconsider()
            now = asyncio.get_running_loop().time()
            for request in spell.scopes:
                if spell not in self.candidates(self.queue(request)):
                    spell.interrupt(request, now)
            # Where it was the last prompt one, all that are overdue are candidates again.
            self._serve_all()

    def trust(self, spell: Spell[PoolT]) -> None:
        """A connection came out of it, on trial as it is: where all that are open are in use, one
        more may try to connect, now and then."""
        if spell.in_use >= spell.limit and _may_try(spell):
            spell.tried_at = asyncio.get_running_loop().time()
            self._let_try(spell)

    def prove(self, spell: Spell[PoolT]) -> None:
        """A connect succeeded, so that the next may try at once."""
        if spell.limit < spell.size:
            self._let_try(spell)

    def _let_try(self, spell: Spell[PoolT]) -> None:
        """One more than are in use may connect."""
        if spell.retired:
            return
        was_suspended = spell.suspended
        spell.limit = max(spell.limit, min(spell.size, spell.in_use + 1))
        if was_suspended:
            self._reconsider()
            self._serve_all()
        else:
            self._serve(spell)

    def follow(self, after: Topology, changes: Sequence[Change]) -> list[Spell[PoolT]]:
        """Begin and retire spells, and serve the line anew; returns the spells retired now."""
        self._topology = after
        retired: list[Spell[PoolT]] = []
        changed = False
        for old, new in changes:
            changed |= old.role is not new.role
            if old.pool is not new.pool:
                changed = True
                retired += self._turn_over(new)
            spell = self._spells.get(new.address)
            if spell is not None:
                changed |= self._refresh(spell, old, new)
        if changed:
            self._reconsider()
            self._serve_all()
            if self.starving:
                self._demand()
        return retired

    def close(self, error: Exception) -> list[Spell[PoolT]]:
        """Send everybody in line away with ``error``, and retire all spells, which it returns."""
        if self._look is not None:
            self._look.cancel()
        self.line.dissolve(error)
        retired = list(self._spells.values())
        self._spells.clear()
        self._reconsider()
        for spell in retired:
            spell.retire(asyncio.get_running_loop().time())
        return retired

    def _turn_over(self, host: HostState) -> Iterable[Spell[PoolT]]:
        """The host has another pool than before, or none."""
        spell = self._spells.pop(host.address, None)
        if host.pool is not None:
            pool = cast(PoolT, host.pool)
            self._spells[host.address] = Spell(host.address, pool, self._maxsize(pool))
        if spell is None:
            return ()
        spell.retire(asyncio.get_running_loop().time())
        queue = self._queues.pop(Request(pool_id=id(spell.pool)), None)
        if queue is not None:
            queue.retired = True
            queue.reconsider([])
            self.line.turn_away(queue, _retired())
        return (spell,)

    def _refresh(self, spell: Spell[PoolT], old: HostState, new: HostState) -> bool:
        """Bring a spell up to date; True where it can be chosen again."""
        spell.response_time = new.response_time
        if new.round_trip is not None and new.answering and new.serial != old.serial:
            spell.observe(new.round_trip, asyncio.get_running_loop().time())
        relieved = spell.overdue
        spell.overdue = False
        if old.role is not new.role:
            # Whoever is still connecting asked for the role that the host had.
            spell.interrupt_all(asyncio.get_running_loop().time())
        if spell.limit >= spell.size or not new.answering or new.serial == old.serial:
            return relieved
        if not _may_try(spell):
            if spell.suspended:
                when = spell.tried_at + RETRY_GAP
                asyncio.get_running_loop().call_at(when, self._suspect, spell.address)
            return relieved
        if _may_try(spell, FORGOTTEN):
            spell.limit = spell.size
        elif spell.limit <= spell.in_use:
            # On trial: the check went over a connection that was open, so that a connect may fail
            # still. One may try before all who wait do.
            spell.limit = min(spell.size, spell.in_use + 1)
            spell.tried_at = asyncio.get_running_loop().time()
        return True

    def _serve(self, spell: Spell[PoolT]) -> None:
        """Hand the free places of one spell to those who came first among the eligible."""
        while spell.in_use < spell.limit:
            waiter = self.line.pop(spell)
            if waiter is None:
                return
            spell.in_use += 1
            waiter.set_result(spell)

    def _serve_all(self) -> None:
        """Hand out all free places, distributed as the policy says."""
        while any(self._try_to_serve(queue, head) for queue, head in self.line.heads()):
            pass

    def _try_to_serve(self, queue: Queue[PoolT], waiter: Waiter) -> bool:
        try:
            spell = self.take(queue)
        except Exception as exc:
            # The policy's fault: told to the one for whom it was asked.
            self.line.fail(queue, waiter, exc)
            return True
        if spell is not None:
            self.line.serve(queue, waiter, spell)
        return spell is not None

    def _see_to(self, queue: Queue[PoolT]) -> None:
        """The first who waits there has come."""
        if not self.candidates(queue):
            self._demand()
        if self._look is None:
            self._look_later()

    def _look_later(self) -> None:
        for spell in self._spells.values():
            spell.moving = False
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(PATIENCE, self._look_for_stuck_hosts)

    def _look_for_stuck_hosts(self) -> None:
        """Suspect the hosts that somebody waits for and that gave nothing back meanwhile."""
        self._look = None
        if not self.line.queues:
            return
        for queue in self.line.queues:
            for spell in self.candidates(queue):
                if not spell.moving:
                    self._suspect(spell.address)
        self._look_later()


def _may_try(spell: Spell[Any], gap: float = RETRY_GAP) -> bool:
    """Whether the last try to connect is so long ago that another one is due."""
    return asyncio.get_running_loop().time() - spell.tried_at >= gap


def _retired() -> ValueError:
    return ValueError("the pool was retired meanwhile")
