"""The part of `pyscopg2.testing.manager_contract` on how a manager is closed and terminated."""

import asyncio
import inspect
import os
import subprocess
import sys
from typing import Generic

import pytest

from pyscopg2.core.adapter import ConnT, PoolT
from pyscopg2.core.errors import PoolManagerClosedError
from pyscopg2.testing.bench import SOON
from pyscopg2.testing.contracts.manager.desk import Desk
from pyscopg2.testing.contracts.own_loop import in_own_loop

__all__ = ("EndContract",)

PROGRAM = """
import asyncio
import importlib
import importlib.util
import operator
import sys

module, file, name, dsn = sys.argv[1:]
try:
    found = importlib.import_module(module)
except ImportError:
    # A test's module, perhaps.
    spec = importlib.util.spec_from_file_location(module, file)
    found = sys.modules[module] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
PoolManager = operator.attrgetter(name)(found)


async def main():
    manager = PoolManager(dsn, acquire_timeout=30)
    await manager.ready()
    held = await manager.acquire_master()
    print("ready", flush=True)
    await asyncio.to_thread(input)
    return manager, held


asyncio.run(main())
print("done", flush=True)
"""
"""It closes nothing and gives nothing back."""

UNCLOSED = (
    *("-W", "error::ResourceWarning"),
    *("-W", "ignore:unclosed pool manager:ResourceWarning"),
)
"""What Python is told with it: all that is left open shows, but for the manager, which says so."""


class EndContract(Generic[PoolT, ConnT]):
    """A part of `ManagerContract`."""

    @in_own_loop
    async def test_close_waits_for_what_is_out_and_refuses_the_rest(
        self, desk: Desk[PoolT, ConnT]
    ) -> None:
        async with desk.manager() as manager:
            pool = await manager.get_pool(read_only=False)
            held = await desk.hold_all(manager, desk.cluster.primary)
            waiting = asyncio.ensure_future(desk.writer(manager))
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(manager.close())
            with pytest.raises(PoolManagerClosedError):
                await waiting
            for use in (manager.acquire, manager.acquire_master, manager.acquire_replica):
                with pytest.raises(PoolManagerClosedError):
                    await use()
            for connection in held:
                assert not closing.done(), "close() did not wait for what is out"
                assert await desk.server_of(manager, connection) == desk.cluster.primary.name, (
                    "what is out works while close() waits"
                )
                await manager.release(connection)
            await asyncio.wait_for(closing, SOON)
            await manager.close(timeout=0)
            await manager.terminate()
            assert manager.pools == (), "a closed manager has pools"
            with pytest.raises(PoolManagerClosedError):
                await manager.acquire_from_pool(pool)
            for wait in (
                manager.ready,
                manager.wait_next_pool_check,
                manager.wait_all_ready,
                manager.get_master_pools,
                manager.get_replica_pools,
            ):
                with pytest.raises(PoolManagerClosedError):
                    await wait()

    @pytest.mark.parametrize("how", ["close", "terminate", "block"])
    @in_own_loop
    async def test_what_is_still_out_is_terminated(
        self, desk: Desk[PoolT, ConnT], how: str
    ) -> None:
        desk.needs("terminates_queries")
        async with desk.manager() as manager:
            connection, idle = [await manager.acquire() for _ in range(2)]
            query = desk.start_sleeping(connection)
            await desk.sleeps()
            async with asyncio.timeout(SOON):
                if how == "close":
                    await manager.close(timeout=0.05)
                elif how == "terminate":
                    await manager.terminate()
                else:
                    with pytest.raises(ZeroDivisionError):
                        async with manager:
                            raise ZeroDivisionError
                with pytest.raises(desk.subject.errors):
                    await query
            for each in (connection, idle):
                assert manager.is_connection_closed(each), (
                    "is_connection_closed() of what was terminated"
                )
                await manager.release(each)

    @pytest.mark.parametrize("frozen", [False, True], ids=["well", "frozen"])
    def test_a_program_that_closes_nothing_ends_at_once(
        self, broken_desk: Desk[PoolT, ConnT], frozen: bool
    ) -> None:
        desk = broken_desk
        manager = desk.subject.manager
        file = inspect.getfile(manager)
        names = (manager.__module__, file, manager.__qualname__, desk.dsn())
        with subprocess.Popen(
            [sys.executable, *UNCLOSED, "-c", PROGRAM, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # What can be imported here, can be there.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        ) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                process.kill()
                pytest.fail(f"the program did not get ready:\n{process.communicate()[1]}")
            if frozen:
                desk.cluster.freeze(desk.cluster.primary)
            try:
                out, err = process.communicate("\n", timeout=SOON)
            except subprocess.TimeoutExpired:
                process.kill()
                told = process.communicate()[1]
                pytest.fail(f"the program did not end within {SOON:g} s; it says:\n{told}")
        assert out == "done\n", f"the program did not come to its end:\n{err}"
        assert process.returncode == 0, f"the program failed:\n{err}"
        assert desk.without_noise([err]) == [], "the program complains"
