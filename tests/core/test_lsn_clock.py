"""What a replay position proves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyscopg2.core.topology.lsn_clock import CAPACITY, MEMORY, LsnClock, Sample, advance, begin
from pyscopg2.core.topology.role_query import Answer, WalState

DELAY = 0.6
"""Seconds until an asynchronous commit is flushed."""


def sample(asked_at: float, insert: int, flush: int | None = None, snapshot: int = 0) -> Sample:
    """Told a hundredth of a second after it was asked for."""
    return Sample(
        insert, insert if flush is None else flush, snapshot, DELAY, asked_at + 0.01, asked_at
    )


def clock(*samples: Sample) -> LsnClock:
    known = begin(42, 1, samples[0].insert, samples[0])
    for each in samples[1:]:
        known = known.add(each)
    return known


def test_nothing_is_proven_of_what_is_behind_all_that_is_known() -> None:
    assert clock(sample(1, 100)).proves(99) == -math.inf


def test_the_insert_lsn_proves_all_that_was_committed_before_it_was_asked_for() -> None:
    known = clock(
        sample(1, 100, snapshot=1), sample(2, 200, snapshot=2), sample(3, 300, snapshot=3)
    )
    assert [known.proves(lsn) for lsn in (100, 199, 200, 299, 300, 999)] == [1, 1, 2, 2, 3, 3]


def test_a_quiet_primary_proves_it_anew_each_time() -> None:
    known = clock(*(sample(float(second), 100) for second in range(10)))
    assert known.proves(100) == 9
    assert len(known.samples) == 1


def test_the_flush_lsn_proves_what_asynchronous_commits_have_flushed_by_then() -> None:
    # Somebody writes and does not commit; others commit.
    known = clock(*(sample(float(s), 150 + s, flush=100 + s, snapshot=s) for s in range(5)))
    # It may have been frozen for one second, from one check to the next.
    assert known.proves(104) == pytest.approx(4 - DELAY - 1)
    assert known.proves(103) == pytest.approx(3 - DELAY - 1)
    assert known.proves(101) == -math.inf


def test_the_flush_lsn_alone_proves_nothing_of_asynchronous_commits() -> None:
    known = clock(sample(0, 100, snapshot=1), sample(0.1, 140, flush=100, snapshot=2))
    # What was committed between the two is not flushed yet.
    assert known.proves(100) == 0


def test_the_same_snapshot_proves_that_nothing_was_committed() -> None:
    # Caught up, then somebody writes and does not commit.
    known = clock(sample(0, 100), sample(0.1, 140, flush=100), sample(0.2, 180, flush=100))
    assert known.proves(100) == pytest.approx(0.2)


def test_the_same_snapshot_helps_what_is_flushed() -> None:
    """Somebody writes and does not commit, somebody else has committed since: the insert LSN of
    after the commit is reached never."""
    known = clock(
        sample(0, 100, snapshot=1),
        sample(1, 150, flush=140, snapshot=2),  # the commit ends at 140
        sample(1.3, 160, flush=140, snapshot=2),
        sample(1.605, 160, flush=140, snapshot=2),
        sample(1.95, 160, flush=140, snapshot=2),
    )
    assert known.proves(140) == pytest.approx(1.95 - DELAY - 0.345)
    # What was told first with this snapshot was told more than the delay, and the gap, ago.
    assert known.add(sample(2.05, 170, 140, 2)).proves(140) == pytest.approx(2.05)


def test_a_snapshot_counts_from_when_it_was_told() -> None:
    """It was taken at some time between question and answer: a commit may have been done before."""
    known = clock(
        sample(0, 100, snapshot=1),
        sample(1, 150, flush=140, snapshot=2),
        sample(1.3, 155, flush=140, snapshot=2),
        sample(1.6, 156, flush=140, snapshot=2),
        sample(1.905, 160, flush=140, snapshot=2),
    )
    assert known.proves(140) == pytest.approx(1.0)


def test_an_outage_counts_for_nothing() -> None:
    """Frozen, it flushes nothing: what was committed before is on disk some time after it."""
    known = clock(
        *(sample(0.1 * n, 150 + n, flush=100 + n, snapshot=n) for n in range(20)),
        # From 1.9 to 4.9 it did not answer.
        *(sample(4.9 + 0.1 * n, 200 + n, flush=130, snapshot=30 + n) for n in range(7)),
    )
    assert known.proves(119) == pytest.approx(1.9 - DELAY - 0.1)
    assert known.proves(130) == pytest.approx(5.5 - DELAY - 3.0)
    later = known.add(sample(5.7, 210, flush=130, snapshot=40))
    assert later.proves(130) == pytest.approx(5.7 - DELAY - 0.2)


def test_positions_that_go_back_are_those_of_a_primary_that_crashed() -> None:
    known = clock(sample(1, 100, snapshot=1), sample(2, 300, flush=150, snapshot=2), sample(3, 160))
    assert known.samples == (sample(3, 160),)
    assert known.proves(155) == -math.inf


def test_what_was_asked_earlier_adds_nothing() -> None:
    known = clock(sample(2, 200))
    assert known.add(sample(1, 300)) is known
    assert known.add(sample(2, 300)) is known


def test_a_position_is_covered_by_the_log_up_to_there() -> None:
    known = clock(sample(1, 100))
    assert known.covers(100, 100)
    assert not known.covers(99, 100)


def test_a_position_is_covered_by_what_was_flushed_long_enough_after_it() -> None:
    """As where somebody has written beyond it, and does not commit: it is reached never."""
    known = clock(
        sample(1, 150, flush=140, snapshot=1),
        sample(1.5, 155, flush=140, snapshot=2),
    )
    assert not known.covers(140, 150)
    assert not known.add(sample(2.0, 160, flush=140, snapshot=3)).covers(140, 150)
    later = known.add(sample(2.0, 160, flush=140, snapshot=3)).add(sample(2.2, 161, 140, 4))
    assert later.covers(140, 150)
    assert not later.covers(139, 150)
    assert not later.covers(140, 151)


def test_a_position_counts_from_when_it_was_told_for_the_first_time() -> None:
    known = clock(*(sample(at, 150 + n, flush=140) for n, at in enumerate((1, 1.4, 1.8))))
    # It was told at 1.01: what was written before that is flushed after the delay, and the gap.
    assert not known.add(sample(1.005 + DELAY + 0.4, 160, flush=140)).covers(140, 150)
    assert known.add(sample(1.02 + DELAY + 0.4, 160, flush=140)).covers(140, 150)
    assert known.add(sample(1.02 + DELAY + 0.4, 152, flush=140)).covers(140, 150)


ANSWER = Answer(False, False, 100, 1, 42, wal=WalState(100, 90, 5, DELAY))


def test_a_host_that_tells_no_log_has_no_clock() -> None:
    known = advance(None, ANSWER, 1, 2)
    assert known == begin(42, 1, 100, Sample(100, 90, 5, DELAY, 2, 1))
    assert advance(known, Answer(True, True, 100, 1, 42), 3, 4) is None
    assert advance(known, Answer(read_only=False), 3, 4) is None


@pytest.mark.parametrize("change", [{"timeline": 2}, {"system_identifier": 43}])
def test_samples_of_another_timeline_or_system_are_dropped(change: dict[str, int]) -> None:
    known = advance(None, ANSWER, 1, 2)
    fields = {"timeline": 1, "system_identifier": 42} | change
    later = Answer(
        False,
        False,
        100,
        fields["timeline"],
        fields["system_identifier"],
        wal=WalState(200, 200, 6, DELAY),
    )
    after = advance(known, later, 3, 4)
    assert after is not None
    assert (after.timeline, after.system) == (fields["timeline"], fields["system_identifier"])
    assert after.samples == (Sample(200, 200, 6, DELAY, 4, 3),)
    assert after.began_at == 200


@pytest.mark.parametrize("gap", [0.05, 1.0])
def test_it_remembers_an_hour_in_little_space(gap: float) -> None:
    known = clock(sample(0, 0))
    count = int(2 * MEMORY / gap)
    for number in range(1, count):
        known = known.add(sample(number * gap, number, snapshot=number))
        assert len(known.samples) <= CAPACITY
    now = (count - 1) * gap
    for behind in (gap, 10, 100, 1000, 0.9 * MEMORY):
        lag = now - known.proves(count - 1 - int(behind / gap))
        assert behind - gap <= lag <= 1.15 * behind + gap
    assert known.samples[0].asked_at >= now - 1.2 * MEMORY


def test_a_standby_that_stopped_at_the_oldest_sample_stays_known() -> None:
    known = clock(sample(0, 0))
    for second in range(1, int(MEMORY)):
        known = known.add(sample(second, second, snapshot=second))
        assert known.proves(0) == 0, second


class Primary:
    """A log, and when its commits were done."""

    def __init__(self) -> None:
        self.now = self.ran = 0.0
        self.insert = self.flush = 0
        self.done = 0
        self.commits: list[tuple[float, int]] = []
        """When each was done, and where it ends."""
        self._unflushed: list[tuple[float, int]] = []

    def write(self) -> None:
        self.insert += 10

    def commit(self, *, asynchronous: bool) -> None:
        self.insert += 10
        self.done += 1
        self.commits.append((self.now, self.insert))
        if asynchronous:
            self._unflushed.append((self.ran, self.insert))
        else:
            self.flush = self.insert

    def wait(self, seconds: float) -> None:
        """Asynchronous commits are flushed as late as may be."""
        self.now += seconds
        self.ran += seconds
        for when, lsn in self._unflushed:
            if when + DELAY <= self.ran:
                self.flush = max(self.flush, lsn)

    def freeze(self, seconds: float) -> None:
        """Time passes, and it does not run."""
        self.now += seconds

    def tell(self) -> Sample:
        asked_at = self.now
        self.wait(0.001)
        told = self.insert, self.flush, self.done
        self.wait(0.001)
        return Sample(*told, DELAY, self.now, asked_at)


STEPS = st.lists(
    st.one_of(
        st.sampled_from(["write", "commit", "asynchronous commit", "tell"]),
        st.floats(0.001, 1.0),
    ),
    max_size=60,
)


@given(STEPS, st.floats(0.0, 2.0), STEPS)
def test_no_claim_is_ever_wrong(
    steps: list[str | float], frozen: float, after: list[str | float]
) -> None:
    """However long it is frozen once, and whatever is written, committed, flushed and told, a
    replay position that has not reached a commit proves nothing of its time, and covers no position
    behind it."""
    primary = Primary()
    known: LsnClock | None = None
    for step in (*steps, None, *after):
        match step:
            case None:
                primary.freeze(frozen)
            case float():
                primary.wait(step)
            case "write":
                primary.write()
            case "tell":
                told = primary.tell()
                known = clock(told) if known is None else known.add(told)
            case kind:
                primary.commit(asynchronous=kind != "commit")
        if known is None:
            continue
        for when, end in primary.commits:
            # What is not flushed is not replayed.
            missing = min(end - 1, primary.flush)
            assert not missing >= end
            assert known.proves(missing) <= when + 1e-9
            assert not known.covers(missing, end)
