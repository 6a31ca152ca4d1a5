import math
from typing import Any

import pytest
from tests.core.conftest import now, virtual

from pyscopg2.core.checkout.host_pool import HostPool
from pyscopg2.core.checkout.request import Request
from pyscopg2.core.checkout.wait_queue import Waiter, WaitQueue
from pyscopg2.core.checkout.wait_queues import WaitQueues
from pyscopg2.core.monitoring.attention import Attention
from pyscopg2.core.topology import Topology
from pyscopg2.core.topology.store import Store

FOREVER = math.inf


class Bench:
    """Three queues, which know their candidates: none at first."""

    def __init__(self) -> None:
        self.attention = attention()
        self.queues: WaitQueues[object] = WaitQueues(self.attention)
        self.write = WaitQueue[object](Request())
        self.read = WaitQueue[object](Request(read_only=True))
        self.fall_back = WaitQueue[object](Request(read_only=True, fallback_master=True))

    def join(self, *queues: WaitQueue[object]) -> list[Waiter]:
        return [self.wait(queue) for queue in queues]

    def wait(self, queue: WaitQueue[object], when: float = FOREVER) -> Waiter:
        return self.queues.join(queue, next(self.queues.tickets), when)

    def heads(self) -> list[Waiter]:
        return [head for _, head in self.queues.heads()]


def attention() -> Attention:
    return Attention(Store(Topology.of(())), 1.0)


def host_pool() -> HostPool[object]:
    return HostPool("db1:5432", object(), 11)


@virtual
async def test_an_empty_line() -> None:
    queues = Bench().queues
    assert (queues.waiting, tuple(queues.occupied), queues.heads()) == (0, (), [])
    assert queues.pop(host_pool()) is None


@virtual
async def test_the_heads_are_the_first_of_each_queue_by_their_tickets() -> None:
    bench = Bench()
    queues, read, write, fall_back = bench.queues, bench.read, bench.write, bench.fall_back
    waiters = bench.join(read, write, read, fall_back, write)
    assert queues.waiting == 5
    assert queues.heads() == [(read, waiters[0]), (write, waiters[1]), (fall_back, waiters[3])]
    queues.serve(read, waiters[0], host_pool())
    assert bench.heads() == waiters[1:4]
    queues.serve(write, waiters[1], host_pool())
    queues.serve(read, waiters[2], host_pool())
    assert bench.heads() == waiters[3:]
    assert set(queues.occupied) == {fall_back, write}


@virtual
async def test_who_is_served_has_left() -> None:
    bench = Bench()
    (waiter,), slot = bench.join(bench.read), host_pool()
    bench.queues.serve(bench.read, waiter, slot)
    assert not bench.queues.waiting
    assert await waiter is slot
    bench.queues.leave(bench.read, waiter)
    assert not bench.queues.waiting


@virtual
async def test_who_was_cancelled_and_could_not_leave_yet_is_passed_over() -> None:
    bench = Bench()
    queues, read, slot = bench.queues, bench.read, host_pool()
    read.reconsider([slot])
    gone, next_ = bench.join(read, read)
    gone.cancel()
    assert bench.heads() == [next_]
    assert queues.pop(slot) is next_
    assert bench.heads() == []
    assert queues.pop(slot) is None
    queues.leave(read, gone)
    assert (queues.waiting, tuple(queues.occupied)) == (0, ())


@pytest.mark.parametrize("alone", [True, False])
@virtual
async def test_many_who_were_cancelled_and_could_not_leave_yet_are_passed_over(alone: bool) -> None:
    bench = Bench()
    queues, read, write, slot = bench.queues, bench.read, bench.write, host_pool()
    for queue in (read, write):
        queue.reconsider([slot])
    *gone, last = bench.join(read if alone else write, *[read] * 10_000)
    for waiter in gone:
        waiter.cancel()
    assert bench.heads() == [last]
    assert queues.pop(slot) is last
    assert queues.pop(slot) is None


@virtual
async def test_leaving_any_number_of_times() -> None:
    bench = Bench()
    waiter, other = bench.join(bench.read, bench.read)
    bench.queues.leave(bench.read, waiter)
    bench.queues.leave(bench.read, waiter)
    assert bench.heads() == [other]
    assert bench.queues.waiting == 1


@virtual
async def test_the_line_dissolves() -> None:
    bench = Bench()
    waiters = bench.join(bench.read, bench.write, bench.read)
    bench.queues.dissolve(lambda: LookupError("closed"))
    assert not bench.queues.waiting
    for waiter in waiters:
        with pytest.raises(LookupError):
            await waiter


@virtual
async def test_it_dissolves_also_in_the_turn_in_which_somebody_was_cancelled() -> None:
    bench = Bench()
    gone, other = bench.join(bench.read, bench.read)
    gone.cancel()
    bench.queues.dissolve(lambda: LookupError("closed"))
    with pytest.raises(LookupError):
        await other
    bench.queues.leave(bench.read, gone)
    assert not bench.queues.waiting


@virtual
async def test_who_comes_back_stands_where_it_stood() -> None:
    bench = Bench()
    queues, read, write = bench.queues, bench.read, bench.write
    zero, one, two = (next(queues.tickets) for _ in range(3))
    (three,) = bench.join(read)
    again_two = queues.rejoin(read, two, FOREVER)
    assert bench.heads() == [again_two]
    again_one = queues.rejoin(read, one, FOREVER)
    assert bench.heads() == [again_one]
    before_all = queues.rejoin(read, zero, FOREVER)
    (other,) = bench.join(write)
    order: list[Waiter] = []
    while heads := queues.heads():
        queue, head = heads[0]
        order.append(head)
        queues.serve(queue, head, host_pool())
    assert order == [before_all, again_one, again_two, three, other]
    assert queues.waiting == 0


@virtual
async def test_the_first_who_can_be_served_is_taken_out() -> None:
    bench = Bench()
    queues, read, write = bench.queues, bench.read, bench.write
    master, any_role = host_pool(), host_pool()
    write.reconsider([master, any_role])
    read.reconsider([any_role])
    reader, writer, other = bench.join(read, write, read)
    assert queues.pop(master) is writer
    assert tuple(queues.occupied) == (read,)
    assert queues.pop(master) is None
    assert [queues.pop(any_role) for _ in range(3)] == [reader, other, None]
    assert queues.waiting == 0


@virtual
async def test_who_came_first_is_served_first_whichever_queue_is_looked_at_first() -> None:
    bench = Bench()
    queues, read, write, slot = bench.queues, bench.read, bench.write, host_pool()
    for queue in (read, write):
        queue.reconsider([slot])
    gone, writer, reader, last = bench.join(read, write, read, write)
    gone.cancel()
    assert [queues.pop(slot) for _ in range(4)] == [writer, reader, last, None]


@virtual
async def test_who_came_first_is_served_first_also_where_a_queue_was_alone_before() -> None:
    bench = Bench()
    queues, read, write, slot = bench.queues, bench.read, bench.write, host_pool()
    for queue in (read, write):
        queue.reconsider([slot])
    waiters = bench.join(read, write)
    assert queues.pop(slot) is waiters[0]
    waiters += bench.join(read, write)
    assert [queues.pop(slot) for _ in range(4)] == [*waiters[1:], None]


@virtual
async def test_candidates_that_are_not_known_are_found_out() -> None:
    slot = host_pool()
    queues = WaitQueues[Any](attention())
    write, read = WaitQueue[Any](Request()), WaitQueue[Any](Request(read_only=True))
    write.reconsider([])
    read.reconsider([slot, host_pool()])
    queues.join(write, next(queues.tickets), FOREVER)
    reader = queues.join(read, next(queues.tickets), FOREVER)
    assert queues.pop(slot) is reader
    assert queues.pop(slot) is None


@virtual
async def test_each_waits_until_its_own_time_is_up() -> None:
    bench = Bench()
    began = now()
    waiters = {bench.wait(bench.read, began + after): after for after in (3, 1, 2)}
    for waiter in sorted(waiters, key=waiters.__getitem__):
        assert await waiter is None
        assert now() - began == pytest.approx(waiters[waiter], abs=1e-3)
    assert not bench.queues.waiting


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
