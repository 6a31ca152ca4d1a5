"""Fair timing: short batches of each contender in turn, and the median of each round's ratios.

Whatever else the machine does in one round hits all contenders alike; what hits one of them alone
is an outlier, which the median passes over.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

Batch = Callable[[int], Awaitable[object]]
"""Does something so many times."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One contender's part of interleaved rounds."""

    seconds: float
    """For one operation, the median."""
    ratio: float
    """To the first contender's time in the same round, the median."""
    low: float
    """The lower quartile of these ratios."""
    high: float
    """The upper one."""

    @property
    def microseconds(self) -> float:
        return self.seconds * 1e6

    def per(self, share: int) -> "Timing":
        """Of an operation that is one of so many."""
        return replace(self, seconds=self.seconds / share)


async def interleave(
    batches: Mapping[str, Batch], *, rounds: int, seconds: float = 0.02
) -> dict[str, Timing]:
    """Time one operation of each; what is first is what the others are compared with.

    ``seconds`` is about how long a batch takes. The order is another in each round.
    """
    return compared(await sample(batches, rounds=rounds, seconds=seconds))


async def sample(
    batches: Mapping[str, Batch], *, rounds: int, seconds: float = 0.02
) -> dict[str, list[float]]:
    """What `interleave` does, each round's seconds for each."""
    names = list(batches)
    counts = {name: await _calibrate(batch, seconds) for name, batch in batches.items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    with collector_at_rest():
        for number in range(rounds):
            for name in _rotated(names, number):
                times[name].append(await _time(batches[name], counts[name]) / counts[name])
            gc.collect()
    return times


def compared(times: Mapping[str, Sequence[float]]) -> dict[str, Timing]:
    """From the seconds of each round, the first one's being what the others are compared with."""
    base = next(iter(times.values()))
    return {name: timing(each, base) for name, each in times.items()}


def timing(times: Sequence[float], base: Sequence[float]) -> Timing:
    """From the seconds of each round, of a contender and of the one it is compared with."""
    ratios = [one / other for one, other in zip(times, base, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Timing(statistics.median(times), statistics.median(ratios), low, high)


@contextmanager
def collector_at_rest() -> Generator[None]:
    """Within it the garbage collector runs only where it is called, over what is new."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def _calibrate(batch: Batch, seconds: float) -> int:
    count = 1
    while (spent := await _time(batch, count)) < seconds / 2:
        count *= 2
    return max(1, round(count * seconds / spent))


async def _time(batch: Batch, count: int) -> float:
    # What the batch before has left to the loop is not this one's.
    await asyncio.sleep(0)
    began = time.perf_counter()
    await batch(count)
    return time.perf_counter() - began


def _rotated(names: Sequence[str], number: int) -> list[str]:
    """Each contender is first, second, … equally often, and follows each of the others."""
    turn = number % len(names)
    turned = [*names[turn:], *names[:turn]]
    return turned[::-1] if number // len(names) % 2 else turned
