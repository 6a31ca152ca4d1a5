import math
from typing import Any

import pytest
from tests.core.conftest import now, virtual

from pyscopg2.core.line import Line
from pyscopg2.core.queue import Queue, Waiter
from pyscopg2.core.selection import Request
from pyscopg2.core.spell import Spell

FOREVER = math.inf


class Bench:
    """A line with three queues; all know their candidates, none at first."""

    def __init__(self) -> None:
        self.opened: list[Queue[object]] = []
        self.line: Line[object] = Line(lambda queue: queue.candidates or [], self.opened.append)
        self.write = Queue[object](Request())
        self.read = Queue[object](Request(read_only=True))
        self.fall_back = Queue[object](Request(read_only=True, fallback_master=True))

    def join(self, *queues: Queue[object]) -> list[Waiter]:
        return [self.wait(queue) for queue in queues]

    def wait(self, queue: Queue[object], when: float = FOREVER) -> Waiter:
        return self.line.join(queue, next(self.line.tickets), when)

    def heads(self) -> list[Waiter]:
        return [head for _, head in self.line.heads()]


def spell() -> Spell[object]:
    return Spell("db1:5432", object(), 11)


@virtual
async def test_an_empty_line() -> None:
    line = Bench().line
    assert (line.waiting, tuple(line.queues), line.heads()) == (0, (), [])
    assert line.pop(spell()) is None


@virtual
async def test_the_heads_are_the_first_of_each_queue_by_their_tickets() -> None:
    bench = Bench()
    line, read, write, fall_back = bench.line, bench.read, bench.write, bench.fall_back
    waiters = bench.join(read, write, read, fall_back, write)
    assert line.waiting == 5
    assert line.heads() == [(read, waiters[0]), (write, waiters[1]), (fall_back, waiters[3])]
    line.serve(read, waiters[0], spell())
    assert bench.heads() == waiters[1:4]
    line.serve(write, waiters[1], spell())
    line.serve(read, waiters[2], spell())
    assert bench.heads() == waiters[3:]
    assert set(line.queues) == {fall_back, write}


@virtual
async def test_who_is_served_has_left() -> None:
    bench = Bench()
    (waiter,), place = bench.join(bench.read), spell()
    bench.line.serve(bench.read, waiter, place)
    assert not bench.line.waiting
    assert await waiter is place
    bench.line.leave(bench.read, waiter)
    assert not bench.line.waiting


@virtual
async def test_who_was_cancelled_and_could_not_leave_yet_is_passed_over() -> None:
    bench = Bench()
    line, read, place = bench.line, bench.read, spell()
    read.reconsider([place])
    gone, next_ = bench.join(read, read)
    gone.cancel()
    assert bench.heads() == [next_]
    assert line.pop(place) is next_
    assert bench.heads() == []
    assert line.pop(place) is None
    line.leave(read, gone)
    assert (line.waiting, tuple(line.queues)) == (0, ())


@pytest.mark.parametrize("alone", [True, False])
@virtual
async def test_many_who_were_cancelled_and_could_not_leave_yet_are_passed_over(alone: bool) -> None:
    bench = Bench()
    line, read, write, place = bench.line, bench.read, bench.write, spell()
    for queue in (read, write):
        queue.reconsider([place])
    *gone, last = bench.join(read if alone else write, *[read] * 10_000)
    for waiter in gone:
        waiter.cancel()
    assert bench.heads() == [last]
    assert line.pop(place) is last
    assert line.pop(place) is None


@virtual
async def test_leaving_any_number_of_times() -> None:
    bench = Bench()
    waiter, other = bench.join(bench.read, bench.read)
    bench.line.leave(bench.read, waiter)
    bench.line.leave(bench.read, waiter)
    assert bench.heads() == [other]
    assert bench.line.waiting == 1


@virtual
async def test_the_line_dissolves() -> None:
    bench = Bench()
    waiters = bench.join(bench.read, bench.write, bench.read)
    bench.line.dissolve(LookupError("closed"))
    assert not bench.line.waiting
    for waiter in waiters:
        with pytest.raises(LookupError):
            await waiter


@virtual
async def test_it_dissolves_also_in_the_turn_in_which_somebody_was_cancelled() -> None:
    bench = Bench()
    gone, other = bench.join(bench.read, bench.read)
    gone.cancel()
    bench.line.dissolve(LookupError("closed"))
    with pytest.raises(LookupError):
        await other
    bench.line.leave(bench.read, gone)
    assert not bench.line.waiting


@virtual
async def test_who_comes_back_stands_where_it_stood() -> None:
    bench = Bench()
    line, read, write = bench.line, bench.read, bench.write
    zero, one, two = (next(line.tickets) for _ in range(3))
    (three,) = bench.join(read)
    again_two = line.rejoin(read, two, FOREVER)
    assert bench.heads() == [again_two]
    again_one = line.rejoin(read, one, FOREVER)
    assert bench.heads() == [again_one]
    before_all = line.rejoin(read, zero, FOREVER)
    (other,) = bench.join(write)
    order: list[Waiter] = []
    while heads := line.heads():
        queue, head = heads[0]
        order.append(head)
        line.serve(queue, head, spell())
    assert order == [before_all, again_one, again_two, three, other]
    assert line.waiting == 0


@virtual
async def test_the_first_who_can_be_served_is_taken_out() -> None:
    bench = Bench()
    line, read, write = bench.line, bench.read, bench.write
    master, any_role = spell(), spell()
    write.reconsider([master, any_role])
    read.reconsider([any_role])
    reader, writer, other = bench.join(read, write, read)
    assert line.pop(master) is writer
    assert tuple(line.queues) == (read,)
    assert line.pop(master) is None
    assert [line.pop(any_role) for _ in range(3)] == [reader, other, None]
    assert line.waiting == 0


@virtual
async def test_who_came_first_is_served_first_whichever_queue_is_looked_at_first() -> None:
    bench = Bench()
    line, read, write, place = bench.line, bench.read, bench.write, spell()
    for queue in (read, write):
        queue.reconsider([place])
    gone, writer, reader, last = bench.join(read, write, read, write)
    gone.cancel()
    assert [line.pop(place) for _ in range(4)] == [writer, reader, last, None]


@virtual
async def test_who_came_first_is_served_first_also_where_a_queue_was_alone_before() -> None:
    bench = Bench()
    line, read, write, place = bench.line, bench.read, bench.write, spell()
    for queue in (read, write):
        queue.reconsider([place])
    waiters = bench.join(read, write)
    assert line.pop(place) is waiters[0]
    waiters += bench.join(read, write)
    assert [line.pop(place) for _ in range(4)] == [*waiters[1:], None]


@virtual
async def test_candidates_that_are_not_known_are_found_out() -> None:
    place = spell()
    line = Line[Any](lambda queue: [place] if queue.request.read_only else [], lambda _: None)
    line.join(Queue(Request()), next(line.tickets), FOREVER)
    reader = line.join(Queue(Request(read_only=True)), next(line.tickets), FOREVER)
    assert line.pop(place) is reader
    assert line.pop(place) is None


@virtual
async def test_a_queue_that_had_nobody_is_told_of() -> None:
    bench = Bench()
    read, write = bench.read, bench.write
    bench.join(read, read, write, read)
    assert bench.opened == [read, write]
    while heads := bench.line.heads():
        bench.line.serve(*heads[0], spell())
    bench.join(read)
    assert bench.opened == [read, write, read]


@virtual
async def test_each_waits_until_its_own_time_is_up() -> None:
    bench = Bench()
    began = now()
    waiters = {bench.wait(bench.read, began + after): after for after in (3, 1, 2)}
    for waiter in sorted(waiters, key=waiters.__getitem__):
        assert await waiter is None
        assert now() - began == pytest.approx(waiters[waiter], abs=1e-3)
    assert not bench.line.waiting


@virtual
async def test_the_deadlines_of_many_are_not_looked_through_for_each_of_them() -> None:
    bench = Bench()
    many = bench.join(*[bench.read] * 10_000)
    began = now()
    for step in range(1, 101):
        waiter = bench.wait(bench.write, began + step * 1e-4)
        assert await waiter is None
        # One look in 20 ms, at the most: it takes a tenth of that.
        assert now() - began <= step * 1e-4 + 0.021 * step
    assert now() - began >= 99 * 0.02
    assert not any(waiter.done() for waiter in many)
