"""An event loop whose clock is not the wall's: minutes of monitoring pass in milliseconds.

Everything that a coroutine can wait for by `asyncio.sleep`, `asyncio.timeout` or
`loop.call_later` happens in the same order as on a real loop, at the same times of
`loop.time()`, and the same way in every run. Code under test has to read `loop.time()`, not
`time.monotonic()`. The core's clock for durations shows the same time while such a loop runs.
"""

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

from pyscopg2.core.timing import stopwatch

ResultT = TypeVar("ResultT")
ArgsT = TypeVarTuple("ArgsT")

SAME_TIME = 1e-9


class DeadlockError(RuntimeError):
    """Nothing is ready, no timer is set, no thread works: the loop would wait for ever."""


class VirtualSelector(selectors.BaseSelector):
    """The place where a loop waits, and the clock that moves instead.

    A loop comes here with a timeout other than 0 exactly when nothing is ready any more: that is
    the one moment at which time may pass.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.threads = 0
        self.timers: list[float] = []
        self.settling: list[asyncio.Future[None]] = []
        self.look: Callable[[bool], object] | None = None
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        idle = not events and timeout != 0
        if self.look is not None:
            self.look(idle)
        if not idle:
            return events
        if self.threads:
            return self._real.select(None)
        if self.settling:
            for waiter in self.settling:
                if not waiter.done():
                    waiter.set_result(None)
            self.settling.clear()
        elif timeout is not None:
            self.jump(self.now + timeout)
        elif len(self._real.get_map()) > 1:  # more than the loop's own wake-up pipe
            return self._real.select(None)
        else:
            tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
            raise DeadlockError(
                "nothing is ready and no timer is set; these tasks would wait for ever:"
                + "".join(f"\n  {task!r}" for task in tasks)
            )
        return []

    def jump(self, when: float) -> None:
        """Move the clock to ``when``, and exactly onto the timer that is meant by it.

        ``when`` went through a subtraction and an addition, and a clock that stops a hair before
        its timer makes loops of the kind ``while time() < deadline`` spin.
        """
        while self.timers and self.timers[0] < when - SAME_TIME:
            heapq.heappop(self.timers)  # fired or cancelled long ago
        if self.timers and self.timers[0] <= when + SAME_TIME:
            when = self.timers[0]
        self.now = max(self.now, when)

    def register(
        self, fileobj: Any, events: int, data: Any = None
    ) -> selectors.SelectorKey:  # the loop's sockets are real ones
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose `time()` stands still while anything is ready, then jumps to the next timer.

    The clock starts at 0. With nothing ready and no timer, the loop raises `DeadlockError`.

    Threads are real: while a job of `run_in_executor`, `asyncio.to_thread` or `getaddrinfo` runs,
    the clock stands and the loop waits for it. (A job must not itself wait for a timer of this
    loop.) A thread that the loop doesn't know may use `call_soon_threadsafe`, but the loop does
    not wait for it. Sockets work, but time does not: while a timer is set they are polled, and
    lose against it.
    """

    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_forever(self) -> None:
        others, stopwatch.clock = stopwatch.clock, self.time
        try:
            super().run_forever()
        finally:
            stopwatch.clock = others

    def watch(self, look: Callable[[bool], object] | None) -> None:
        """Have ``look(idle)`` called between any two turns of the loop; None ends that.

        ``idle``: nothing is ready any more, and the clock is about to move. What ``look`` raises
        ends the loop's run and is raised there. It must not schedule anything.
        """
        self._virtual.look = look

    def stall(self, seconds: float) -> None:
        """Move the clock at once, as a call that blocks the loop for so long would.

        Every timer that falls due meanwhile fires late: in the order of their times, all in the
        loop's next turn. `ValueError`: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"seconds must not be negative: {seconds!r}")
        self._virtual.now += seconds

    async def settle(self) -> None:
        """Return when all that is ready, and all that becomes ready by it, has run.

        The clock does not move. Never returns while some task is always ready.
        """
        waiter: asyncio.Future[None] = self.create_future()
        self._virtual.settling.append(waiter)
        await waiter

    def call_at(
        self,
        when: float,
        callback: Callable[[*ArgsT], object],
        *args: *ArgsT,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        heapq.heappush(self._virtual.timers, when)
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*ArgsT], ResultT],
        *args: *ArgsT,
    ) -> asyncio.Future[ResultT]:
        future = super().run_in_executor(executor, func, *args)
        self._virtual.threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        self._virtual.threads += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._virtual.threads -= 1

    def _thread_ended(self, _: object) -> None:
        self._virtual.threads -= 1


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """`asyncio.run` on a `VirtualTimeLoop`: what ``main`` returns or raises.

    `DeadlockError`: ``main`` would never end.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def running_loop() -> VirtualTimeLoop:
    """The running `VirtualTimeLoop`; `RuntimeError` where another kind of loop runs, or none."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise RuntimeError(f"this needs a VirtualTimeLoop, and {loop!r} runs")
    return loop


async def settle() -> None:
    """`VirtualTimeLoop.settle` of the running loop."""
    await running_loop().settle()


def stall(seconds: float) -> None:
    """`VirtualTimeLoop.stall` of the running loop."""
    running_loop().stall(seconds)
