"""Who is told of each acquire: for histograms and traces, which cost each of them something."""

import logging
from typing import Protocol, runtime_checkable

from pyscopg2.core.diagnosis import log


@runtime_checkable
class AcquireObserver(Protocol):
    """Told in the user's task, and in its context. Must be quick, and must not raise.

    ``address`` is that of the host that serves. All times are in seconds.
    """

    def acquired(self, address: str, seconds: float, waited: bool) -> None:
        """An acquire has got its connection, that long after it was awaited or entered; ``waited``:
        for a slot, or for the driver."""

    def failed(self, seconds: float, error: BaseException) -> None:
        """An acquire has raised this, that long after it was awaited or entered."""

    def connected(self, address: str, seconds: float) -> None:
        """The driver had no connection at once, and has got one for an acquire, that long after it
        was asked: it has connected, as a rule."""

    def released(self, address: str, seconds: float) -> None:
        """A user gives a connection back that long after it was acquired."""


class Observers:
    """All who are told. What one of them raises is logged, the first time, and hurts nobody."""

    def __init__(self, observers: tuple[AcquireObserver, ...]) -> None:
        self.observers = observers
        self._has_failed = False

    def acquired(self, address: str, seconds: float, waited: bool) -> None:
        for observer in self.observers:
            try:
                observer.acquired(address, seconds, waited)
            except Exception as exc:
                self._say(exc)

    def failed(self, seconds: float, error: BaseException) -> None:
        for observer in self.observers:
            try:
                observer.failed(seconds, error)
            except Exception as exc:
                self._say(exc)

    def connected(self, address: str, seconds: float) -> None:
        for observer in self.observers:
            try:
                observer.connected(address, seconds)
            except Exception as exc:
                self._say(exc)

    def released(self, address: str, seconds: float) -> None:
        for observer in self.observers:
            try:
                observer.released(address, seconds)
            except Exception as exc:
                self._say(exc)

    def _say(self, exc: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            log.say(logging.ERROR, "an observer of acquires failed; said once", exc=exc)
