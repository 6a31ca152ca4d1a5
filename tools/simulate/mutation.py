"""Bugs that are put back into the core, to see that a simulation finds them."""

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Generator
from types import FunctionType
from typing import Any, NamedTuple, cast


class Mutation(NamedTuple):
    """One bug: which piece of which function's source becomes what."""

    name: str
    where: str
    """``module:Class.function`` or ``module:function``."""
    before: str
    after: str
    hint: int = 0
    """A seed that found it once: a place to begin the search."""

    @contextlib.contextmanager
    def applied(self) -> Generator[None]:
        """`LookupError`: the function does not hold that piece of source, exactly once."""
        function = self._find()
        right = function.__code__
        # Its code, not its name: others have imported the function itself.
        function.__code__ = self._wrong(function).__code__
        try:
            yield
        finally:
            function.__code__ = right

    def _find(self) -> FunctionType:
        module, _, path = self.where.partition(":")
        owner: Any = importlib.import_module(module)
        *classes, name = path.split(".")
        for each in classes:
            owner = getattr(owner, each)
        return _function(inspect.getattr_static(owner, name))

    def _wrong(self, right: FunctionType) -> FunctionType:
        source = textwrap.dedent(inspect.getsource(right))
        if source.count(self.before) != 1:
            raise LookupError(f"{self.where} holds not once, as {self.name} needs: {self.before}")
        # Within a class, as methods are: ``super()`` needs one.
        body = textwrap.indent(source.replace(self.before, self.after), "    ")
        made: dict[str, Any] = {}
        code = compile(f"class Wrong:\n{body}", f"<{self.name}>", "exec")
        exec(code, right.__globals__, made)
        return _function(inspect.getattr_static(made["Wrong"], right.__name__))


def _function(found: object) -> FunctionType:
    """A function, a method's, or that of a property."""
    return cast(FunctionType, found.fget if isinstance(found, property) else found)


CAUSAL = "pyscopg2.core.checkout.causal_acquire:CausalAcquire"
CLOCK = "pyscopg2.core.topology.lsn_clock:LsnClock"
BOUNDS = "pyscopg2.core.monitoring.bounds:Bounds"
ACQUIRE = "pyscopg2.core.checkout.acquire:Acquire"
CHECKOUTS = "pyscopg2.core.checkout.checkouts:Checkouts"
HELD = "pyscopg2.core.monitoring.held_connection:HeldConnection"
HOST_POOL = "pyscopg2.core.checkout.host_pool:HostPool"
RETIREMENT = "pyscopg2.core.checkout.retirement:Retirement"
SCHEDULE = "pyscopg2.core.monitoring.schedule:Schedule"
SLOTS = "pyscopg2.core.checkout.slots:Slots"
STORE = "pyscopg2.core.topology.store:Store"
TOPOLOGY = "pyscopg2.core.topology.snapshot:Topology"
JUDGEMENT = "pyscopg2.core.topology.judgement"
WAIT_QUEUES = "pyscopg2.core.checkout.wait_queues:WaitQueues"

MUTATIONS = (
    Mutation(
        "the monitor swallows a cancellation",
        f"{SCHEDULE}.pause",
        "finally:\n",
        "except asyncio.CancelledError:\n            pass\n        finally:\n",
    ),
    Mutation(
        "a waiter swallows a cancellation",
        f"{ACQUIRE}._take",
        "slots.leave(queue, waiter)\n                raise\n",
        "slots.leave(queue, waiter)\n                host_pool = None\n",
        hint=2,
    ),
    Mutation(
        "a wake-up is lost when a slot comes back",
        f"{SLOTS}.free",
        "wait_queues.pop(host_pool)",
        "None",
    ),
    Mutation(
        "a wake-up is lost when a role changes",
        f"{SLOTS}.follow",
        "self._serve_all()",
        "pass",
    ),
    Mutation(
        "which hosts may serve is found out once and for all",
        f"{SLOTS}.follow",
        "self._reconsider()",
        "pass",
    ),
    Mutation(
        "a slot handed to a waiter that is cancelled is lost",
        f"{SLOTS}.leave",
        "self.free(host_pool)",
        "pass",
        hint=2,
    ),
    Mutation(
        "a slot is handed to a waiter that is cancelled already",
        f"{WAIT_QUEUES}.pop",
        "if not waiter.done():",
        "if True:",
        hint=38,
    ),
    Mutation(
        "a slot leaks when an acquire is aborted",
        f"{ACQUIRE}._take",
        "except Interrupted:\n            slots.free(host_pool)",
        "except Interrupted:\n            pass",
        hint=18,
    ),
    Mutation(
        "fencing is off",
        f"{JUDGEMENT}:_judged",
        "claim < newest[0]",
        "False",
        hint=10,
    ),
    Mutation(
        "what a standby knows of timelines does not count",
        f"{JUDGEMENT}:_newest_timeline",
        "host.system == system",
        "host.system == system and not host.answer.in_recovery",
    ),
    Mutation(
        "two primaries on one timeline are two masters",
        f"{JUDGEMENT}:_judged",
        "host.address != reigning.address",
        "False",
        hint=33,
    ),
    Mutation(
        "the master of two rivals is whoever has written more",
        f"{JUDGEMENT}:_find_reigning",
        "host.address == master",
        "False",
        hint=231,
    ),
    Mutation(
        "a host of another system serves",
        f"{JUDGEMENT}:_judged",
        "host.system != system",
        "False",
        hint=5,
    ),
    Mutation(
        "the system that counts is the first that is seen",
        f"{JUDGEMENT}:_system_that_counts",
        "if not votes:",
        "if before is not None or not votes:",
        hint=90,
    ),
    Mutation(
        "the first master is named before the others have answered",
        f"{TOPOLOGY}.apply",
        "all(host.serial",
        "any(host.serial",
        hint=3,
    ),
    Mutation(
        "a superseded master keeps its connections",
        f"{CHECKOUTS}._follow",
        "new.role is Role.SUPERSEDED",
        "False",
        hint=10,
    ),
    Mutation(
        "an old answer is believed for ever",
        "pyscopg2.core.topology.snapshot:observe",
        "answer=seen.answer",
        "answer=host.answer or seen.answer",
    ),
    Mutation(
        "a waiter is left behind when its time is up",
        f"{WAIT_QUEUES}._send_late_away",
        "waiter.set_result(None)",
        "pass",
    ),
    Mutation(
        "a waiter is left behind at the end",
        f"{SLOTS}.close",
        "self.wait_queues.dissolve(error)",
        "pass",
    ),
    Mutation(
        "a waiter for hosts is left behind at the end",
        f"{STORE}.close",
        "future.set_exception(error())",
        "pass",
        hint=115,
    ),
    Mutation(
        "a waiter for hosts misses their change",
        f"{STORE}._change",
        "_resolve(future, predicate, after)",
        "pass",
        hint=10,
    ),
    Mutation(
        "a terminated connection is released twice",
        f"{CHECKOUTS}.release",
        "if checkout.stage is ENDED:",
        "if False:",
        hint=4,
    ),
    Mutation(
        "a slot that came back early comes back again",
        f"{CHECKOUTS}.release",
        "if checkout.stage is RETURNING:",
        "if True:",
        hint=4,
    ),
    Mutation(
        "the deadline of a connect is not armed",
        f"{ACQUIRE}._connect",
        "asyncio.timeout_at(when)",
        "asyncio.timeout_at(None)",
        hint=25,
    ),
    Mutation(
        "a reserved connection is used again after a failed check",
        f"{HELD}.drop",
        "reserved, self._reserved = self._reserved, None",
        "reserved = None",
        hint=1,
    ),
    Mutation(
        "a change of role does not interrupt those who connect",
        f"{SLOTS}._refresh",
        "host_pool.interrupt_all(_now())",
        "pass",
        hint=143,
    ),
    Mutation(
        "the end of a host pool does not interrupt those who connect",
        f"{HOST_POOL}.retire",
        "self.interrupt_all(now)",
        "pass",
        hint=25,
    ),
    Mutation(
        "a suspended host never gets its trial",
        f"{SLOTS}._refresh",
        "if host_pool.limit == host_pool.size or",
        "if True or",
        hint=53,
    ),
    Mutation(
        "an overdue host is never relieved",
        "pyscopg2.core.topology.snapshot:observe",
        "host.overdue and seen.serial <= host.serial",
        "host.overdue",
        hint=1,
    ),
    Mutation(
        "a retired pool is never closed",
        f"{SLOTS}.follow",
        "return retired",
        "return []",
    ),
    Mutation(
        "what hangs on a retired pool is left alone",
        f"{RETIREMENT}.retire",
        "loop.call_at(until, ",
        "loop.call_at(until + 1000, ",
        hint=1,
    ),
    Mutation(
        "a burst overshoots the limit",
        f"{SLOTS}.take",
        "each.in_use < each.limit",
        "each.in_use <= each.limit",
    ),
    Mutation(
        "the commit of a terminated connection looks like a success",
        "pyscopg2.testing.fake:FakeConnection.commit",
        "self.is_in_transaction or self._flow.is_closed",
        "self.is_in_transaction",
        hint=14,
    ),
    Mutation(
        "giving back is not bounded",
        f"{CHECKOUTS}.release",
        "checkout.ticks = 0",
        "pass",
        hint=2,
    ),
    Mutation(
        "suspicion hammers the host",
        f"{SCHEDULE}._delay",
        "self._least_gap()",
        "0.01",
    ),
    Mutation(
        "what is not known is fresh",
        "pyscopg2.core.checkout.bound:Bound.is_met",
        "moment < now - self.max_lag",
        "-math.inf < moment < now - self.max_lag",
        hint=1,
    ),
    Mutation(
        "a moment is proven by the flush position alone",
        f"{CLOCK}.proves",
        "samples[flushed].flushed_before",
        "samples[flushed].asked_at",
        hint=38,
    ),
    Mutation(
        "a position is covered by the flush position alone",
        f"{CLOCK}.covers",
        "self.samples[flushed].flushed_before",
        "self.samples[flushed].asked_at",
        hint=19,
    ),
    Mutation(
        "a frozen primary flushes",
        f"{CLOCK}.add",
        "flushed_before - lost",
        "flushed_before",
        hint=715419,
    ),
    Mutation(
        "a replica on another timeline counts",
        "pyscopg2.core.topology.freshness:told",
        "follows != clock.timeline",
        "False",
        hint=161,
    ),
    Mutation(
        "a replica that receives the new timeline has replayed the old one",
        "pyscopg2.core.topology.freshness:Freshness.covers",
        "self.replayed >= min(position.lsn, clock.began_at)",
        "True",
        hint=66,
    ),
    Mutation(
        "nothing is ever committed between two answers",
        "pyscopg2.core.topology.lsn_clock:_same_snapshot",
        "samples[position + 1].snapshot == snapshot",
        "True",
        hint=12,
    ),
    Mutation(
        "one replica's catching up is taken for that of all",
        "pyscopg2.core.checkout.proofs:Proofs.freshness",
        "return self.topology.freshness(address)",
        "return max(\n"
        "        (self.topology.freshness(each.address) for each in self.topology.replicas),\n"
        "        key=lambda each: each.moment,\n"
        "        default=self.topology.freshness(address),\n"
        "    )",
        hint=21,
    ),
    Mutation(
        "the position is asked for before the commit",
        f"{CAUSAL}._end_and_ask",
        "await ending",
        "await self._ask()\n            await ending\n            return",
    ),
    Mutation(
        "what can not be asked for is forgotten",
        f"{CAUSAL}._ask",
        "except BaseException as exc:\n        self._session.move_to(moment)",
        "except BaseException as exc:\n        pass",
        hint=41,
    ),
    Mutation(
        "a release moves no session on",
        f"{CAUSAL}.give_back",
        "await self._ask()",
        "pass",
        hint=1,
    ),
    Mutation(
        "what a lost connection told is believed of the server that is there now",
        f"{SLOTS}.is_fresh",
        "host.is_heard is None or host.is_heard()",
        "True",
        hint=994,
    ),
    Mutation(
        "nobody asks for proofs",
        "pyscopg2.core.monitoring.attention:Attention.prove",
        "self._unproven.add(what)",
        "pass",
        hint=117,
    ),
    Mutation(
        "who waits for a proof is not served by it",
        f"{SLOTS}._follow_proofs",
        "self._serve_all()",
        "pass",
    ),
    Mutation(
        "a check that takes too long is waited for",
        f"{BOUNDS}.attempt",
        "attempt(work, seconds, ",
        "attempt(work, 1000, ",
        hint=2,
    ),
    Mutation(
        "events are told the last first",
        "pyscopg2.core.events.listeners:Listeners.flush",
        "popleft()",
        "pop()",
        hint=859,
    ),
    Mutation(
        "that there is no master is told to nobody",
        "pyscopg2.core.events.changes:Changes.follow",
        "if master != self._master:",
        "if master != self._master and master is not None:",
    ),
    Mutation(
        "that a pool is retired at the end is told to nobody",
        f"{CHECKOUTS}.close",
        "self._listeners.note(",
        "(",
    ),
    Mutation(
        "an outage that goes on is one failed check",
        "pyscopg2.core.events.changes:Changes._checks",
        "failures + 1, began",
        "1, began",
    ),
)
