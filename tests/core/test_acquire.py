"""How a connection is acquired, by role and by argument."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.core.conftest import Bench, in_use, make, now, virtual

from pyscopg2.base import AcquireContext
from pyscopg2.core.errors import AcquireTimeoutError
from pyscopg2.testing.fake import FakeConnection

Acquiring = AcquireContext[FakeConnection]


@virtual
async def test_by_role() -> None:
    async with Bench(replicas=2) as bench:
        manager = bench.manager
        takes: list[tuple[Callable[[], Acquiring], set[str]]] = [
            (manager.acquire, {"db1"}),
            (manager.acquire_master, {"db1"}),
            (manager.acquire_replica, {"db2", "db3"}),
            (lambda: manager.acquire(True), {"db2", "db3"}),
            (lambda: manager.acquire(read_only=True), {"db2", "db3"}),
        ]
        for take, hosts in takes:
            seen: set[str] = set()
            for _ in range(30):
                async with take() as connection:
                    seen.add(connection.server.name)
            assert seen == hosts
        assert in_use(manager) == 0


@virtual
async def test_await_it_or_enter_it() -> None:
    async with Bench() as bench:
        connection = await bench.manager.acquire()
        assert in_use(bench.manager) == 1
        await bench.manager.release(connection)
        assert in_use(bench.manager) == 0
        async with bench.manager.acquire() as connection:
            assert in_use(bench.manager) == 1
        assert in_use(bench.manager) == 0


@virtual
async def test_each_object_is_used_once() -> None:
    async with Bench() as bench:
        acquire = bench.manager.acquire()
        with pytest.raises(RuntimeError, match="has not been entered"):
            await acquire.__aexit__(None, None, None)
        async with acquire:
            with pytest.raises(RuntimeError, match="entered before"):
                await acquire.__aenter__()
        with pytest.raises(RuntimeError, match="entered before"):
            await acquire
        assert in_use(bench.manager) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"master_as_replica_weight": 0.5}, ValueError),
        ({"master_as_replica_weight": 0.0}, ValueError),
        ({"read_only": True, "master_as_replica_weight": 1.01}, ValueError),
        ({"read_only": True, "master_as_replica_weight": -1}, ValueError),
        ({"read_only": True, "master_as_replica_weight": "1"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"read_only": True, "timeout": float("nan")}, ValueError),
    ],
)
def test_arguments_of_acquire_that_are_refused_at_once(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    name = next(reversed(arguments))
    with pytest.raises(error, match=f"^{name}"):
        make().acquire(**arguments)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("acquire_master", {"timeout": -1}),
        ("acquire_replica", {"timeout": -1}),
        ("acquire_replica", {"master_as_replica_weight": 2}),
        ("acquire_replica", {"timeout": 10**400}),
    ],
)
def test_so_are_those_by_role(verb: str, arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=f"^{name}"):
        getattr(make(), verb)(**arguments)


@pytest.mark.parametrize("flag", ["master", "", 0, 1, 5, None, [], 1.0])
def test_a_flag_that_is_no_bool_is_refused(flag: Any) -> None:
    manager = make()
    text = "^{} must be True or False, not "
    with pytest.raises(TypeError, match=text.format("read_only")):
        manager.acquire(flag)
    if flag is None:
        return
    for acquire in (partial(manager.acquire, True), manager.acquire, manager.acquire_replica):
        with pytest.raises(TypeError, match=text.format("fallback_master")):
            acquire(fallback_master=flag)


@pytest.mark.parametrize("flag", ["false", 0, 1])
@virtual
async def test_so_it_is_for_pools(flag: Any) -> None:
    async with Bench() as bench:
        for work in (
            bench.manager.get_pool(flag),
            bench.manager.get_pool(True, flag),
            bench.manager.get_replica_pools(flag),
        ):
            with pytest.raises(TypeError, match="must be True or False"):
                await work


@virtual
async def test_positional_arguments() -> None:
    async with Bench(replicas=0) as bench:
        for acquire in (
            bench.manager.acquire(True, True, 0.0, 0.5),
            bench.manager.acquire_master(0.5),
            bench.manager.acquire_replica(True, 0.0, 0.5),
        ):
            async with acquire as connection:
                assert connection.server is bench["db1"]
        began = now()
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire(True, False, None, 0.25)
        assert now() == began + 0.25


@pytest.mark.parametrize("verb", ["acquire", "acquire_master", "acquire_replica"])
@virtual
async def test_what_the_driver_does_not_know_is_a_type_error_at_once(verb: str) -> None:
    async with Bench() as bench:
        began = now()
        with pytest.raises(TypeError, match="colour"):
            await getattr(bench.manager, verb)(colour=3)
        assert now() == began
        assert in_use(bench.manager) == 0
        await bench.check()
        assert bench.roles == "master replica"


@virtual
async def test_fallback_master() -> None:
    async with Bench(fallback_master=True) as bench:
        async with bench.manager.acquire_replica() as connection:
            assert connection.server is bench["db2"]
        bench["db2"].down()
        await bench.until_roles("master unavailable")
        async with bench.manager.acquire_replica() as connection:
            assert connection.server is bench["db1"]
        with pytest.raises(AcquireTimeoutError):
            await bench.manager.acquire_replica(fallback_master=False)


@pytest.mark.parametrize(
    ("setting", "argument", "hosts"),
    [
        (0.0, None, {"db2"}),
        (0.0, 1.0, {"db1", "db2"}),
        (1.0, None, {"db1", "db2"}),
        (1, 0, {"db2"}),
    ],
)
@virtual
async def test_master_as_replica_weight(
    setting: float, argument: float | None, hosts: set[str]
) -> None:
    async with Bench(master_as_replica_weight=setting) as bench:
        seen: set[str] = set()
        for _ in range(50):
            async with bench.manager.acquire_replica(master_as_replica_weight=argument) as got:
                seen.add(got.server.name)
        assert seen == hosts
        async with bench.manager.acquire() as got:
            assert got.server is bench["db1"]


@virtual
async def test_the_weight_is_a_probability() -> None:
    async with Bench(replicas=1, master_as_replica_weight=0.5) as bench:
        await bench.manager.acquire()  # a greedy policy takes db2 when both are candidates
        masters = 0
        for _ in range(1000):
            connection = await bench.manager.acquire_replica()
            masters += connection.server is bench["db1"]
            await bench.manager.release(connection)
        assert masters == 0
        held = [await bench.manager.acquire_replica(master_as_replica_weight=0) for _ in range(5)]
        for _ in range(1000):
            connection = await bench.manager.acquire_replica()
            masters += connection.server is bench["db1"]
            await bench.manager.release(connection)
        assert 430 < masters < 570
        for connection in held:
            await bench.manager.release(connection)


_FORGOTTEN = """
from tests.core.conftest import make

make().acquire_master()
make().acquire_replica(max_lag=1.0)
make().acquire().close()
"""


@virtual
async def test_one_that_was_closed_is_used_up() -> None:
    async with Bench() as bench:
        await bench.manager.ready()
        acquiring = bench.manager.acquire()
        acquiring.close()
        with pytest.raises(RuntimeError, match="call acquire"):
            await acquiring
        taken = bench.manager.acquire()
        connection = await taken
        taken.close()  # changes nothing
        await bench.manager.release(connection)


@pytest.mark.parametrize("dev_mode", [True, False])
def test_one_that_was_never_awaited_is_told_in_pythons_development_mode(dev_mode: bool) -> None:
    flags = ("-X", "dev") if dev_mode else ()
    done = subprocess.run(
        [sys.executable, *flags, "-c", _FORGOTTEN],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    warning = "RuntimeWarning: acquire() was never awaited or entered"
    assert done.stderr.count(warning) == (2 if dev_mode else 0)
