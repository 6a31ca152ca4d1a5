"""Errors of the user's hooks are the user's, those of the connection below them the host's."""

import asyncio
from typing import Any

import asyncpg
import pytest
from tests.adapters.on_asyncpg.support import LOST, Bench, Suite, free, interrupted
from tests.support.waiting import PATIENCE, SOON

from pyscopg2.core.adapter import HookError


class ForgottenTenantError(LookupError):
    """An application's."""


class HooksSuite(Suite):
    @pytest.mark.parametrize("name", ["setup", "init"])
    @pytest.mark.parametrize(
        "error", [ForgottenTenantError("tenant"), TypeError("no"), ConnectionRefusedError("cache")]
    )
    async def test_an_error_of_a_hook_is_the_users(
        self, bench: Bench, name: str, error: Exception
    ) -> None:
        is_bad = True

        async def hook(connection: Any) -> None:
            await connection.execute("SELECT 1")
            if is_bad:
                raise error

        async with bench.pool(**{name: hook}) as pool:
            for _ in range(2):
                with pytest.raises(HookError, match=type(error).__name__) as caught:
                    await bench.acquire(pool)
                assert caught.value.__cause__ is error
            is_bad = False
            await bench.all_can_be_taken(pool)

    @pytest.mark.parametrize("name", ["setup", "init"])
    async def test_a_hook_whose_connection_is_lost_is_the_hosts_fault(
        self, bench: Bench, name: str
    ) -> None:
        is_bad = True

        async def hook(connection: Any) -> None:
            if is_bad:
                await bench.psql(f"SELECT pg_terminate_backend({connection.get_server_pid()})")
                await connection.execute("SELECT 1")

        async with bench.pool(**{name: hook}) as pool:
            with pytest.raises(LOST):
                await bench.acquire(pool)
            is_bad = False
            await bench.all_can_be_taken(pool)

    @pytest.mark.parametrize("name", ["setup", "init"])
    async def test_an_error_because_of_a_lost_connection_is_the_hosts_fault(
        self, bench: Bench, name: str
    ) -> None:
        async def hook(connection: Any) -> None:
            connection.terminate()
            raise ForgottenTenantError

        async with bench.pool(**{name: hook}) as pool:
            with pytest.raises(ForgottenTenantError):
                await bench.acquire(pool)

    @pytest.mark.parametrize(
        "error",
        [
            TimeoutError(),
            asyncpg.CannotConnectNowError("starting"),
            asyncpg.InternalClientError("cannot switch"),
        ],
    )
    async def test_an_error_that_speaks_of_the_host_is_the_hosts(
        self, bench: Bench, error: Exception
    ) -> None:
        async def hook(_: Any) -> None:
            raise error

        async with bench.pool(setup=hook) as pool:
            with pytest.raises(type(error)):
                await bench.acquire(pool)

    async def test_the_creation_of_a_pool_raises_the_hooks_own_error(self, bench: Bench) -> None:
        """No user waits for that one."""
        error = ForgottenTenantError("tenant")
        error.__cause__ = cause = ZeroDivisionError()

        async def hook(_: Any) -> None:
            raise error

        with pytest.raises(ForgottenTenantError) as caught:
            async with bench.pool(init=hook, min_size=1):
                pass
        assert caught.value is error
        assert caught.value.__cause__ is cause

    async def test_an_error_of_reset_is_raised_by_the_release(self, bench: Bench) -> None:
        async def reset(_: Any) -> None:
            raise ForgottenTenantError

        async with bench.pool(reset=reset) as pool:
            connection = await bench.acquire(pool)
            with pytest.raises(ForgottenTenantError):
                await bench.release(connection, pool)
            assert free(pool) == 1

    @pytest.mark.parametrize("name", ["setup", "init"])
    async def test_a_hook_that_is_cancelled_on_a_silent_server_ends_at_once(
        self, bench: Bench, name: str
    ) -> None:
        """The driver would close its connection gracefully, and wait for the server to hang up."""
        frozen = asyncio.Event()
        is_bad = True

        async def hook(connection: Any) -> None:
            if is_bad:
                await asyncio.to_thread(bench.cluster.freeze, bench.node)
                frozen.set()
                await connection.execute("SELECT 1")

        async with bench.pool(**{name: hook}) as pool:
            acquiring = asyncio.ensure_future(bench.adapter.acquire_from_pool(pool))
            await asyncio.wait_for(frozen.wait(), PATIENCE)
            acquiring.cancel()
            await asyncio.wait({acquiring}, timeout=SOON)
            try:
                assert acquiring.cancelled()
            finally:
                is_bad = False
                await asyncio.to_thread(bench.cluster.thaw, bench.node)
            await bench.all_can_be_taken(pool)

    @pytest.mark.parametrize("again", [False, True], ids=["once", "at every await"])
    async def test_cancelled_wherever_an_acquire_with_hooks_costs_no_slot(
        self, bench: Bench, again: bool
    ) -> None:
        async def hook(connection: Any) -> None:
            await connection.execute("SELECT 1")

        async with bench.pool(setup=hook, init=hook) as pool:
            for turn in range(100):
                try:
                    acquiring = bench.adapter.acquire_from_pool(pool)
                    connection = await interrupted(acquiring, turn, again=again)
                except asyncio.CancelledError:
                    connection = await bench.acquire(pool)
                    bench.adapter.terminate_connection(connection)
                    await bench.release(connection, pool)
                else:
                    await bench.release(connection, pool)
                    break
            else:
                raise AssertionError("it suspends for ever")
            assert turn > 5
            await bench.all_can_be_taken(pool)

    async def test_a_users_own_way_to_connect_may_make_what_it_likes(self, bench: Bench) -> None:
        async def connect(*args: Any, **kwargs: Any) -> Any:
            del kwargs["connection_class"], kwargs["record_class"]
            return await asyncpg.connect(*args, **kwargs)

        async with bench.pool(connect=connect, max_size=2) as pool:
            connection = await bench.acquire(pool)
            await connection.executemany("INSERT INTO items VALUES ($1)", [("x",)])
            await bench.release(connection, pool)
            await bench.all_can_be_taken(pool)
