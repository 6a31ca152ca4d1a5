"""What happened in a run, in order, with the virtual time of each event."""


class BrokenInvariant(Exception):  # noqa: N818  what was found, not what went wrong here
    """Something happened that must never happen: its name, and what was seen."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(name, detail)
        self.name = name
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


class Trace:
    """Lines that are formatted when somebody reads them."""

    def __init__(self) -> None:
        self._events: list[tuple[float, str, tuple[object, ...]]] = []

    def add(self, now: float, text: str, *arguments: object) -> None:
        """``arguments`` fill the braces of ``text`` later: they must not change meanwhile."""
        self._events.append((now, text, arguments))

    def __len__(self) -> int:
        return len(self._events)

    def __str__(self) -> str:
        return "\n".join(
            f"{now:10.4f}  {text.format(*arguments)}" for now, text, arguments in self._events
        )
