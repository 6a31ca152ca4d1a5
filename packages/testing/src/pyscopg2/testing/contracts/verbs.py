"""An adapter whose verbs are noted while they are under way: so a test that hangs can name them."""

import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, cast

from pyscopg2.core.adapter import Adapter, ConnT, PoolT

__all__ = ("Verbs", "watched")

_OF_ADAPTERS = (
    *("create_pool", "close_pool", "terminate_pool", "check_options", "get_pool_maxsize"),
    *("acquire_from_pool", "release_to_pool", "return_to_pool", "terminate_connection"),
    *("end_block", "fetch_scalar", "sqlstate", "is_connection_closed", "in_recovery", "reserve"),
    "is_lost_error",
)
_OF_RESERVED = ("fetch_scalar", "in_recovery", "is_closed", "terminate")


class Verbs:
    """The verbs that are under way."""

    def __init__(self) -> None:
        self.running: str | None = None
        """The one of which a step runs just now: whatever it does, the event loop waits."""
        self._awaited: dict[object, tuple[str, float]] = {}

    def begin(self, name: str) -> object:
        """A verb is awaited from now on; what is returned is for `end`."""
        key = object()
        self._awaited[key] = name, time.monotonic()
        return key

    def end(self, key: object) -> None:
        del self._awaited[key]

    def overdue(self, limits: Callable[[str], float]) -> str | None:
        """The first verb that is awaited for longer than its limit, in seconds."""
        now = time.monotonic()
        for name, since in self._awaited.values():
            if now - since > limits(name):
                return f"{name}() did not end within {limits(name):g} s"
        return None

    def __str__(self) -> str:
        """Those that are awaited, the oldest first."""
        now = time.monotonic()
        told = [f"{name}() for {now - since:.1f} s" for name, since in self._awaited.values()]
        return ", ".join(told) or "no verb of the adapter's"


def watched(adapter: Adapter[PoolT, ConnT], verbs: Verbs) -> Adapter[PoolT, ConnT]:
    """The same adapter, which tells ``verbs`` what it does. It has what that one has."""
    return cast("Adapter[PoolT, ConnT]", _Watched(adapter, _OF_ADAPTERS, verbs))


class _Watched:
    """Has its verbs as attributes of its own: optional Protocols are looked for among these."""

    def __init__(self, watched: Any, names: tuple[str, ...], verbs: Verbs) -> None:
        self.watched = watched
        for name in names:
            verb = getattr(watched, name, None)
            if verb is not None:
                setattr(self, name, _noted(name, verb, verbs))
        # What these are is no awaitable of a verb's.
        for name in ("extra_params", "transaction"):
            if hasattr(watched, name):
                setattr(self, name, getattr(watched, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.watched, name)

    def __repr__(self) -> str:
        return repr(self.watched)


def _noted(name: str, verb: Callable[..., Any], verbs: Verbs) -> Callable[..., Any]:
    @functools.wraps(verb)
    def call(*args: Any, **kwargs: Any) -> Any:
        before, verbs.running = verbs.running, name
        try:
            result = verb(*args, **kwargs)
        finally:
            verbs.running = before
        return _Awaited(name, result, verbs) if inspect.isawaitable(result) else result

    return call


class _Awaited:
    def __init__(self, name: str, awaitable: Awaitable[Any], verbs: Verbs) -> None:
        self._name = name
        self._awaitable = awaitable
        self._verbs = verbs

    def __await__(self) -> Generator[Any, Any, Any]:
        name, verbs = self._name, self._verbs
        key = verbs.begin(name)
        steps = self._awaitable.__await__()
        value: Any = None
        thrown: BaseException | None = None
        try:
            while True:
                before, verbs.running = verbs.running, name
                try:
                    # Not in a handler: what is raised there has a context that it would not have.
                    pending = steps.send(value) if thrown is None else steps.throw(thrown)
                finally:
                    verbs.running = before
                value = thrown = None
                try:
                    value = yield pending
                except BaseException as exc:
                    thrown = exc
        except StopIteration as stop:
            if name == "reserve":
                return _Watched(stop.value, _OF_RESERVED, verbs)
            return stop.value
        finally:
            thrown = None  # it refers to this frame
            verbs.end(key)
