"""What one process writes another one reads, where one replica is late: with `pyscopg2.asgi`."""

import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.support.waiting import eventually

from pyscopg2.asgi import CausalMiddleware
from pyscopg2.asyncpg import PoolManager
from pyscopg2.balancer_policy import RoundRobinBalancerPolicy
from pyscopg2.testing.cluster import LocalCluster, Node

from .support import BROKEN, MakeManager, fetchval

SECRET = "a secret of the tests: 32 bytes."
PAIRS = 40
INSERT = "INSERT INTO writes VALUES ('one more')"


def service(manager: PoolManager) -> CausalMiddleware:
    """One process: each ``POST`` inserts a row, ``GET /`` tells how many a replica has."""

    async def block(_: Request) -> Response:
        async with manager.acquire_master() as connection:
            await connection.execute(INSERT)
        return PlainTextResponse("written")

    async def lost(_: Request) -> Response:
        """The connection is lost after the commit: nobody can ask over it how far the log is."""
        with contextlib.suppress(*BROKEN):
            async with manager.acquire_master() as connection:
                await connection.execute(INSERT)
                manager.adapter.terminate_connection(connection)
        return PlainTextResponse("written")

    async def held(_: Request) -> Response:
        """The block ends after the response."""
        connection = await manager.acquire_master()
        await connection.execute(INSERT)
        return PlainTextResponse("written", background=BackgroundTask(manager.release, connection))

    async def read(_: Request) -> Response:
        async with manager.acquire_replica() as connection:
            return PlainTextResponse(str(await connection.fetchval("SELECT count(*) FROM writes")))

    writes = [Route(f"/{each.__name__}", each, methods=["POST"]) for each in (block, lost, held)]
    app = Starlette(routes=[*writes, Route("/", read)])
    return CausalMiddleware(app, manager, SECRET)


@contextlib.contextmanager
def late(cluster: LocalCluster, node: Node) -> Generator[None]:
    """This replica replays half a second late."""
    cluster.psql(node, "ALTER SYSTEM SET recovery_min_apply_delay = '500ms'")
    cluster.psql(node, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        cluster.psql(node, "ALTER SYSTEM RESET recovery_min_apply_delay")
        cluster.psql(node, "SELECT pg_reload_conf()")


@contextlib.asynccontextmanager
async def client_of(*apps: Any) -> AsyncGenerator[list[httpx.AsyncClient]]:
    """One client with one jar of cookies, as it is seen by each process."""
    cookies = httpx.Cookies()
    async with contextlib.AsyncExitStack() as stack:
        clients: list[httpx.AsyncClient] = []
        for app in apps:
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url="https://service.test"
            )
            # Not a copy, as the argument would be.
            client.cookies.jar = cookies.jar
            clients.append(await stack.enter_async_context(client))
        yield clients


@pytest.mark.parametrize(
    ("how", "carries"),
    [("block", True), ("lost", True), ("held", True), ("block", False)],
    ids=["block", "lost", "held", "without the cookie"],
)
async def test_a_read_by_another_process_never_misses(
    how: str, carries: bool, breakable_cluster: LocalCluster, make_manager: MakeManager
) -> None:
    cluster = breakable_cluster
    with late(cluster, cluster.replicas[1]):

        async def is_late() -> bool:
            sql = "SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay'"
            return str(await fetchval(cluster.replicas[1], sql)) == "500"

        await eventually(is_late, "the replica is late")
        managers = [make_manager(balancer_policy=RoundRobinBalancerPolicy) for _ in range(2)]
        for manager in managers:
            await manager.ready()
        async with client_of(*map(service, managers)) as clients:
            misses = 0
            for written in range(1, PAIRS + 1):
                writer, reader = clients[written % 2], clients[1 - written % 2]
                assert (await writer.post(f"/{how}")).status_code == 200
                if not carries:
                    writer.cookies.clear()
                response = await reader.get("/")
                assert response.status_code == 200
                misses += int(response.text) < written
    if carries:
        assert misses == 0
    else:
        assert misses > 0, "nothing was late: the other half of this test shows nothing"
