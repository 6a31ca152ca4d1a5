"""Bugs that are put back into the core, to see that a simulation finds them."""

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Callable, Generator
from typing import Any, NamedTuple


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
        owner, name, right = self._find()
        setattr(owner, name, self._wrong(right))
        try:
            yield
        finally:
            setattr(owner, name, right)

    def _find(self) -> tuple[Any, str, Callable[..., Any]]:
        module, _, path = self.where.partition(":")
        owner: Any = importlib.import_module(module)
        *classes, name = path.split(".")
        for each in classes:
            owner = getattr(owner, each)
        return owner, name, inspect.getattr_static(owner, name)

    def _wrong(self, right: Callable[..., Any]) -> Callable[..., Any]:
        source = textwrap.dedent(inspect.getsource(right))
        if source.count(self.before) != 1:
            raise LookupError(f"{self.where} holds not once, as {self.name} needs: {self.before}")
        made: dict[str, Any] = {}
        code = compile(source.replace(self.before, self.after), f"<{self.name}>", "exec")
        exec(code, right.__globals__, made)
        wrong: Callable[..., Any] = made[right.__name__]
        return wrong


ACQUIRE = "pyscopg2.core.acquire:AcquireContext"
CHECKOUT = "pyscopg2.core.checkout:Checkouts"
LINE = "pyscopg2.core.line:Line"
MONITOR = "pyscopg2.core.monitor:Monitor"
PLACES = "pyscopg2.core.places:Places"
SPELL = "pyscopg2.core.spell:Spell"
STORE = "pyscopg2.core.store:Store"
TOPOLOGY = "pyscopg2.core.topology"

MUTATIONS = (
    Mutation(
        "the monitor swallows a cancellation",
        f"{MONITOR}._pause",
        "finally:\n",
        "except asyncio.CancelledError:\n            pass\n        finally:\n",
    ),
    Mutation(
        "who waits swallows a cancellation",
        f"{ACQUIRE}.__aenter__",
        "places.leave(queue, waiter)\n                raise\n",
        "places.leave(queue, waiter)\n                spell = None\n",
    ),
    Mutation(
        "a wake-up is lost when a place comes back",
        f"{PLACES}.free",
        "line.pop(spell)",
        "None",
    ),
    Mutation(
        "a wake-up is lost when a role changes",
        f"{PLACES}.follow",
        "self._serve_all()",
        "pass",
    ),
    Mutation(
        "who may serve is looked up once and for all",
        f"{PLACES}.follow",
        "self._reconsider()",
        "pass",
    ),
    Mutation(
        "a place handed to one who is cancelled is lost",
        f"{PLACES}.leave",
        "self.free(spell)",
        "pass",
        hint=2,
    ),
    Mutation(
        "a place is handed to one who is cancelled already",
        f"{LINE}.pop",
        "if not waiter.done():",
        "if True:",
        hint=501,
    ),
    Mutation(
        "a slot leaks when an acquire is aborted",
        f"{ACQUIRE}.__aenter__",
        "except Interrupted:\n            places.free(spell)",
        "except Interrupted:\n            pass",
        hint=1,
    ),
    Mutation(
        "fencing is off",
        f"{TOPOLOGY}:_superseder",
        "highest > timeline",
        "False",
        hint=10,
    ),
    Mutation(
        "a superseded master keeps its connections",
        f"{CHECKOUT}._follow",
        "new.role is Role.SUPERSEDED",
        "False",
        hint=10,
    ),
    Mutation(
        "an old answer is believed for ever",
        f"{TOPOLOGY}:_observe",
        "answer=seen.answer",
        "answer=host.answer or seen.answer",
    ),
    Mutation(
        "a waiter is left behind when its time is up",
        f"{LINE}._look",
        "waiter.set_result(None)",
        "pass",
    ),
    Mutation(
        "a waiter is left behind at the end",
        f"{PLACES}.close",
        "self.line.dissolve(error)",
        "pass",
    ),
    Mutation(
        "who waits for hosts is left behind at the end",
        f"{STORE}.close",
        "future.set_exception(error)",
        "pass",
        hint=115,
    ),
    Mutation(
        "who waits for hosts misses their change",
        f"{STORE}.publish",
        "_resolve(future, predicate, after)",
        "_resolve(future, predicate, before)",
        hint=10,
    ),
    Mutation(
        "a terminated connection is released twice",
        f"{CHECKOUT}.release",
        "if checkout.stage is ENDED:",
        "if False:",
    ),
    Mutation(
        "a place that came back early comes back again",
        f"{CHECKOUT}.release",
        "if checkout.stage is RETURNING:",
        "if True:",
    ),
    Mutation(
        "the deadline of a connect is not armed",
        f"{ACQUIRE}._connect",
        "asyncio.timeout_at(when)",
        "asyncio.timeout_at(None)",
        hint=1,
    ),
    Mutation(
        "a reserved connection is used again after a failed check",
        f"{MONITOR}._drop_reserved",
        "reserved, self._reserved = self._reserved, None",
        "reserved = None",
        hint=1,
    ),
    Mutation(
        "a change of role does not interrupt those who connect",
        f"{PLACES}._refresh",
        "spell.interrupt_all(asyncio.get_running_loop().time())",
        "pass",
        hint=90,
    ),
    Mutation(
        "the end of a spell does not interrupt those who connect",
        f"{SPELL}.retire",
        "self.interrupt_all(now)",
        "pass",
        hint=37,
    ),
    Mutation(
        "a suspended host never gets its trial",
        f"{PLACES}._refresh",
        "if spell.limit >= spell.size or",
        "if True or",
        hint=34,
    ),
    Mutation(
        "an overdue host is never relieved",
        f"{PLACES}._refresh",
        "spell.overdue = False",
        "pass",
        hint=1,
    ),
    Mutation(
        "a retired pool is never closed",
        f"{PLACES}.follow",
        "return retired",
        "return []",
    ),
    Mutation(
        "what hangs on a retired pool is left alone",
        f"{CHECKOUT}._await_end",
        "loop.call_at(until, ",
        "loop.call_at(until + 1000, ",
        hint=1,
    ),
    Mutation(
        "a burst overshoots the limit",
        f"{PLACES}.take",
        "spell.in_use < spell.limit",
        "spell.in_use <= spell.limit",
    ),
    Mutation(
        "the commit of a terminated connection looks like a success",
        "pyscopg2.testing.fake:FakeConnection.commit",
        "self.is_in_transaction or self._flow.is_closed",
        "self.is_in_transaction",
        hint=26,
    ),
    Mutation(
        "giving back is not bounded",
        f"{CHECKOUT}.release",
        "checkout.ticks = 0",
        "pass",
        hint=2,
    ),
    Mutation(
        "suspicion hammers the host",
        f"{MONITOR}._delay",
        "self._gap()",
        "0.01",
    ),
    Mutation(
        "a check that takes too long is waited for",
        f"{MONITOR}._ask_in_time",
        "Alarm(loop, self._refresh_timeout, end)",
        "Alarm(loop, 1000, end)",
        hint=2,
    ),
)
