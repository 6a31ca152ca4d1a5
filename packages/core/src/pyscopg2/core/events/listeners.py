"""Who hears of events, and how they are told."""

import logging
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from pyscopg2.core.diagnosis import log
from pyscopg2.core.events.event import Event

Listener: TypeAlias = Callable[[Event], object]
"""Called in the event loop's thread; must not block. What it returns is not looked at."""


class Listeners:
    """Tells events in the order in which they happened, to each listener in the order of
    subscribing.

    An event happens in the middle of a step of the manager's: it is noted there, and told when the
    step is over, by `flush`. So a listener finds the manager as everybody else does, and may use
    it. What happens meanwhile is told after that, never within.
    """

    def __init__(self) -> None:
        self._listeners: tuple[_Subscription, ...] = ()
        self._noted: deque[Event] = deque()
        self._is_telling = False

    def __bool__(self) -> bool:
        """Whether anybody listens: where nobody does, no event need be made."""
        return bool(self._listeners)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have it called with each event from now on; what is returned ends that."""
        subscription = _Subscription(listener)
        self._listeners = (*self._listeners, subscription)

        def unsubscribe() -> None:
            subscription.is_over = True
            self._listeners = tuple(each for each in self._listeners if each is not subscription)

        return unsubscribe

    def note(self, event: Event) -> None:
        """It has happened: `flush` tells it."""
        if self._listeners:
            self._noted.append(event)

    def flush(self) -> None:
        """Tell what was noted. Called where a step of the manager's is over, and nothing is half
        done."""
        if self._is_telling:
            # Further up on the stack, which goes on with what was noted meanwhile.
            return
        self._is_telling = True
        try:
            while self._noted:
                event = self._noted.popleft()
                for subscription in self._listeners:
                    subscription.tell(event)
        finally:
            self._is_telling = False

    def tell(self, event: Event) -> None:
        """`note` and `flush`."""
        self.note(event)
        self.flush()


class _Subscription:
    """One listener, from when it subscribed."""

    __slots__ = ("_has_failed", "_listener", "is_over")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._has_failed = False
        self.is_over = False

    def tell(self, event: Event) -> None:
        """What the listener raises is logged, the first time, and hurts nobody."""
        if self.is_over:
            # By another listener, of this very event.
            return
        try:
            self._listener(event)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            if not self._has_failed:
                self._has_failed = True
                text = "a listener failed: %r; said once, it is told of what follows all the same"
                log.say(logging.ERROR, text, self._listener, exc=exc)
