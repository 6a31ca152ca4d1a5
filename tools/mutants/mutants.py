"""The bugs, and the tests that should find them."""

from typing import NamedTuple

from tools.simulate.mutation import MUTATIONS, Mutation

ATTEMPT = "pyscopg2.core.attempts.attempt:Attempt"
ATTEMPT_BLOCK = "pyscopg2.core.attempts.block"
ATTEMPT_COURSE = "pyscopg2.core.attempts.course:Course"
ATTEMPT_INQUIRY = "pyscopg2.core.attempts.inquiry"
ACQUIRE = "pyscopg2.core.checkout.acquire:Acquire"
ATTENTION = "pyscopg2.core.monitoring.attention:Attention"
BOUND = "pyscopg2.core.checkout.bound:Bound"
BOUNDED_ACQUIRE = "pyscopg2.core.checkout.bounded_acquire:BoundedAcquire"
LATE_BOUND = "pyscopg2.core.checkout.bounded_acquire:LateBoundAcquire"
BOUNDED_QUEUE = "pyscopg2.core.checkout.wait_queue:BoundedQueue"
CAUSAL = "pyscopg2.core.causal"
CAUSAL_ACQUIRE = "pyscopg2.core.checkout.causal_acquire:CausalAcquire"
CHECKOUTS = "pyscopg2.core.checkout.checkouts:Checkouts"
CLOCK = "pyscopg2.core.topology.lsn_clock"
FRESHNESS = "pyscopg2.core.topology.freshness"
HELD = "pyscopg2.core.monitoring.held_connection:HeldConnection"
KEEPER = "pyscopg2.core.monitoring.pool_keeper:PoolKeeper"
HOST_POOL = "pyscopg2.core.checkout.host_pool:HostPool"
LISTENERS = "pyscopg2.core.events.listeners:Listeners"
LIFECYCLE = "pyscopg2.core.lifecycle:Lifecycle"
MONITOR = "pyscopg2.core.monitoring.monitor:Monitor"
PROOFS = "pyscopg2.core.checkout.proofs:Proofs"
RETIREMENT = "pyscopg2.core.checkout.retirement:Retirement"
ROUTE = "pyscopg2.core.monitoring.route"
ROLE_QUERY = "pyscopg2.core.topology.role_query"
SCHEDULE = "pyscopg2.core.monitoring.schedule:Schedule"
SCOUTING = "pyscopg2.core.monitoring.scouting:Scouting"
SELECTION = "pyscopg2.core.checkout.selection"
SLOTS = "pyscopg2.core.checkout.slots:Slots"
STORE = "pyscopg2.core.topology.store:Store"
TERMINATION = "pyscopg2.core.checkout.termination:Termination"
TOPOLOGY = "pyscopg2.core.topology.snapshot:Topology"
JUDGEMENT = "pyscopg2.core.topology.judgement"
TRIAL = "pyscopg2.core.checkout.connect_trial:ConnectTrial"
WAIT_QUEUES = "pyscopg2.core.checkout.wait_queues:WaitQueues"
WATCHDOG = "pyscopg2.core.timing.watchdog:Watchdog"

ALL = ("tests/core", "--ignore-glob=*test_dsn*", "--ignore-glob=*test_resolve*")
"""What is not about reading a DSN."""

SHOWN = tuple(
    f"tests/core/test_{name}.py"
    for name in ("events", "stats", "explanation", "topology", "logging", "check_context")
)
"""What is about how a manager is seen."""

FRESH = tuple(
    f"tests/core/test_{name}.py"
    for name in ("lsn_clock", "freshness", "bounded_reads", "causal", "route")
)
"""What is about reads that are known to be fresh."""


ATTEMPTS = tuple(
    f"tests/core/test_{name}.py"
    for name in ("attempts", "attempt_budget", "lost_commits", "repeatable")
)
"""What is about blocks that are run again."""


class Mutant(NamedTuple):
    """A mutation, and where it is to be found."""

    mutation: Mutation
    tests: tuple[str, ...] = ALL

    @property
    def name(self) -> str:
        return self.mutation.name


def _mutant(name: str, where: str, before: str, after: str) -> Mutant:
    return Mutant(Mutation(name, where, before, after))


def _stale(name: str, where: str, before: str, after: str) -> Mutant:
    """One for which a read may be served by a host that is not fresh enough, or by none."""
    return Mutant(Mutation(name, where, before, after), FRESH)


def _again(name: str, where: str, before: str, after: str) -> Mutant:
    """One for which a block is run again that must not be, or is not, or for too long."""
    return Mutant(Mutation(name, where, before, after), ATTEMPTS)


_SIMULATED_ONLY = {
    # Of the fake driver, which the unit tests do not test.
    "the commit of a terminated connection looks like a success",
}


def _shown(name: str, where: str, before: str, after: str) -> Mutant:
    """One for which something is told wrongly, or to nobody."""
    return Mutant(Mutation(name, where, before, after), SHOWN)


_OWN = (
    # What is shown
    _shown(
        "a listener hears within a step",
        f"{LISTENERS}.note",
        "self._noted.append(event)",
        "self._noted.append(event); self.flush()",
    ),
    _shown(
        "what happens while it is told is told within",
        f"{LISTENERS}.flush",
        "if self._is_telling:",
        "if False:",
    ),
    _shown(
        "a listener that raises hides the event from the others",
        "pyscopg2.core.events.listeners:_Subscription.tell",
        "except BaseException as exc:",
        "except ZeroDivisionError as exc:",
    ),
    _shown(
        "a listener is logged each time",
        "pyscopg2.core.events.listeners:_Subscription.tell",
        "self._has_failed = True",
        "pass",
    ),
    _shown(
        "who was unsubscribed by another hears that event",
        "pyscopg2.core.events.listeners:_Subscription.tell",
        "if self.is_over:",
        "if False:",
    ),
    _shown(
        "each check is a change",
        "pyscopg2.core.events.changes:Changes.follow",
        "_essence(old) != _essence(new)",
        "True",
    ),
    _shown(
        "a pool is retired after it was opened",
        "pyscopg2.core.events.changes:Changes.follow",
        "if old.pool is not None:",
        "if old.pool is not None and new.pool is None:",
    ),
    _shown(
        "a stream keeps the oldest",
        "pyscopg2.core.events.stream:EventStream.hear",
        "self._events.append(event)",
        "len(self._events) == self._events.maxlen or self._events.append(event)",
    ),
    _shown(
        "a stream is held by those it listens to",
        "pyscopg2.core.events.stream:EventStream.__init__",
        "partial(_hear, weakref.ref(self))",
        "self.hear",
    ),
    _shown(
        "the last event is told twice",
        f"{LIFECYCLE}.end",
        "if not self._has_told_end:",
        "if True:",
    ),
    _shown(
        "a pool that opens is counted as a check",
        "pyscopg2.core.statistics.tally:Tallies.follow",
        "new.serial != old.serial",
        "True",
    ),
    _shown(
        "a master that comes back is a failover",
        "pyscopg2.core.statistics.tally:Tallies.follow",
        "masters[0].address != self._master",
        "True",
    ),
    _shown(
        "what is out of retired pools counts nowhere",
        "pyscopg2.core.checkout.census:count",
        "leaving.get(address, 0)",
        "0",
    ),
    _shown(
        "use is told twice",
        f"{CHECKOUTS}._tell_of_use",
        "del checkout.taken_at",
        "pass",
    ),
    _shown(
        "an acquire that fails is told to nobody",
        f"{ACQUIRE}._take_observed",
        "observers.failed(stopwatch.clock() - began, exc)",
        "pass",
    ),
    _shown(
        "checks run in the context of the first request",
        f"{LIFECYCLE}._run_monitor",
        ", context=self.check_context",
        "",
    ),
    _shown(
        "pools are opened in the context of the checks",
        f"{KEEPER}.begin",
        ", context=context",
        "",
    ),
    _shown(
        "a copy has the pool",
        "pyscopg2.core.topology.host_state:Live.__deepcopy__",
        "Live()",
        "Live(self.pool, self.error, self.is_heard)",
    ),
    _shown(
        "a promotion is not seen where warnings alone are shown",
        "pyscopg2.core.topology.transition_log:_level",
        "old is not Role.UNKNOWN",
        "False",
    ),
    # The way in
    _mutant(
        "a host is suspended after its place is free",
        f"{ACQUIRE}._take",
        "slots.connect_failed(host_pool, exc)\n            slots.free(host_pool)",
        "slots.free(host_pool)\n            slots.connect_failed(host_pool, exc)",
    ),
    _mutant(
        "a connect that has ended has its host asked all the same",
        f"{ACQUIRE}._connect",
        "asking.cancel()",
        "pass",
    ),
    _mutant(
        "a connect that has ended counts as slow all the same",
        f"{ACQUIRE}._connect",
        "slow.cancel()",
        "pass",
    ),
    _mutant(
        "a connect that hangs has no host asked",
        f"{ACQUIRE}._connect",
        "loop.call_later(PATIENCE, ask, host_pool.address)",
        "loop.call_later(1000, ask, host_pool.address)",
    ),
    _mutant(
        "a hook's error is the host's",
        f"{ACQUIRE}._take",
        "hook_error = exc.__cause__ or exc\n            break",
        "slots.connect_failed(host_pool, exc)",
    ),
    # The way back
    _mutant(
        "a connection that is closed when given back makes nobody suspect its host",
        f"{CHECKOUTS}.release",
        "if early is None and self._is_closed(connection):",
        "if False:",
    ),
    _mutant(
        "a dead connection is not terminated before it is given back",
        f"{TERMINATION}.bury",
        "self.cut(checkout)",
        "pass",
    ),
    _mutant(
        "to give a dead connection back has no limit",
        f"{TERMINATION}.bury",
        "asyncio.timeout(self._patience)",
        "asyncio.timeout(None)",
    ),
    _mutant(
        "what returns to an abandoned pool is left alone",
        f"{RETIREMENT}._abandon",
        "self._termination.cut(checkout)",
        "pass",
    ),
    _mutant(
        "the watchdog stops at the close",
        f"{CHECKOUTS}.close",
        "self._stop_comparing()",
        "self._stop_comparing()\n    self._watchdog.stop()",
    ),
    _mutant(
        "an error of an adapter at the release keeps the connection",
        f"{CHECKOUTS}.release",
        "except Exception as exc:",
        "except ZeroDivisionError as exc:",
    ),
    _mutant(
        "roles are not compared after the master has changed",
        f"{CHECKOUTS}._compare_roles_until",
        "self._is_closed = self._compare",
        "pass",
    ),
    # Waiting
    _mutant(
        "an overdue host interrupts nobody",
        f"{SLOTS}._interrupt_connects",
        "host_pool.interrupt(request, _now())",
        "pass",
    ),
    _mutant(
        "overdue hosts come first, too",
        f"{SELECTION}:candidates",
        "if not host.overdue",
        "",
    ),
    _mutant(
        "a suspended host may serve",
        f"{SELECTION}:candidates",
        "and not host_pool.suspended",
        "",
    ),
    # Connect trials
    _mutant(
        "a connect that fails lets as many try again",
        f"{TRIAL}._fall_back",
        "self.limit = max(0, in_use - 1)",
        "self.limit = self.size",
    ),
    _mutant(
        "one connect that succeeds is trusted for all",
        f"{TRIAL}._let_try",
        "min(self.size, in_use + 1)",
        "self.size",
    ),
    _mutant(
        "the next try comes at once",
        f"{TRIAL}.is_due",
        "now - self.tried_at >= RETRY_GAP",
        "True",
    ),
    _mutant(
        "a trial that is never tried lasts",
        f"{TRIAL}.answered",
        "now - self.tried_at >= TRUSTED_AFTER",
        "False",
    ),
    _mutant(
        "what is free is what the pool has, whatever the trial allows",
        f"{HOST_POOL}.free",
        "self.limit",
        "self.size",
    ),
    _mutant(
        "an overdue master hurries nobody",
        f"{ATTENTION}._follow",
        "if any(new.overdue and not old.overdue for old, new in changes):\n        self.hurry()",
        "pass",
    ),
    _mutant(
        "a host that gives nothing back is not asked",
        f"{SLOTS}._ask_for_stuck_hosts",
        "self._attention.check_now_and_then(host_pool.address)",
        "pass",
    ),
    # The monitor
    _mutant(
        "close from another event loop is done there",
        f"{LIFECYCLE}.end",
        "if self.loop is not asyncio.get_running_loop():",
        "if False:",
    ),
    _mutant(
        "a pool that opens too late stays open",
        f"{KEEPER}._open",
        ", undo=self._end",
        "",
    ),
    _mutant(
        "a pool that opens as the manager ends stays open",
        f"{MONITOR}.stop",
        "self._keeper.stop_opening()",
        "pass",
    ),
    _mutant(
        "a pool whose host is lost meanwhile goes on opening",
        f"{KEEPER}.stop_opening",
        "opening.cancel()",
        "pass",
    ),
    _mutant(
        "a slow connect gets no more time the next time",
        f"{HELD}.open",
        "self._slow += failed.error is late",
        "pass",
    ),
    _mutant(
        "a slow pool gets no more time the next time",
        f"{KEEPER}._open",
        "self._slow + 1 if failed.error is late else 0",
        "0",
    ),
    _mutant(
        "a contradiction is never looked into",
        f"{ATTENTION}.contradict",
        "summons.contradiction = in_recovery, self._store.next_serial()",
        "pass",
    ),
    _mutant(
        "a proxy's memory is believed",
        f"{SCOUTING}._is_contradicted",
        "not trusted or ",
        "",
    ),
    _mutant(
        "a change of the master renews no pool behind a service",
        f"{ATTENTION}._follow",
        "summons.route_in_doubt = True",
        "pass",
    ),
    _mutant(
        "a sidelined host keeps its pool",
        f"{MONITOR}._keep_pool",
        "self._role in SIDELINED",
        "False",
    ),
    _mutant(
        "what a driver raises ends the check's task",
        f"{MONITOR}.run",
        "self._fail(self._serial, exc)",
        "raise",
    ),
    _mutant(
        "a monitor that ended is not started anew",
        f"{LIFECYCLE}._run_anew",
        "self._run_monitor(address)",
        "pass",
    ),
    _mutant(
        "a listener that raises keeps the others from hearing",
        f"{STORE}._change",
        "except BaseException as exc:",
        "except ZeroDivisionError as exc:",
    ),
    _mutant(
        "what the logging system raises goes on",
        "pyscopg2.core.diagnosis.log:say",
        "except BaseException as failure:",
        "except ZeroDivisionError as failure:",
    ),
    # How often
    _mutant(
        "a lost master is no reason to look",
        f"{ATTENTION}.delay",
        "if self.is_master_lost:",
        "if False:",
    ),
    _mutant(
        "a lost master is looked for without an end",
        f"{ATTENTION}.is_master_lost",
        "< WATCHFUL_TIME",
        "< 1e9",
    ),
    _mutant(
        "a waiter does not hurry a refused login",
        f"{ATTENTION}.delay",
        "return min(longer, HOPELESS_GAP) if missing or self._store.awaited else longer",
        "return longer",
    ),
    _mutant(
        "a waiter for all hosts has the healthy ones asked, too",
        f"{ATTENTION}.delay",
        "and (host.has_failed or host.role is Role.UNKNOWN)",
        "",
    ),
    _mutant(
        "a full pool has its host asked as often as can be",
        f"{SCHEDULE}.begin",
        "self._next_asked_at = self._began + WAITING_GAP",
        "pass",
    ),
    # What is said
    _mutant(
        "what was refused is never asked again",
        f"{ROLE_QUERY}:RoleQuery.ask",
        "now - self._refused_at >= ASK_AGAIN",
        "False",
    ),
    _mutant(
        "a promotion does not have the refused asked again",
        f"{ROLE_QUERY}:RoleQuery.ask",
        "self._plain if self._plain == before else await self._ask_rich(now)",
        "self._plain",
    ),
    _mutant(
        "55000 is remembered",
        f"{ROLE_QUERY}:RoleQuery._ask_rich",
        "now if code in _LASTING else None",
        "now",
    ),
    _mutant(
        "a login that is read-only makes a replica",
        f"{ROLE_QUERY}:parse_rich",
        'standby or read_only == "server"',
        'standby or read_only != "off"',
    ),
    _mutant(
        "on a tie, the system that has a master does not come first",
        f"{JUDGEMENT}:_system_that_counts",
        "system in led, ",
        "",
    ),
    _mutant(
        "the other address of one server does not step in",
        f"{JUDGEMENT}:_find_reigning",
        "if not reigning.answering:",
        "if False:",
    ),
    _mutant(
        "what is forgotten stays the master's name",
        f"{TOPOLOGY}.forget",
        "None if self.master == address else self.master",
        "self.master",
    ),
    # Timers
    _mutant(
        "the watchdog bites twice",
        f"{WATCHDOG}._look",
        "thing.ticks = NOT_WAITING\n                    self._bite(thing)",
        "self._bite(thing)",
    ),
    _mutant(
        "the watchdog bites for our own stall",
        f"{WATCHDOG}._look",
        "if not self._stall.excuses(late, self._tick):",
        "if True:",
    ),
    _mutant(
        "the waiter that joins first does not arm the timer",
        f"{WAIT_QUEUES}.join",
        "if when < self._rings_at:",
        "if False:",
    ),
    _mutant(
        "an acquire that lost a slot stands at the end",
        f"{WAIT_QUEUES}.rejoin",
        "waiters.move_to_end(later)",
        "pass",
    ),
)

_OF_FRESH_READS = (
    # What a position proves
    _stale(
        "an answer that comes late is the newest",
        f"{CLOCK}:LsnClock.add",
        "sample.asked_at <= last.asked_at",
        "False",
    ),
    _stale(
        "what a primary had told before it crashed proves something still",
        f"{CLOCK}:LsnClock.add",
        "sample.insert < last.insert or sample.flush < last.flush",
        "False",
    ),
    _stale(
        "what is told again is told for the first time",
        f"{CLOCK}:LsnClock.add",
        "told_at=last.told_at",
        "told_at=sample.told_at",
    ),
    _stale(
        "samples are kept for ever",
        f"{CLOCK}:LsnClock.add",
        "_thinned(samples) if len(samples) > CAPACITY else samples",
        "samples",
    ),
    _stale(
        "who has reached what is flushed has reached what is inserted",
        f"{CLOCK}:LsnClock.proves",
        "sample.insert <= replayed",
        "sample.flush <= replayed",
    ),
    _stale(
        "what is flushed proves less than was proven",
        f"{CLOCK}:LsnClock.proves",
        "proven = max(proven, until)",
        "proven = until",
    ),
    _stale(
        "a snapshot counts from when it was asked for",
        f"{CLOCK}:LsnClock.proves",
        "sample.told_at <= until",
        "sample.asked_at <= until",
    ),
    _stale(
        "a position counts from when it was asked for",
        f"{CLOCK}:LsnClock.covers",
        "each.told_at <= until",
        "each.asked_at <= until",
    ),
    _stale(
        "what is left of the old timeline need not be replayed",
        f"{CLOCK}:advance",
        "timeline, wal.insert, sample",
        "timeline, 0, sample",
    ),
    _stale(
        "what was replayed when the answer came was there when the question was sent",
        f"{MONITOR}._note_answer",
        "self._asked_at = self._bounds.asked_at",
        "self._asked_at = stopwatch.clock()",
    ),
    # What is known of a host
    _stale(
        "a primary that is set read-only has replayed what it has written",
        f"{FRESHNESS}:told",
        "not answer.in_recovery or answer.lsn is None",
        "answer.lsn is None",
    ),
    _stale(
        "positions of another system count",
        f"{FRESHNESS}:told",
        "answer.system_identifier != clock.system",
        "False",
    ),
    _stale(
        "the timeline of the control file counts, whatever is received",
        f"{FRESHNESS}:told",
        "answer.timeline if answer.receives is None else answer.receives",
        "answer.timeline",
    ),
    _stale(
        "one of several servers behind an address stands for all",
        f"{FRESHNESS}:freshness",
        "is_direct=host.is_direct",
        "is_direct=True",
    ),
    _stale(
        "an old primary has all that the new one has",
        f"{FRESHNESS}:told",
        "answer.wal is not None and answer.timeline == clock.timeline",
        "answer.wal is not None",
    ),
    _stale(
        "a position of a timeline to come is like one of today's",
        f"{FRESHNESS}:Freshness.covers",
        "position.timeline > clock.timeline",
        "False",
    ),
    _stale(
        "a name that was not looked up yet leads to one server",
        f"{ROUTE}:Route.is_direct",
        "return known is True",
        "return known is not False",
    ),
    _stale(
        "a name that was dialled anew leads where it led",
        f"{ROUTE}:Route.reconsider",
        "self._known.clear()",
        "pass",
    ),
    _stale(
        "a new connection leads where the old one led",
        f"{MONITOR}._note_answer",
        "self._route.reconsider()",
        "pass",
    ),
    _stale(
        "another port leads to the same server",
        f"{ROUTE}:_compare",
        "if port != target.port:",
        "if False:",
    ),
    _stale(
        "a lost connection's word counts again at once",
        f"{PROOFS}.freshness",
        "self._distrusted.get(address) is self.topology[address]",
        "False",
    ),
    # Which host may serve
    _stale(
        "a write of which no position is known is not waited for",
        f"{BOUND}.is_met",
        " or moment < self.since",
        "",
    ),
    _stale(
        "whatever position is asked for is covered",
        f"{BOUND}.is_met",
        "known.covers(self.after)",
        "True",
    ),
    _stale(
        "a session of a system that was replaced can read nothing",
        f"{PROOFS}.refusal",
        "bound.is_explicit and known is not None",
        "known is not None",
    ),
    _stale(
        "each read of a write that may be lost warns",
        f"{PROOFS}._warn",
        "if key not in self._warned:",
        "if True:",
    ),
    _stale(
        "reads of what was written before a promotion warn",
        f"{PROOFS}._warn",
        " or after.lsn <= clock.began_at",
        "",
    ),
    _stale(
        "a master serves bounded reads beside its replicas",
        f"{SELECTION}:proven",
        "return replicas\n",
        "return replicas + masters\n",
    ),
    _stale(
        "a master serves bounded reads at once",
        f"{SELECTION}:proven",
        "stale and now < bound.masters_at",
        "False",
    ),
    _stale(
        "replicas are waited for where there is none",
        f"{SELECTION}:proven",
        "stale and now < bound.masters_at",
        "now < bound.masters_at",
    ),
    _stale(
        "where masters serve, too, a bound is for nobody",
        f"{SELECTION}:proven",
        "[each for each in able if each in masters or each in replicas]",
        "list(able)",
    ),
    # Taking
    _stale(
        "a bounded read is served by a full host",
        f"{SLOTS}.take_fresh",
        "each.in_use < each.limit",
        "True",
    ),
    _stale(
        "no read keeps the proofs coming",
        f"{SLOTS}._consider",
        "self._attention.keep_proving(bound.max_lag, _now())",
        "pass",
    ),
    _stale(
        "what was fresh before a slow connect is fresh after it",
        f"{SLOTS}.is_fresh",
        "host_pool not in queue.proven(bound)",
        "False",
    ),
    _stale(
        "a connection that was lost is asked about again and again",
        f"{SLOTS}.is_fresh",
        "self._distrust(host)",
        "pass",
    ),
    _stale(
        "what was found out before a connection was lost is found out still",
        f"{SLOTS}._distrust",
        "queue.last = None",
        "pass",
    ),
    _stale(
        "who was led elsewhere goes there again",
        f"{SLOTS}.is_fresh_there",
        "self._distrust(self._topology[host_pool.address])",
        "pass",
    ),
    _stale(
        "what comes from a host that is fresh no more is not given back",
        f"{BOUNDED_ACQUIRE}._hand_back",
        "self._checkouts.return_later(connection, host_pool)",
        "pass",
    ),
    _stale(
        "what is asked in vain is not given back",
        f"{BOUNDED_ACQUIRE}._ask_there",
        "except BaseException:\n        checkouts.return_later(connection, host_pool)",
        "except BaseException:\n        pass",
    ),
    _stale(
        "no connection is asked where it leads",
        f"{BOUNDED_ACQUIRE}._is_confirmed",
        "return last is not None and host_pool in last.heard",
        "return last is not None",
    ),
    _stale(
        "what a connection says of where it leads is for nobody",
        f"{BOUNDED_ACQUIRE}._ask_there",
        "if not slots.is_fresh_there(bound, host_pool, answer):",
        "if False:",
    ),
    _stale(
        "a connection may take for ever to say where it leads",
        f"{BOUNDED_ACQUIRE}._ask_there",
        "Alarm(loop, patience, cut)",
        "Alarm(loop, 1000, cut)",
    ),
    _stale(
        "who waits for a replica does not look when a master may serve",
        f"{BOUNDED_ACQUIRE}._until",
        "return min(when, asyncio.get_running_loop().time() + patience)",
        "return when",
    ),
    _stale(
        "a position that is asked for in a session is forgotten",
        f"{LATE_BOUND}._find_bound",
        "after = written.merge(after)",
        "after = written",
    ),
    _stale(
        "a write of which no position is known moves no read",
        f"{LATE_BOUND}._find_bound",
        "since = session.since",
        "pass",
    ),
    _stale(
        "what was written to a system that was replaced is waited for",
        f"{LATE_BOUND}._find_bound",
        "session.position_in(known if after is None else after.system_identifier)",
        "session.position",
    ),
    _stale(
        "what was proven is proven for ever",
        f"{BOUNDED_QUEUE}.recalled",
        "stopwatch.clock() < last.until",
        "True",
    ),
    _stale(
        "what was proven before the last check is proven still",
        f"{BOUNDED_QUEUE}.recalled",
        "and last.topology is self._proofs.topology",
        "",
    ),
    _stale(
        "the patience of a read ends with its snapshot",
        f"{BOUNDED_QUEUE}.proven",
        "until = min(until, bound.masters_at)",
        "pass",
    ),
    # Waiting
    _stale(
        "who waits is not told that the position is of another system",
        f"{SLOTS}._follow_proofs",
        "self.wait_queues.fail(queue, waiter, error)",
        "pass",
    ),
    _stale(
        "who is served has proofs asked for still",
        f"{SLOTS}._follow_proofs",
        "self._attention.proved(queue)",
        "pass",
    ),
    _stale(
        "who waits for a slot while the proof becomes too old is forgotten",
        f"{SLOTS}._follow_proofs",
        "self._attention.prove(queue)",
        "pass",
    ),
    _stale(
        "who waits for a full host holds up who could be served",
        f"{BOUNDED_QUEUE}.head",
        "any(each.in_use < each.limit for each in able)",
        "bool(able)",
    ),
    _stale(
        "a slot goes to whom its host may not serve",
        f"{BOUNDED_QUEUE}.first_for",
        "host_pool in able",
        "True",
    ),
    _stale(
        "the one replica serves whatever is asked for",
        f"{BOUNDED_QUEUE}.reconsider",
        "self.candidates = candidates",
        "WaitQueue.reconsider(self, candidates)",
    ),
    _stale(
        "a proof that is waited for hurries nobody",
        f"{ATTENTION}.prove",
        "self.hurry()",
        "pass",
    ),
    _stale(
        "who waits for a proof has hosts dialled that are down",
        f"{ATTENTION}.delay",
        "self._unproven and host.answering",
        "self._unproven",
    ),
    _stale(
        "the last bound counts, not the smallest",
        f"{ATTENTION}.keep_proving",
        "max_lag < self._kept or now >= self._kept_until",
        "True",
    ),
    _stale(
        "reads with a large bound keep a small one",
        f"{ATTENTION}.keep_proving",
        "now + KEPT_TIME if max_lag <= self._kept else self._kept_until",
        "now + KEPT_TIME",
    ),
    _stale(
        "proofs are kept coming for ever",
        f"{ATTENTION}._proving_gap",
        "asyncio.get_running_loop().time() >= self._kept_until",
        "False",
    ),
    _stale(
        "a tiny bound hammers the hosts",
        f"{ATTENTION}._proving_gap",
        "max(least, self._kept / PROOFS_PER_BOUND)",
        "self._kept / PROOFS_PER_BOUND",
    ),
    # Sessions
    _stale(
        "a session goes back",
        f"{CAUSAL}:CausalSession._note",
        "position.merge(before)",
        "position",
    ),
    _stale(
        "what is written in an inner session is not read in the outer one",
        f"{CAUSAL}:CausalSession.move",
        "self._outer.move(position)",
        "pass",
    ),
    _stale(
        "a moment goes back",
        f"{CAUSAL}:CausalSession.move_to",
        "max(self._since, moment)",
        "moment",
    ),
    _stale(
        "an inner session keeps its moment for itself",
        f"{CAUSAL}:CausalSession.move_to",
        "self._outer.move_to(moment)",
        "pass",
    ),
    _stale(
        "an inner session does not know the outer one's moment",
        f"{CAUSAL}:CausalSession.__init__",
        "self._since = outer.since",
        "pass",
    ),
    _stale(
        "an inner session does not know the outer one's position",
        f"{CAUSAL}:CausalSession.__init__",
        "self._note(position)",
        "pass",
    ),
    _stale(
        "what was written in one system is forgotten for another",
        f"{CAUSAL}:CausalSession._note",
        "before = self._positions.pop(position.system_identifier, None)",
        "before = self._positions.pop(position.system_identifier, None); self._positions.clear()",
    ),
    _stale(
        "without fencing a lost master of the same timeline is forgotten",
        "pyscopg2.core.topology.snapshot:_clock_without_fencing",
        "each.is_of(clock.system, clock.timeline)",
        "False",
    ),
    _stale(
        "a session of another manager ends this one",
        f"{CAUSAL}:CausalScope.__enter__",
        "{**sessions, self._number: session}",
        "{self._number: session}",
    ),
    # What moves them on
    _stale(
        "a block that fails has written nothing",
        f"{CAUSAL_ACQUIRE}._end_and_ask",
        "exc is None or isinstance(exc, Exception)",
        "exc is None",
    ),
    _stale(
        "a block that is cancelled has written nothing",
        f"{CAUSAL_ACQUIRE}._end_and_ask",
        "else:\n            self._session.move_to(stopwatch.clock())",
        "else:\n            pass",
    ),
    _stale(
        "a commit that fails has written nothing",
        f"{CAUSAL_ACQUIRE}._end_and_ask",
        "except BaseException:\n            self._session.move_to(stopwatch.clock())",
        "except BaseException:\n            pass",
    ),
    _stale(
        "a block that was terminated has written nothing",
        f"{CAUSAL_ACQUIRE}.__aexit__",
        "self._session.move_to(stopwatch.clock())",
        "pass",
    ),
    _stale(
        "a connection that was terminated has written nothing",
        f"{CAUSAL_ACQUIRE}.give_back",
        "self._session.move_to(stopwatch.clock())",
        "pass",
    ),
    _stale(
        "a release in a session is not bounded",
        f"{CAUSAL_ACQUIRE}.give_back",
        "self.ticks = 0",
        "pass",
    ),
    _stale(
        "a session writes on after its connection is back",
        f"{CAUSAL_ACQUIRE}._end_write",
        "self._session.end_write()",
        "pass",
    ),
    _stale(
        "a session ends its write with each of those who give back",
        f"{CAUSAL_ACQUIRE}._end_write",
        "if self._is_writing:",
        "if True:",
    ),
    _stale(
        "a standby that answers for its master has nothing to tell",
        f"{CAUSAL_ACQUIRE}._ask",
        "elif self._queue.request.pool_id is None:",
        "elif False:",
    ),
    _stale(
        "a pool of a standby's moves its session",
        f"{CAUSAL_ACQUIRE}._ask",
        "elif self._queue.request.pool_id is None:",
        "else:",
    ),
    _stale(
        "who can not be asked for its position is not suspected",
        f"{CAUSAL_ACQUIRE}._ask",
        "checkouts.attention.check_soon(self.host_pool.address)",
        "pass",
    ),
)

_OF_ATTEMPTS = (
    _again(
        "a lost commit is run once more unasked",
        f"{ATTEMPT}._is_settled",
        "if not self._is_harmless() and await self._is_committed(failure):",
        "if False:",
    ),
    _again(
        "a lost commit is an error like others",
        f"{ATTEMPT}._is_settled",
        "if self._is_unsaid(failure):",
        "if False:",
    ),
    _again(
        "what failed after the commit counts",
        f"{ATTEMPT}._is_settled",
        "if progress.is_committed:",
        "if False:",
    ),
    _again(
        "no number is no evidence",
        f"{ATTEMPT}._is_harmless",
        "return self._idempotent or (evidence is not None and evidence.xid is None)",
        "return self._idempotent",
    ),
    _again(
        "committed in another life is committed",
        "pyscopg2.core.attempts.evidence:find",
        "if now == before:",
        "if now.system_identifier == before.system_identifier:",
    ),
    _again(
        "another system's word counts",
        "pyscopg2.core.attempts.evidence:find",
        "if now.system_identifier != before.system_identifier or now.timeline < before.timeline:",
        "if now.timeline < before.timeline:",
    ),
    _again(
        "an older timeline's word counts",
        "pyscopg2.core.attempts.evidence:find",
        "if now.system_identifier != before.system_identifier or now.timeline < before.timeline:",
        "if now.system_identifier != before.system_identifier:",
    ),
    _again(
        "a found commit is not confirmed",
        f"{ATTEMPT_INQUIRY}:inquire",
        "if finding is Finding.COMMITTED:",
        "if False:",
    ),
    _again(
        "who is in progress is not asked again",
        f"{ATTEMPT_INQUIRY}:inquire",
        "is_found = finding is not Finding.UNDER_WAY",
        "is_found = True",
    ),
    _again(
        "a refusal of evidence comes within the transaction",
        f"{ATTEMPT_BLOCK}:_tells_evidence",
        "if shared.tells_evidence is None:",
        "if False:",
    ),
    _again(
        "the budget is not asked",
        f"{ATTEMPT_COURSE}.pause",
        "if not is_load or self._budget.spend(self._loop.time()):",
        "if True:",
    ),
    _again(
        "the first repeat waits",
        f"{ATTEMPT_COURSE}.pause",
        "backoff(self.number - 1)",
        "backoff(self.number)",
    ),
    _again(
        "the last error is raised",
        f"{ATTEMPT_COURSE}.give_up",
        "raise first or last",
        "raise last",
    ),
    _again(
        "a read that writes is run again",
        "pyscopg2.core.attempts.repeatable:is_repeatable",
        "demoted = () if read_only else _DEMOTED",
        "demoted = _DEMOTED",
    ),
    _again(
        "one lost member is enough of a group",
        "pyscopg2.core.attempts.repeatable:_all_start_with",
        "return all(",
        "return any(",
    ),
    _again(
        "the manager's own errors are looked through",
        "pyscopg2.core.attempts.repeatable:_codes",
        "if isinstance(exc, PyscopgError) or not isinstance(exc, Exception):",
        "if not isinstance(exc, Exception):",
    ),
    _again(
        "a shutdown at the commit says that nothing is committed",
        "pyscopg2.core.attempts.repeatable:is_rolled_back",
        "code is not None and not code.startswith(_NOT_SAID)",
        "code is not None and not code.startswith('08')",
    ),
)

MUTANTS = (
    *_OWN,
    *_OF_ATTEMPTS,
    *_OF_FRESH_READS,
    *(Mutant(mutation) for mutation in MUTATIONS if mutation.name not in _SIMULATED_ONLY),
)
"""The simulation's, too: the unit tests alone have to find them."""
