"""The part of `pyscopg2.testing.contract` on pools: their sizes and options, and their making."""

import asyncio
import itertools
import socket
from typing import Generic, cast
from urllib.parse import quote

import pytest

from pyscopg2.core.adapter import ChecksOptions, ConnT, CountsIdle, PoolT, Reserves
from pyscopg2.core.dsn import parse_dsn
from pyscopg2.testing.bench import Bench, cancelled_at, chain, without_garbage_collector
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("PoolContract",)


class PoolContract(Generic[PoolT, ConnT]):
    """A part of `AdapterContract`."""

    @in_own_loop
    async def test_a_pool_has_room_for_its_users_and_a_monitor_that_takes_from_it(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        """The monitor does not where the adapter `Reserves`: then the room is the users' own."""
        room = 3 if isinstance(bench.adapter, Reserves) else 4
        async with bench.pool_of_size(1, 3) as pool:
            size = bench.size_of(pool)
            assert size == room, (
                f"get_pool_maxsize() is {size} of a pool for 3 users, not {room}: the monitor's own"
                " connection is one more, but where the adapter `Reserves`"
            )
            taken = await bench.take(pool, room)
            pids = {await bench.pid_of(connection) for connection in taken}
            assert len(pids) == room, "two who acquired have been given the same connection"
            for connection in taken:
                await bench.release(connection, pool)

    @in_own_loop
    async def test_idle_connections_are_counted(self, bench: Bench[PoolT, ConnT]) -> None:
        """Where the adapter `CountsIdle`."""
        if not isinstance(bench.adapter, CountsIdle):
            pytest.skip("the adapter does not count them")
        adapter = cast("CountsIdle[PoolT]", bench.adapter)
        idle_in = adapter.get_pool_idle_size
        async with bench.pool_of_size(1, 3) as pool:
            taken = await bench.take(pool, 3)
            idle = idle_in(pool)
            assert idle == 0, f"get_pool_idle_size() is {idle}, and all connections are out"
            for connection in taken:
                await bench.release(connection, pool)
            idle = idle_in(pool)
            assert 1 <= idle <= 3, f"get_pool_idle_size() is {idle}, and three have come back"
            limits = least, most = adapter.get_pool_idle_limits(pool)
            told = f"get_pool_idle_limits() is {limits}, and {idle} are idle"
            assert 0 <= least <= idle <= most, told

    @in_own_loop
    async def test_a_refused_connect_is_known_when_the_pool_is_created(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            (target,) = parse_dsn(f"postgresql://u:p@127.0.0.1:{unused.getsockname()[1]}/d")
            error = await bench.fails(
                bench.create(target), "nobody listens there, and create_pool() is to say so"
            )
        is_drivers = not isinstance(error, TimeoutError | TypeError | ValueError)
        assert is_drivers, f"create_pool() hides the driver's own error: {error!r}"
        told = bench.adapter.sqlstate(error)
        assert told is None, f"sqlstate() tells {told}, where no server has said anything"

    @pytest.mark.parametrize(
        ("change", "sqlstate"),
        [({"password": "wrong-s3cret"}, "28P01"), ({"dbname": "nowhere"}, "3D000")],
        ids=["wrong password", "unknown database"],
    )
    @in_own_loop
    async def test_a_server_that_refuses_says_why(
        self, bench: Bench[PoolT, ConnT], change: dict[str, str], sqlstate: str
    ) -> None:
        creating = bench.create(bench.target(**change))
        error = await bench.fails(creating, "the server refused, and create_pool() is to say so")
        bench.tells(error, sqlstate)
        told = [str(link) for link in chain(error)]
        assert all("wrong-s3cret" not in each for each in told), "the error shows the password"

    @in_own_loop
    async def test_a_pool_demands_what_its_dsn_demands(self, bench: Bench[PoolT, ConnT]) -> None:
        """The server has no TLS. `ValueError` is an answer, too: what a driver can't do."""
        demanding = bench.create(bench.target(params="&sslmode=verify-full"))
        await bench.fails(
            demanding,
            "sslmode=verify-full, and the server has no TLS: this DSN's parameters are dropped",
        )

    @in_own_loop
    async def test_what_a_dsn_sets_arrives(self, bench: Bench[PoolT, ConnT]) -> None:
        target = bench.target(params=f"&options={quote('-c geqo=off -c work_mem=765kB')}")
        pool = await bench.create(target)
        try:
            for connection in await bench.take(pool, bench.size_of(pool)):
                for name, value in (
                    ("application_name", bench.name),
                    ("geqo", "off"),
                    ("work_mem", "765kB"),
                ):
                    told = await bench.fetch(connection, f"SHOW {name}")
                    assert told == value, f"{name} of the DSN (options, application_name): dropped"
                bench.adapter.terminate_connection(connection)
                await bench.release_quietly(connection, pool)
        finally:
            await bench.adapter.terminate_pool(pool)

    @in_own_loop
    async def test_a_connect_takes_no_longer_than_its_dsn_says(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        """`ValueError` is an answer, too: what a driver can't do."""
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            host = f"127.0.0.1:{silent.getsockname()[1]}"
            (target,) = parse_dsn(f"postgresql://u:p@{host}/d?connect_timeout=2")
            creating = bench.create(target, **bench.sizes(0, 1))
            await bench.fails(creating, "connect_timeout=2, and the server says nothing")

    @in_own_loop
    async def test_an_unknown_pool_option_is_an_error_at_once(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        creating = bench.create(bench.target(), no_such_option=1)
        await bench.refuses(creating, TypeError, "create_pool() knows no `no_such_option`")

    def test_what_is_refused_may_be_known_before(self, bench: Bench[PoolT, ConnT]) -> None:
        """By an adapter that `ChecksOptions`, without connecting, and without an event loop."""
        if not isinstance(bench.adapter, ChecksOptions):
            pytest.skip("the adapter does not check options by themselves")
        options = {**bench.subject.options, **bench.sizes(1, 2)}
        bench.adapter.check_options(bench.target(), **options)
        try:
            bench.adapter.check_options(bench.target(), **options, no_such_option=1)
        except TypeError:
            return
        pytest.fail("check_options() took an option that there is not, `no_such_option`")

    @in_own_loop
    async def test_a_pool_whose_creation_is_cancelled_leaves_nothing(
        self, bench: Bench[PoolT, ConnT]
    ) -> None:
        bench.cluster.freeze(bench.node)
        creation = asyncio.ensure_future(bench.create(bench.target()))
        await asyncio.sleep(0.05)
        creation.cancel()
        bench.cluster.thaw(bench.node)
        await bench.end(creation)
        assert creation.cancelled(), "create_pool() was cancelled, and did not end as cancelled"

    @pytest.mark.parametrize("late", [False, True], ids=["waiting", "just answered"])
    @in_own_loop
    async def test_a_pool_whose_creation_is_cancelled_closes_its_sockets(
        self, bench: Bench[PoolT, ConnT], late: bool
    ) -> None:
        """Wherever it is cancelled, and without the garbage collector."""
        bench.needs("cancels_connects")
        with without_garbage_collector():
            for turn in itertools.count():
                creation = asyncio.ensure_future(
                    cancelled_at(bench.create(bench.target()), turn, late)
                )
                await bench.end(creation)
                if not creation.cancelled():
                    assert not creation.cancelling(), "a cancelled create_pool() went on"
                    await bench.adapter.terminate_pool(creation.result())
                    await bench.sockets_close()
                    break
                # Its exception has a traceback, which may refer to sockets.
                del creation
                await bench.sockets_close()
