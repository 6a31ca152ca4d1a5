"""One process of a service: ``python -m tools.causal_web.service``, which prints its port.

The DSN and the secret come by the environment.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Request

from pyscopg2.asgi import CausalMiddleware
from pyscopg2.asyncpg import PoolManager
from pyscopg2.balancer_policy import RoundRobinBalancerPolicy

TABLE = "CREATE TABLE causal_web (id bigint PRIMARY KEY)"
DSN, SECRET = "CAUSAL_WEB_DSN", "CAUSAL_WEB_SECRET"


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, PoolManager]]:
    options = {"min_size": 1, "max_size": 5}
    # By turns: without a token every second read would be the late replica's.
    policy = RoundRobinBalancerPolicy
    async with PoolManager(
        os.environ[DSN], 10.0, balancer_policy=policy, pool_factory_kwargs=options
    ) as manager:
        await manager.ready()
        yield {"manager": manager}


def manager_of(request: Request) -> PoolManager:
    manager: PoolManager = request.state.manager
    return manager


Manager = Annotated[PoolManager, Depends(manager_of)]


async def writer(manager: Manager) -> AsyncGenerator[Any]:
    """FastAPI ends this after the response was sent."""
    async with manager.acquire_master() as connection:
        yield connection


app = FastAPI(lifespan=lifespan)
INSERT = "INSERT INTO causal_web VALUES ($1)"


@app.post("/in-handler/{number}")
async def write_in_handler(number: int, manager: Manager) -> None:
    """The block ends before the response starts."""
    async with manager.acquire_master() as connection:
        await connection.execute(INSERT, number)


@app.post("/in-dependency/{number}")
async def write_in_dependency(number: int, connection: Annotated[Any, Depends(writer)]) -> None:
    """The block ends after the response."""
    await connection.execute(INSERT, number)


@app.get("/{number}")
async def read(number: int, manager: Manager) -> dict[str, bool | str]:
    async with manager.acquire_replica() as connection:
        row = await connection.fetchrow(
            "SELECT current_setting('cluster_name') AS server,"
            " EXISTS (SELECT FROM causal_web WHERE id = $1) AS found",
            number,
        )
    assert row is not None
    return {"found": row["found"], "server": row["server"]}


def main() -> None:
    middleware = CausalMiddleware(
        app, lambda scope: scope["state"]["manager"], os.environ[SECRET], secure=False
    )
    server = uvicorn.Server(uvicorn.Config(middleware, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        asyncio.run(server.serve([listening]))


if __name__ == "__main__":
    main()
