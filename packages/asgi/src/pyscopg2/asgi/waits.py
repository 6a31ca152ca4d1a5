"""Acquires that waited."""


class Waits:
    """An `AcquireObserver`: counts those that waited for a slot or for the driver, until they are
    taken."""

    def __init__(self) -> None:
        self._count = 0
        self._failed = 0
        self._longest = 0.0

    def acquired(self, address: str, seconds: float, waited: bool) -> None:
        if waited:
            self._count += 1
            self._longest = max(self._longest, seconds)

    def failed(self, seconds: float, error: BaseException) -> None:
        self._failed += 1
        self._longest = max(self._longest, seconds)

    def connected(self, address: str, seconds: float) -> None:
        pass

    def released(self, address: str, seconds: float) -> None:
        pass

    def take(self) -> dict[str, object]:
        """For JSON: those since the last time. ``longest`` is in seconds, of those that failed,
        too."""
        taken = {"count": self._count, "failed": self._failed, "longest": self._longest}
        self._count = self._failed = 0
        self._longest = 0.0
        return dict(taken)
