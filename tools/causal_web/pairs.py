"""Pairs of requests: one process writes a row, the other one reads it."""

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

_numbers = itertools.count(1)


@dataclass
class Outcome:
    """What came of so many pairs."""

    name: str
    pairs: int = 0
    misses: int = 0
    """Reads that did not see the row."""
    served: Counter[str] = field(default_factory=Counter[str])
    """Reads, by the server that served them."""
    seconds: list[float] = field(default_factory=list[float])
    """That each read took."""


def run(name: str, path: str, addresses: Sequence[str], count: int, *, carries: bool) -> Outcome:
    """So many pairs, of one client, by processes in turn; ``carries``: its cookies, or none."""
    outcome = Outcome(name)
    with httpx.Client(timeout=30) as client:
        for turn in range(count):
            number = next(_numbers)
            writer, reader = addresses[turn % 2], addresses[(turn + 1) % 2]
            client.post(f"{writer}/{path}/{number}").raise_for_status()
            if not carries:
                client.cookies.clear()
            began = time.perf_counter()
            answer = client.get(f"{reader}/{number}").raise_for_status().json()
            outcome.seconds.append(time.perf_counter() - began)
            outcome.pairs += 1
            outcome.misses += not answer["found"]
            outcome.served[answer["server"]] += 1
    return outcome
