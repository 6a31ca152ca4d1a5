"""What the hosts said last: read off the answers on their way to the manager."""

from collections import Counter
from typing import NamedTuple

LAG = 5
"""Turns of the event loop that an answer may take from the driver to the manager's topology."""


class Said(NamedTuple):
    """One host's answer to the role query."""

    turn: int
    writable: bool
    primary: bool
    """Writable or not; a host that answered in the plain form is none."""
    timeline: int | None
    system: str | None


class Oracle:
    """Judges by the rules of the design, knowing nothing of the core."""

    def __init__(self) -> None:
        self.turn = 0
        self.version = 0
        """Counts the answers."""
        self._said: dict[str, Said] = {}
        self._asked: set[str] = set()

    def asked(self, address: str) -> None:
        """A host is asked, in the rich form. Where it has just answered in the plain one, that
        answer waits for what comes of it."""
        said = self._said.get(address)
        if said is not None and said.system is None:
            self.version += 1
            self._asked.add(address)

    def is_asked(self, address: str) -> bool:
        """Whether there may be an answer that the manager does not believe yet."""
        return address in self._asked

    def heard(self, address: str, answer: object) -> None:
        """A host answered the role query, in its rich form or in its plain one."""
        self.version += 1
        self._asked.discard(address)
        words = str(answer).split(" ")
        if len(words) == 1:
            self._said[address] = Said(self.turn, words[0] == "off", False, None, None)
        else:
            recovery, read_only, _, timeline, system, *_ = words
            primary = recovery == "f"
            writable = primary and read_only != "server"
            self._said[address] = Said(self.turn, writable, primary, int(timeline), system)

    def last(self, address: str) -> Said | None:
        return self._said.get(address)

    def is_in_the_air(self) -> bool:
        """Whether an answer is so young that the manager may not know it yet."""
        return bool(self._asked) or any(self.turn - said.turn < LAG for said in self._said.values())

    def superseded_by(self, address: str) -> str | None:
        """A host last seen on a higher timeline of this primary's system."""
        mine = self._said.get(address)
        if mine is None or not mine.primary or mine.timeline is None:
            return None
        timelines = {
            other: said.timeline
            for other, said in self._said.items()
            if said.timeline is not None and said.system == mine.system
        }
        newest = max(timelines, key=timelines.__getitem__)
        return newest if timelines[newest] > mine.timeline else None

    def rivals(self, address: str) -> list[str]:
        """The other hosts last seen as primaries of the same system on the same timeline."""
        mine = self._said.get(address)
        if mine is None or not mine.primary:
            return []
        return [
            other
            for other, said in self._said.items()
            if other != address
            and said.primary
            and (said.system, said.timeline) == (mine.system, mine.timeline)
        ]

    def is_foreign(self, address: str) -> bool:
        """Whether most hosts were last seen in another system than this one; not on a tie."""
        mine = self._said.get(address)
        if mine is None or mine.system is None:
            return False
        votes = Counter(said.system for said in self._said.values() if said.system is not None)
        return max(votes.values()) > votes[mine.system]
