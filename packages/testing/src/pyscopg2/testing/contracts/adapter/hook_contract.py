"""The part of `pyscopg2.testing.contract` on what users have their driver do at each acquire."""

from collections.abc import Coroutine
from typing import Any, Generic

import pytest

from pyscopg2.core.adapter import ConnT, HookError, PoolT, Reserves
from pyscopg2.testing.bench import Bench
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("HookContract",)


class HookContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`, for subjects that declare a hook."""

    @pytest.fixture
    def hooked(self, bench: Bench[PoolT, ConnT]) -> "Hooked[PoolT, ConnT]":
        return Hooked(bench)

    @in_own_loop
    async def test_a_hook_is_called_at_each_acquire(self, hooked: "Hooked[PoolT, ConnT]") -> None:
        bench = hooked.bench
        async with bench.pool(0, 2, **hooked.options) as pool:
            for calls in range(1, 4):
                connection = await bench.acquire(pool)
                assert hooked.calls == calls, "the hook is called once at each acquire"
                await bench.release(connection, pool)
                assert hooked.calls == calls, "the hook is called at a release"

    @in_own_loop
    async def test_the_error_of_a_hook_is_told_as_the_hooks(
        self, hooked: "Hooked[PoolT, ConnT]"
    ) -> None:
        """Whatever it is: the driver may take it for the host's."""
        bench = hooked.bench
        async with bench.pool(0, 2, **hooked.options) as pool:
            await bench.all_slots_are_free(pool)
            for error in (ZeroDivisionError("the hook's"), LookupError("the hook's")):
                hooked.error = error
                for _ in range(4):  # more than there are slots
                    failure = await bench.fails(bench.acquire(pool), "the user's hook failed")
                    is_told = isinstance(failure, HookError) and failure.__cause__ is error
                    assert is_told, f"a HookError from the hook's own error, not {failure!r}"
                hooked.error = None
                await bench.all_slots_are_free(pool)

    @in_own_loop
    async def test_what_is_reserved_is_no_acquire(self, hooked: "Hooked[PoolT, ConnT]") -> None:
        bench = hooked.bench
        adapter = bench.adapter
        if not isinstance(adapter, Reserves):
            pytest.skip("the monitor takes its connection from the adapter's pool")
        hooked.error = ZeroDivisionError("the hook's")
        options = {**bench.subject.options, **bench.sizes(0, 1), **hooked.options}
        try:
            reserved = await adapter.reserve(bench.target(), **options)
        except Exception as exc:
            pytest.fail(f"the user's hook was run for the monitor's connection: {exc!r}")
        try:
            answer = await reserved.fetch_scalar("SELECT 'well'")
            assert answer == "well", "fetch_scalar() of the reserved connection"
        finally:
            reserved.terminate()
        assert hooked.calls == 0, "the user's hook was run for the monitor's connection"


class Hooked(Generic[PoolT, ConnT]):
    """The hook, and the pool's options with which the driver calls it."""

    def __init__(self, bench: Bench[PoolT, ConnT]) -> None:
        if bench.subject.hooks is None:
            pytest.skip("the subject has no hooks")
        self.bench = bench
        self.calls = 0
        self.error: Exception | None = None
        """What it raises."""
        self.options: dict[str, Any] = dict(bench.subject.hooks(self))

    def run(self, main: Coroutine[Any, Any, None], /) -> None:
        self.bench.run(main)

    def __call__(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error
