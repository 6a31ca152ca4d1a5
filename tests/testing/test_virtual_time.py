import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from pyscopg2.core.timing import stopwatch
from pyscopg2.testing.virtual_time import (
    DeadlockError,
    VirtualTimeLoop,
    run,
    running_loop,
    settle,
    stall,
)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_an_hour_passes_at_once_and_exactly() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return now()

    began = time.monotonic()
    assert run(main()) == 3600
    assert time.monotonic() - began < 1


def test_the_clock_stands_still_while_anything_is_ready() -> None:
    async def main() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
        assert now() == 0

    run(main())


def test_watching_sees_every_turn_and_when_nothing_is_ready() -> None:
    async def main() -> list[tuple[float, bool]]:
        seen: list[tuple[float, bool]] = []
        loop = running_loop()
        loop.watch(lambda idle: seen.append((loop.time(), idle)))
        await asyncio.sleep(0)
        await asyncio.sleep(1)
        loop.watch(None)
        await asyncio.sleep(1)
        return seen

    seen = run(main())
    assert [time for time, idle in seen if idle] == [0]
    assert [time for time, idle in seen if not idle][-1] == 1


def test_what_a_watcher_raises_ends_the_run() -> None:
    def look(idle: bool) -> None:
        if idle:
            running_loop().watch(None)
            raise LookupError

    async def main() -> None:
        running_loop().watch(look)
        await asyncio.sleep(1)

    with pytest.raises(LookupError):
        run(main())


def test_the_clock_never_stops_short_of_a_timer() -> None:
    async def main() -> None:
        for step in range(1, 2000):
            when = now() + 0.1 / step
            await asyncio.sleep(when - now())
            deadline = now() + 1 / 3
            woken = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_at(deadline, woken.set_result, None)
            await woken
            assert now() == deadline

    run(main())


def test_a_loop_that_waits_for_the_rest_of_its_time_ends() -> None:
    async def main() -> int:
        turns, deadline = 0, now() + 0.7
        while now() < deadline:
            turns += 1
            await asyncio.sleep(min(0.1, deadline - now()))
        return turns

    assert run(main()) <= 9


def test_cancelled_timers_do_not_count() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for seconds in (0.5, 1.0, 100.0):
            loop.call_later(seconds, lambda: None).cancel()
        await asyncio.sleep(2)
        assert now() == 2

    run(main())


def test_timers_beyond_a_day() -> None:
    async def main() -> None:
        await asyncio.sleep(10 * 24 * 3600)
        assert now() == 10 * 24 * 3600

    run(main())


def test_a_timeout_fires_at_its_time() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await asyncio.get_running_loop().create_future()
        assert now() == 1.5

    run(main())


def test_a_deadlock_is_an_error_that_names_the_tasks() -> None:
    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        task = asyncio.create_task(wait_for_ever(), name="the sleeper")
        await task

    with pytest.raises(DeadlockError, match="the sleeper"):
        run(main())


def test_a_deadlock_lets_tasks_clean_up() -> None:
    ended: list[float] = []

    async def main() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(1)
            ended.append(now())

    with pytest.raises(DeadlockError):
        run(main())
    assert ended == [1]


def test_a_stall_makes_timers_late_and_keeps_their_order() -> None:
    fired: list[tuple[str, float]] = []

    async def main() -> None:
        def note(name: str) -> None:
            fired.append((name, now()))

        loop = asyncio.get_running_loop()
        for name, seconds in (("c", 3.0), ("a", 1.0), ("late", 6.0), ("b", 2.0)):
            loop.call_later(seconds, note, name)
        stall(5)
        assert fired == []
        await settle()
        assert fired == [("a", 5), ("b", 5), ("c", 5)]
        await asyncio.sleep(2)

    run(main())
    assert fired[3:] == [("late", 6)]


def test_a_stall_goes_only_forward() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="-1"):
            stall(-1)

    run(main())


def test_settle_waits_for_long_chains_and_moves_no_clock() -> None:
    async def main() -> None:
        reached: list[int] = []

        def step(number: int) -> None:
            if number < 500:
                asyncio.get_running_loop().call_soon(step, number + 1)
            else:
                reached.append(number)

        async def sleeper() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(1)

        task = asyncio.create_task(sleeper())
        step(0)
        await settle()
        assert reached == [500]
        assert now() == 0
        assert not task.done()
        await settle()
        await task

    run(main())


def test_settle_runs_what_is_due_and_serves_several() -> None:
    async def main() -> None:
        fired: list[str] = []
        asyncio.get_running_loop().call_later(0, fired.append, "due")
        await asyncio.gather(settle(), settle(), settle())
        assert fired == ["due"]
        abandoned = asyncio.create_task(settle())
        await asyncio.sleep(0)
        abandoned.cancel()
        await settle()
        assert abandoned.cancelled()

    run(main())


def test_settle_waits_for_threads() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.to_thread(time.sleep, 0.02))
        await settle()
        assert task.done()

    run(main())


def test_threads_are_waited_for_while_the_clock_stands() -> None:
    async def main() -> str:
        async with asyncio.timeout(0.001):
            await asyncio.to_thread(time.sleep, 0.05)
        assert now() == 0
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert run(main()) != threading.current_thread().name


def test_a_cancelled_job_does_not_hold_the_clock() -> None:
    release = threading.Event()

    async def main() -> None:
        job = asyncio.get_running_loop().run_in_executor(None, release.wait)
        job.cancel()
        await asyncio.sleep(1)
        assert now() == 1
        release.set()

    run(main())


def test_the_default_executor_is_shut_down_in_real_time() -> None:
    release = threading.Event()
    timer = threading.Timer(0.05, release.set)

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, release.wait).cancel()
        timer.start()

    run(main())
    assert release.is_set()
    timer.join()


def test_sockets_are_waited_for_where_no_timer_is_set() -> None:
    async def main() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"hello\n")
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
        return answer

    assert run(main()) == b"hello\n"


def test_two_runs_are_the_same() -> None:
    def trace() -> list[tuple[float, int]]:
        seen: list[tuple[float, int]] = []

        async def worker(number: int) -> None:
            for turn in range(20):
                await asyncio.sleep(0.1 * ((number * 7 + turn) % 5))
                seen.append((now(), number))

        async def main() -> None:
            await asyncio.gather(*(worker(number) for number in range(10)))

        run(main())
        return seen

    assert trace() == trace()


def test_run_returns_and_raises_what_main_does() -> None:
    async def succeed() -> VirtualTimeLoop:
        return running_loop()

    async def fail() -> None:
        raise LookupError("lost")

    assert run(succeed()).is_closed()
    with pytest.raises(LookupError, match="lost"):
        run(fail())


@pytest.mark.parametrize("use", [settle, lambda: stall(1)])
def test_another_loop_is_refused(use: Callable[[], object]) -> None:
    async def main() -> None:
        result = use()
        if asyncio.iscoroutine(result):
            await result

    with pytest.raises(RuntimeError, match="VirtualTimeLoop"):
        asyncio.run(main())


@pytest.mark.parametrize("fails", [True, False])
def test_the_cores_clock_for_durations_shows_the_same_time_while_the_loop_runs(fails: bool) -> None:
    before = stopwatch.clock

    async def main() -> None:
        for _ in range(3):
            await asyncio.sleep(7)
            assert stopwatch.clock() == now()
        if fails:
            raise LookupError

    with pytest.raises(LookupError) if fails else contextlib.nullcontext():
        run(main())
    assert stopwatch.clock is before
    assert before is time.perf_counter
