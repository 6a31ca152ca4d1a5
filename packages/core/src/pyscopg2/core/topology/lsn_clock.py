"""What a replay position proves: until when everything committed is in it.

A commit that was done before the moment *t* is in what a standby has replayed up to R, where

- R has reached the *insert* LSN that the primary told when it was asked at *t* or later: what is
  committed before was inserted before; or
- R has reached the *flush* LSN that it told when it was asked at *t* plus three times its
  ``wal_writer_delay``, or later: so long it takes at most until an asynchronous commit is flushed
  (manual, 28.4 "Asynchronous Commit"), and others are flushed before they are done. That is time in
  which the primary runs. It may be frozen between two checks, as a virtual machine is that moves:
  so the longest time between two checks since then counts for nothing; or
- one of these holds for an earlier moment, and nothing was committed from then until *t*: the
  primary's snapshot was the same (manual, 9.28 "System Information Functions").

The insert LSN alone is not enough: while a transaction is open that has written, on a primary that
is quiet otherwise, no standby reaches it. Nor is the flush LSN: an asynchronous commit is not
flushed yet. All moments are of one clock, our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from pyscopg2.core.topology.role_query import Answer

MEMORY = 3600.0
"""Seconds after which a sample is forgotten: a standby that is further behind proves nothing."""

SPARSITY = 0.05
"""Older samples are kept this part of their age apart, or little more: what is proven of a standby
that is far behind may be a tenth too old."""

CAPACITY = 256
"""Samples that may be kept before those that are too close are dropped, some 100 bytes each."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a primary told of its log, once or several times with nothing new."""

    insert: int
    """Where the next record will be written, in bytes."""
    flush: int
    """Up to where the log is on disk, in bytes."""
    snapshot: int
    """Stands for the transactions that are done: while it is the same, nothing was committed."""
    flush_delay: float
    """Seconds in which the primary runs after which an asynchronous commit is flushed at the
    latest."""
    told_at: float
    """When it had told this for the first time, on `stopwatch.clock`."""
    asked_at: float
    """When it was asked for the last time and told this: before the question was sent."""
    flushed_before: float = -math.inf
    """What was committed before this moment had been flushed then."""


@dataclass(frozen=True, slots=True)
class LsnClock:
    """The samples of one primary, on one timeline. Of another timeline they prove nothing."""

    system: int
    timeline: int
    began_at: int
    """The first insert LSN of this timeline that was seen: the timeline began before it."""
    samples: tuple[Sample, ...]
    """The newest last; their positions never go back."""
    gaps: tuple[tuple[float, float], ...] = ()
    """When each gap between two checks ended, and how long it was: of those that may matter yet,
    the newest last, and each longer than all that follow. Nothing is known of before the first
    check."""

    def is_of(self, system: int, timeline: int) -> bool:
        return (self.system, self.timeline) == (system, timeline)

    def add(self, sample: Sample) -> LsnClock:
        """The clock with one sample more. One that is older than the newest changes nothing."""
        last = self.samples[-1]
        if sample.asked_at <= last.asked_at:
            return self
        if sample.insert < last.insert or sample.flush < last.flush:
            # It crashed, and what it had not flushed is gone: positions are given a second time.
            return begin(self.system, self.timeline, self.began_at, sample)
        gaps = _after(self.gaps, sample.asked_at, sample.asked_at - last.asked_at)
        flushed_before = sample.asked_at - sample.flush_delay
        gaps, lost = _lost(gaps, flushed_before)
        sample = replace(sample, flushed_before=flushed_before - lost)
        if _told(sample) == _told(last):
            again = replace(sample, told_at=last.told_at)
            return replace(self, samples=(*self.samples[:-1], again), gaps=gaps)
        samples = (*self.samples, sample)
        samples = _thinned(samples) if len(samples) > CAPACITY else samples
        return replace(self, samples=samples, gaps=gaps)

    def proves(self, replayed: int) -> float:
        """Everything that was committed before this moment is in what was replayed so far; minus
        infinity where nothing is known to be."""
        samples = self.samples
        proven = -math.inf
        reached = _newest(samples, lambda sample: sample.insert <= replayed)
        if reached is not None:
            proven = samples[_same_snapshot(samples, reached)].asked_at
        flushed = _newest(samples, lambda sample: sample.flush <= replayed)
        if flushed is None or flushed == reached:
            return proven
        until = samples[flushed].flushed_before
        proven = max(proven, until)
        told = _newest(samples, lambda sample: sample.told_at <= until)
        if told is not None:
            proven = max(proven, samples[_same_snapshot(samples, told)].asked_at)
        return proven

    def covers(self, replayed: int, lsn: int) -> bool:
        """Whether what was committed before the primary was at ``lsn`` is in what was replayed."""
        if replayed >= lsn:
            return True
        flushed = _newest(self.samples, lambda sample: sample.flush <= replayed)
        if flushed is None:
            return False
        until = self.samples[flushed].flushed_before
        return any(each.insert >= lsn and each.told_at <= until for each in self.samples)


def advance(
    clock: LsnClock | None, answer: Answer, asked_at: float, told_at: float
) -> LsnClock | None:
    """A host's clock after one more answer; None where it is no primary, or does not tell."""
    wal, system, timeline = answer.wal, answer.system_identifier, answer.timeline
    if wal is None or system is None or timeline is None:
        return None
    sample = Sample(wal.insert, wal.flush, wal.snapshot, wal.flush_delay, told_at, asked_at)
    if clock is None or not clock.is_of(system, timeline):
        return begin(system, timeline, wal.insert, sample)
    return clock.add(sample)


def begin(system: int, timeline: int, began_at: int, sample: Sample) -> LsnClock:
    """A clock with its first sample. Whether the primary ran before that, is not known."""
    return LsnClock(system, timeline, began_at, (sample,), ((sample.asked_at, math.inf),))


def _after(
    gaps: tuple[tuple[float, float], ...], ended_at: float, length: float
) -> tuple[tuple[float, float], ...]:
    """With one gap more: shorter ones before it matter no longer."""
    longer = tuple(gap for gap in gaps if gap[1] > length)
    return (*longer, (ended_at, length))


def _lost(
    gaps: tuple[tuple[float, float], ...], since: float
) -> tuple[tuple[tuple[float, float], ...], float]:
    """The gaps that may matter yet, and how long the primary may have been frozen in one of those
    that reach beyond ``since``, less that very time."""
    lost = 0.0
    for position in range(len(gaps) - 1, -1, -1):
        ended_at, length = gaps[position]
        if ended_at <= since - lost:
            return gaps[position + 1 :], lost
        lost = length
    return gaps, lost


def _told(sample: Sample) -> tuple[int, int, int]:
    return sample.insert, sample.flush, sample.snapshot


def _newest(samples: tuple[Sample, ...], holds: Callable[[Sample], bool]) -> int | None:
    """The position of the newest one of which this holds."""
    for position in range(len(samples) - 1, -1, -1):
        if holds(samples[position]):
            return position
    return None


def _same_snapshot(samples: tuple[Sample, ...], position: int) -> int:
    """The position of the newest sample up to which nothing was committed since this one."""
    snapshot = samples[position].snapshot
    while position + 1 < len(samples) and samples[position + 1].snapshot == snapshot:
        position += 1
    return position


def _thinned(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The newest, and of the older ones those that are far enough apart; and the oldest, which
    alone proves something of a standby that has stopped there."""
    now = samples[-1].asked_at
    known = [sample for sample in samples if now - sample.asked_at <= MEMORY]
    kept = [known.pop()]
    for sample in reversed(known):
        gap = kept[-1].asked_at - sample.asked_at
        if gap >= (now - sample.asked_at) * SPARSITY or sample is known[0]:
            kept.append(sample)
    return tuple(reversed(kept))
