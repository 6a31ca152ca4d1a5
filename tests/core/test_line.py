import math

import pytest
from tests.core.conftest import virtual

from pyscopg2.core.line import FIRST, Line, Waiter
from pyscopg2.core.selection import Request
from pyscopg2.core.spell import Spell

WRITE = Request()
READ = Request(read_only=True)
FOREVER = math.inf
FALL_BACK = Request(read_only=True, fallback_master=True)


def spell() -> Spell[object]:
    return Spell("db1:5432", object(), 11)


def ignore(request: Request) -> None:
    """Nobody needs to know who waits."""


def join(line: Line, request: Request) -> Waiter:
    return line.join(request, FOREVER)


@virtual
async def test_an_empty_line() -> None:
    line = Line(ignore)
    assert not line.waiting
    assert (line.waiting, line.requests, line.heads()) == (0, (), [])
    assert line.pop(spell(), {}) is None


@virtual
async def test_the_heads_are_the_first_of_each_kind_by_their_tickets() -> None:
    line = Line(ignore)
    waiters = [join(line, request) for request in (READ, WRITE, READ, FALL_BACK, WRITE)]
    assert line.waiting == 5
    assert line.heads() == [waiters[0], waiters[1], waiters[3]]
    line.serve(waiters[0], spell())
    assert line.heads() == waiters[1:4]
    line.serve(waiters[1], spell())
    line.serve(waiters[2], spell())
    assert line.heads() == waiters[3:]
    assert set(line.requests) == {FALL_BACK, WRITE}


@virtual
async def test_who_is_served_has_left() -> None:
    line = Line(ignore)
    waiter, place = join(line, READ), spell()
    line.serve(waiter, place)
    assert not line.waiting
    assert await waiter is place
    line.leave(waiter)


@virtual
async def test_who_was_cancelled_and_could_not_leave_yet_is_passed_over() -> None:
    line = Line(ignore)
    gone, next_ = join(line, READ), join(line, READ)
    gone.cancel()
    assert line.heads() == [next_]
    next_.cancel()
    assert line.heads() == []
    assert not line.waiting


@virtual
async def test_leaving_any_number_of_times() -> None:
    line = Line(ignore)
    waiter, other = join(line, READ), join(line, READ)
    line.leave(waiter)
    line.leave(waiter)
    assert line.heads() == [other]


@virtual
async def test_the_line_dissolves() -> None:
    line = Line(ignore)
    waiters = [join(line, request) for request in (READ, WRITE, READ)]
    line.dissolve(LookupError("closed"))
    assert not line.waiting
    for waiter in waiters:
        with pytest.raises(LookupError):
            await waiter


@virtual
async def test_it_dissolves_also_in_the_turn_in_which_somebody_was_cancelled() -> None:
    line = Line(ignore)
    gone, other = join(line, READ), join(line, READ)
    gone.cancel()
    line.dissolve(LookupError("closed"))
    assert not line.waiting
    with pytest.raises(LookupError):
        await other


@virtual
async def test_who_comes_back_stands_where_it_stood() -> None:
    line = Line(ignore)
    one, two, three = join(line, READ), join(line, READ), join(line, READ)
    line.serve(one, spell())
    line.serve(two, spell())
    again_two = line.join(READ, FOREVER, two.ticket)
    assert line.heads() == [again_two]
    again_one = line.join(READ, FOREVER, one.ticket)
    assert line.heads() == [again_one]
    before_all = line.join(READ, FOREVER, FIRST)
    other = join(line, WRITE)
    order: list[Waiter] = []
    while heads := line.heads():
        order.append(heads[0])
        line.serve(heads[0], spell())
    assert order == [before_all, again_one, again_two, three, other]
    assert line.waiting == 0


@virtual
async def test_the_first_who_can_be_served_is_taken_out() -> None:
    line = Line(ignore)
    reader, gone, writer, other = [join(line, request) for request in (READ, WRITE, WRITE, READ)]
    gone.cancel()
    master, any_role = spell(), spell()
    candidates = {WRITE: [master, any_role], READ: [any_role]}
    assert line.pop(master, candidates) is writer
    assert line.requests == (READ,)
    assert line.pop(master, candidates) is None
    assert [line.pop(any_role, candidates) for _ in range(3)] == [reader, other, None]
    assert line.waiting == 0


@virtual
async def test_all_heads_may_have_been_cancelled() -> None:
    line = Line(ignore)
    place = spell()
    for waiter in [join(line, READ), join(line, READ)]:
        waiter.cancel()
    assert line.pop(place, {READ: [place]}) is None
    assert (line.waiting, line.requests) == (0, ())


@virtual
async def test_the_first_of_each_kind_is_told_of() -> None:
    told: list[Request] = []
    line = Line(told.append)
    waiters = [join(line, request) for request in (READ, READ, WRITE, READ)]
    assert told == [READ, WRITE]
    for waiter in waiters:
        line.serve(waiter, spell())
    join(line, READ)
    assert told == [READ, WRITE, READ]
