"""Where a host stands towards a request: whether it serves, and if not, why; and of all hosts."""

import enum
from dataclasses import dataclass


class Hindrance(enum.Enum):
    """Why a host does not serve a request."""

    ROLE = "role"
    """It has not the role that is asked for, or others of that role come first."""
    LAG = "lag"
    """It is not proven to be fresh enough."""
    CONNECT = "connect"
    """Connects to it fail, or take too long."""
    BUSY = "busy"
    """All its connections are in use."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One host's."""

    address: str
    hindrance: Hindrance | None
    """None: it serves the request, or could have."""
    text: str
    """The host and its state in words, and why it does not serve."""

    @property
    def serves(self) -> bool:
        return self.hindrance is None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request got nothing, or what it would get."""

    asked: str
    """What it asks for, in words."""
    hosts: tuple[Standing, ...]
    """In the order of the DSN."""
    advice: str = ""
    """What the program may do about it, in words; empty where that is not for the program."""

    @property
    def serves(self) -> bool:
        """Whether any host does."""
        return any(host.serves for host in self.hosts)

    @property
    def hindrance(self) -> Hindrance | None:
        """What is in the way: of the host that is closest to serving; None where one serves."""
        if self.serves:
            return None
        found = {host.hindrance for host in self.hosts}
        order = (Hindrance.BUSY, Hindrance.CONNECT, Hindrance.LAG)
        return next((each for each in order if each in found), Hindrance.ROLE)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "asked": self.asked,
            "serves": self.serves,
            "hosts": [
                {
                    "address": host.address,
                    "serves": host.serves,
                    "hindrance": None if host.hindrance is None else host.hindrance.value,
                    "text": host.text,
                }
                for host in self.hosts
            ],
        }

    def __str__(self) -> str:
        return f"{self.asked}: {'; '.join(map(str, self.hosts))}"
