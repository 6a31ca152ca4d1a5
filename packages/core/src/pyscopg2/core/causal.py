"""Causal sessions: in them, reads see what was written before."""

import math
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType

from pyscopg2.core.wal import WalPosition

_SYSTEMS = 4
"""So many a session remembers: that of the cluster, and such as took its place."""


class CausalSession:
    """How far the log was after the last write in this session.

    Blocks on a master move it on when they end, and so does `release`. What a block has committed
    is covered also where the position could not be asked for, since the connection was lost, say:
    by the moment at which it was asked.
    """

    __slots__ = ("_outer", "_positions", "_since", "_writers")

    def __init__(self, after: WalPosition | None, outer: "CausalSession | None") -> None:
        """It begins where ``outer`` is, in which it is nested, or ``after``, if that is later."""
        self._outer = outer
        self._positions: dict[int, WalPosition] = {}
        """By system, the one that was written in last at the end. What was written in one is not
        forgotten for what was written in another: of a host that was another cluster's for a
        moment, say."""
        self._since = -math.inf
        self._writers = 0
        if after is not None:
            self._note(after)
        if outer is not None:
            self._since = outer.since
            for position in outer.positions:
                self._note(position)

    @property
    def position(self) -> WalPosition | None:
        """What reads in this session wait for. None: nothing was written in it so far."""
        return next(reversed(self._positions.values()), None)

    @property
    def positions(self) -> tuple[WalPosition, ...]:
        """One for each system that was written in, the last one at the end."""
        return tuple(self._positions.values())

    def position_in(self, system_identifier: int | None) -> WalPosition | None:
        """The one of this system; None: nothing was written in it. `position`, where it is not
        known which system counts."""
        if system_identifier is None:
            return self.position
        return self._positions.get(system_identifier)

    @property
    def since(self) -> float:
        """Reads wait also for all that was committed before this moment, on `stopwatch.clock`;
        minus infinity where they need not."""
        return self._since

    @property
    def is_writing(self) -> bool:
        """A connection to a master is out: what is written on it, and may be committed already, is
        not in `position` yet."""
        return self._writers > 0

    def begin_write(self) -> None:
        """A connection to a master was handed out."""
        self._writers += 1
        if self._outer is not None:
            self._outer.begin_write()

    def end_write(self) -> None:
        """It comes back; `move` or `move_to` has been told of it."""
        self._writers -= 1
        if self._outer is not None:
            self._outer.end_write()

    def move(self, position: WalPosition) -> None:
        """Something was written, and this covers it. It never goes back."""
        self._note(position)
        if self._outer is not None:
            self._outer.move(position)

    def move_to(self, moment: float) -> None:
        """Something may have been committed before this moment, and nobody knows the position."""
        self._since = max(self._since, moment)
        if self._outer is not None:
            self._outer.move_to(moment)

    def _note(self, position: WalPosition) -> None:
        before = self._positions.pop(position.system_identifier, None)
        self._positions[position.system_identifier] = position.merge(before)
        if len(self._positions) > _SYSTEMS:
            del self._positions[next(iter(self._positions))]


_NONE: MappingProxyType[int, CausalSession] = MappingProxyType({})

_SESSIONS: ContextVar[MappingProxyType[int, CausalSession]] = ContextVar(
    "pyscopg2_causal_sessions", default=_NONE
)
"""By the number of the manager: one variable for all, since context variables are never freed.
Tasks that start within a session copy this, and share the session itself."""


def current_session(number: int) -> CausalSession | None:
    """The innermost one of that manager's, in this context."""
    return _SESSIONS.get().get(number)


class CausalScope:
    """``with`` this a causal session is the current one; see `BasePoolManager.causal`."""

    __slots__ = ("_after", "_number", "_token")

    def __init__(self, number: int, after: WalPosition | None) -> None:
        self._number = number
        self._after = after
        self._token: Token[MappingProxyType[int, CausalSession]] | None = None

    def __enter__(self) -> CausalSession:
        if self._token is not None:
            raise RuntimeError("this causal session has been entered before")
        sessions = _SESSIONS.get()
        session = CausalSession(self._after, sessions.get(self._number))
        self._token = _SESSIONS.set(MappingProxyType({**sessions, self._number: session}))
        return session

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token is None:
            raise RuntimeError("this causal session has not been entered")
        try:
            _SESSIONS.reset(self._token)
        except ValueError:
            # Left in another context than it was entered in, as generators that a framework runs in
            # threads are: that context has never had it.
            pass
