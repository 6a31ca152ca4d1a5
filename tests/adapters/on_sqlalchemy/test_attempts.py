"""Attempts over SQLAlchemy: its transactions, and its errors of lost connections."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from pyscopg2.testing.cluster import LocalCluster

from .support import MakeManager

INSERT = text("INSERT INTO notes (body) VALUES (:body)")


async def test_a_block_is_run_once_more_and_what_was_lost_is_not_there(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    errors: list[DBAPIError] = []
    async for attempt in manager.attempts():
        async with attempt as connection:
            await connection.execute(INSERT, {"body": f"attempt {len(errors)}"})
            async with connection.begin_nested():
                await connection.execute(INSERT, {"body": "nested"})
            if not errors:
                pid = await connection.scalar(text("SELECT pg_backend_pid()"))
                cluster.psql(cluster.primary, f"SELECT pg_terminate_backend({pid}, 5000)")
                try:
                    await connection.execute(text("SELECT 1"))
                except DBAPIError as exc:
                    errors.append(exc)
                    raise
    (error,) = errors
    assert manager.is_lost(error)
    assert manager.is_lost(ExceptionGroup("of tasks", [error, error]))
    written = cluster.psql(cluster.primary, "SELECT string_agg(body, ', ' ORDER BY id) FROM notes")
    assert written == "attempt 1, nested"
    cluster.psql(cluster.primary, "TRUNCATE notes")


async def test_an_error_of_the_users_is_raised_and_rolled_back(
    make_manager: MakeManager, cluster: LocalCluster
) -> None:
    manager = make_manager()
    blocks = 0
    with pytest.raises(IntegrityError) as raised:
        async for attempt in manager.attempts():
            async with attempt as connection:
                blocks += 1
                await connection.execute(INSERT, {"body": "written"})
                await connection.execute(INSERT, {"body": None})
    assert blocks == 1
    assert not manager.is_lost(raised.value)
    assert cluster.psql(cluster.primary, "SELECT count(*) FROM notes") == "0"


async def test_where_each_statement_commits_by_itself_there_are_no_attempts(
    make_manager: MakeManager,
) -> None:
    manager = make_manager(pool_factory_kwargs={"isolation_level": "AUTOCOMMIT"})
    with pytest.raises(ValueError, match="AUTOCOMMIT"):
        async for attempt in manager.attempts():
            async with attempt:
                pytest.fail("the block must not begin")
    async for attempt in manager.attempts(read_only=True, fallback_master=True):
        async with attempt as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
