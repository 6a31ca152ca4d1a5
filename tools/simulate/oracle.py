"""What the hosts said last: read off the answers on their way to the manager."""

from typing import NamedTuple

LAG = 5
"""Turns of the event loop that an answer may take from the driver to the manager's topology."""


class Said(NamedTuple):
    """One host's answer to the role query."""

    turn: int
    writable: bool
    timeline: int | None
    """Of a primary, writable or not; a host in recovery does not tell its own."""
    system: str | None


class Oracle:
    """Judges by the rules of the design, knowing nothing of the core."""

    def __init__(self) -> None:
        self.turn = 0
        self.version = 0
        """Counts the answers."""
        self._said: dict[str, Said] = {}

    def heard(self, address: str, answer: object) -> None:
        """A host answered the role query, in its rich form or in its plain one."""
        self.version += 1
        words = str(answer).split(" ")
        if len(words) == 1:
            self._said[address] = Said(self.turn, words[0] == "off", None, None)
        else:
            recovery, read_only, _, timeline, system = words
            writable = recovery == "f" and read_only == "off"
            self._said[address] = Said(
                self.turn, writable, None if timeline == "-" else int(timeline), system
            )

    def last(self, address: str) -> Said | None:
        return self._said.get(address)

    def is_in_the_air(self) -> bool:
        """Whether an answer is so young that the manager may not know it yet."""
        return any(self.turn - said.turn < LAG for said in self._said.values())

    def superseded_by(self, address: str) -> str | None:
        """The host last seen as a primary on a higher timeline of the same system."""
        mine = self._said.get(address)
        if mine is None or mine.timeline is None:
            return None
        timelines = {
            other: said.timeline
            for other, said in self._said.items()
            if said.timeline is not None and said.system == mine.system
        }
        newest = max(timelines, key=timelines.__getitem__)
        return newest if timelines[newest] > mine.timeline else None
