"""What people do with SQLAlchemy: on a manager's engine it comes out as on an engine of their own.

Each idiom is a function that returns what its user would see. It is run over
`create_async_engine`, and over `PoolManager.engine`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, cast

import pytest
from sqlalchemy import (
    ForeignKey,
    Table,
    UniqueConstraint,
    bindparam,
    delete,
    event,
    func,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncAttrs,
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)
from sqlalchemy.util import greenlet_spawn
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.testing.cluster import LocalCluster

from .support import TESTED, MakeManager, free, with_driver

Sessions: TypeAlias = async_sessionmaker[AsyncSession]
Seen: TypeAlias = list[Any]
Idiom: TypeAlias = Callable[[AsyncEngine, Sessions], Awaitable[Seen]]

IDIOMS: list[Idiom] = []


def idiom(function: Idiom) -> Idiom:
    IDIOMS.append(function)
    return function


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    age: Mapped[int] = mapped_column(default=0, server_default="0")
    books: Mapped[list[Book]] = relationship(
        back_populates="author", cascade="all, delete-orphan", order_by="Book.id"
    )


class Book(Base):
    __tablename__ = "books"
    __table_args__ = (
        UniqueConstraint("title", name="at_the_end", deferrable=True, initially="DEFERRED"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")


AUTHORS = cast(Table, Author.__table__)


@pytest.fixture(scope="module")
def tables(cluster: LocalCluster) -> Iterator[None]:
    cluster.psql(
        cluster.primary,
        "CREATE TABLE authors (id serial PRIMARY KEY, name text NOT NULL UNIQUE,"
        " age int NOT NULL DEFAULT 0);"
        "CREATE TABLE books (id serial PRIMARY KEY, title text NOT NULL"
        " CONSTRAINT at_the_end UNIQUE DEFERRABLE INITIALLY DEFERRED,"
        " author_id int NOT NULL REFERENCES authors);",
    )
    yield
    cluster.psql(cluster.primary, "DROP TABLE books, authors")


async def names(session: AsyncSession) -> list[str]:
    return list(await session.scalars(select(Author.name).order_by(Author.id)))


async def scalar(on: AsyncSession | AsyncConnection, sql: str) -> Any:
    return (await on.execute(text(sql))).scalar()


def noting(seen: Seen, name: str) -> Callable[..., None]:
    def listen(*_: Any) -> None:
        seen.append(name)

    return listen


def fail() -> None:
    raise RuntimeError("the block's own")


@asynccontextmanager
async def shown(seen: Seen) -> AsyncGenerator[None]:
    """What the block raises, as its user tells it apart."""
    try:
        yield
    except Exception as exc:
        seen.append(type(exc).__name__)
        if isinstance(exc, DBAPIError):
            seen.append((getattr(exc.orig, "sqlstate", None), exc.connection_invalidated))


@asynccontextmanager
async def lost(seen: Seen) -> AsyncGenerator[None]:
    """The same for a connection that is gone. How asyncpg says so is a matter of chance."""
    try:
        yield
    except DBAPIError as exc:
        seen.append(exc.connection_invalidated)


# Sessions


@idiom
async def flush_and_autoflush(_: AsyncEngine, sessions: Sessions) -> Seen:
    async with sessions() as session:
        author = Author(name="a")
        session.add(author)
        before = author.id
        await session.flush()
        session.add(Author(name="b"))
        found = await names(session)
        await session.rollback()
        return [before, author.id, found, await names(session), session.in_transaction()]


@idiom
async def commit_and_go_on(_: AsyncEngine, sessions: Sessions) -> Seen:
    async with sessions() as session:
        session.add(Author(name="a"))
        await session.commit()
        in_transaction = session.in_transaction()
        session.add(Author(name="b"))
        await session.commit()
        session.add(Author(name="never"))
        await session.flush()
    async with sessions() as session:
        return [in_transaction, await names(session)]


@idiom
async def blocks_that_begin(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions.begin() as session:
        session.add(Author(name="kept"))
    async with shown(seen), sessions.begin() as session:
        session.add(Author(name="lost"))
        await session.flush()
        fail()
    async with sessions() as session:
        async with session.begin():
            session.add(Author(name="kept, too"))
        async with session.begin():
            async with shown(seen):
                await session.begin()
            seen.append(await names(session))
    return seen


@idiom
async def savepoints(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions.begin() as session:
        session.add(Author(name="a"))
        async with session.begin_nested() as savepoint:
            session.add(Author(name="undone"))
            await session.flush()
            await savepoint.rollback()
        async with shown(seen), session.begin_nested():
            session.add(Author(name="a"))
            await session.flush()
        async with session.begin_nested(), session.begin_nested():
            session.add(Author(name="deep"))
        seen.append(session.in_nested_transaction())
    async with sessions() as session:
        return [*seen, await names(session)]


@idiom
async def streaming(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions() as session:
        numbers = text("SELECT generate_series(1, 1000)")
        result = await session.stream(numbers.execution_options(yield_per=100))
        seen.append(sum([row[0] async for row in result]))
        scalars = await session.stream_scalars(text("SELECT generate_series(1, 1000)"))
        async for part in scalars.partitions(300):
            seen.append(len(part))
        left = await session.stream(numbers.execution_options(yield_per=10))
        seen.append((await left.fetchone()) is not None)
        await left.close()
        seen.append(await scalar(session, "SELECT 1"))
    return seen


@idiom
async def bulk(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions.begin() as session:
        rows: list[dict[str, Any]] = [
            {"name": f"n{number}", "age": number} for number in range(500)
        ]
        made = await session.scalars(AUTHORS.insert().returning(AUTHORS.c.id), rows)
        seen.append(len(made.all()))
        changed = await session.execute(
            update(Author).where(Author.age > 250).values(age=0), execution_options={}
        )
        seen.append(changed.rowcount)  # type: ignore[attr-defined]
        await session.execute(update(Author), [{"id": 1, "age": 7}, {"id": 2, "age": 8}])
        statement = update(AUTHORS).where(AUTHORS.c.id == bindparam("key"))
        connection = await session.connection()
        await connection.execute(statement, [{"key": 3, "age": 9}, {"key": 4, "age": 10}])
        ages = select(Author.age).where(Author.id < 5).order_by(Author.id)
        seen.append(list(await session.scalars(ages)))
        gone = await session.execute(delete(Author).where(Author.age == 0))
        seen.append(gone.rowcount)  # type: ignore[attr-defined]
        seen.append(await session.scalar(select(func.count(Author.id))))
    return seen


@idiom
async def refresh_and_expire(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions() as session, sessions() as other:
        author = Author(name="a")
        session.add(author)
        await session.commit()
        seen.append("name" in author.__dict__)
        await session.refresh(author)
        await session.rollback()
        await other.execute(update(Author).values(age=5))
        await other.commit()
        await session.refresh(author, ["age"])
        seen.append(author.age)
        session.expire(author)
        async with shown(seen):
            seen.append(author.name)
        seen.append(await author.awaitable_attrs.name)
        session.expunge(author)
        seen.append(author in session)
    return seen


@idiom
async def keeping_on_commit(engine: AsyncEngine, _: Sessions) -> Seen:
    sessions = async_sessionmaker(engine, expire_on_commit=False, autoflush=False)
    async with sessions() as session:
        author = Author(name="a")
        session.add(author)
        unflushed = await names(session)
        await session.commit()
        return [unflushed, author.name, author.age, session.in_transaction()]


@idiom
async def relationships(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions.begin() as session:
        session.add(Author(name="a", books=[Book(title="one"), Book(title="two")]))
    async with sessions() as session:
        author = (await session.scalars(select(Author))).one()
        async with shown(seen):
            seen.append(author.books)
        seen.append([book.title for book in await author.awaitable_attrs.books])
        for option in (selectinload(Author.books), joinedload(Author.books)):
            session.expunge_all()
            loaded = (await session.scalars(select(Author).options(option))).unique().one()
            seen.append([book.title for book in loaded.books])
        loaded.books.pop()
        await session.commit()
        await session.refresh(loaded, ["books"])
        seen.append([book.title for book in loaded.books])
        await session.delete(loaded)
        await session.commit()
        seen.append(await session.scalar(select(func.count(Book.id))))
    return seen


@idiom
async def run_sync(_: AsyncEngine, sessions: Sessions) -> Seen:
    def use(sync: Session) -> Seen:
        sync.add(Author(name="a", books=[Book(title="one")]))
        sync.commit()
        author = sync.scalars(select(Author)).one()
        return [author.name, [book.title for book in author.books], sync.in_transaction()]

    async with sessions() as session:
        return await session.run_sync(use)


@idiom
async def merge_and_get(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions() as session:
        session.add(Author(name="a"))
        await session.commit()
        author = await session.get(Author, 1)
        seen.append(author is await session.get(Author, 1))
        merged = await session.merge(Author(id=1, name="b"))
        seen.append(merged is author)
        await session.merge(Author(id=9, name="new"))
        await session.commit()
        seen.append(await names(session))
        seen.append(await session.get(Author, 404))
        async with shown(seen):
            await session.get_one(Author, 404)
        seen.append((await session.get(Author, 1, with_for_update=True)) is author)
    return seen


@idiom
async def closed_and_used_again(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    session = sessions()
    session.add(Author(name="a"))
    await session.commit()
    await session.close()
    await session.close()
    seen.append(await names(session))
    async with session:
        seen.append(session.in_transaction())
    async with session:
        seen.append(await names(session))
    await session.reset()
    await session.invalidate()
    seen.append(await names(session))
    await session.close()
    async with async_sessionmaker(session.bind, close_resets_only=False)() as once:
        await once.close()
        async with shown(seen):
            await names(once)
    return seen


@idiom
async def events(engine: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []

    async with sessions() as session:
        for name in (
            "after_begin",
            "before_flush",
            "after_flush",
            "before_commit",
            "after_commit",
            "after_rollback",
            "after_transaction_end",
        ):
            event.listen(session.sync_session, name, noting(seen, name))
        listeners = {
            name: noting(seen, f"engine: {name}")
            for name in ("begin", "commit", "rollback", "savepoint", "engine_connect")
        }
        for name, listen in listeners.items():
            event.listen(engine.sync_engine, name, listen)
        try:
            session.add(Author(name="a"))
            await session.commit()
            async with session.begin_nested():
                session.add(Author(name="b"))
            await session.rollback()
        finally:
            for name, listen in listeners.items():
                event.remove(engine.sync_engine, name, listen)
    return seen


@idiom
async def statements_are_seen_and_changed(engine: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []

    def before(
        _: Any, __: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> tuple[str, Any]:
        seen.append((statement, many))
        return statement.replace("'wrong'", "'right'"), parameters

    event.listen(engine.sync_engine, "before_cursor_execute", before, retval=True)
    try:
        async with sessions() as session:
            seen.append(await scalar(session, "SELECT 'wrong'"))
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", before)
    return seen


@idiom
async def isolation_ends_with_its_transaction(engine: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    show = "SHOW transaction_isolation"
    async with sessions() as session:
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        seen.append(await scalar(session, show))
        await session.commit()
        seen.append(await scalar(session, show))
        await session.rollback()
        await session.connection(execution_options={"postgresql_readonly": True})
        async with shown(seen):
            await session.execute(text("INSERT INTO authors (name) VALUES ('refused')"))
        await session.rollback()
        await session.execute(text("INSERT INTO authors (name) VALUES ('taken')"))
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    async with async_sessionmaker(repeatable)() as session:
        seen.append(await scalar(session, show))
        await session.commit()
        seen.append(await scalar(session, show))
    async with sessions(bind=repeatable) as session:
        seen.append(await scalar(session, show))
    async with sessions() as session:
        seen.append(await scalar(session, show))
    return seen


@idiom
async def autocommit(engine: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions() as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        session.add(Author(name="stays"))
        await session.flush()
        await session.rollback()
        session.add(Author(name="goes"))
        await session.flush()
        await session.rollback()
        seen.append(await names(session))
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("INSERT INTO authors (name) VALUES ('kept')"))
        await connection.rollback()
        await connection.execute(text("VACUUM authors"))
    async with sessions() as session:
        seen.append(await names(session))
    return seen


@idiom
async def two_sessions_in_one_task(_: AsyncEngine, sessions: Sessions) -> Seen:
    async with sessions() as one, sessions() as two:
        one.add(Author(name="a"))
        await one.flush()
        before = await names(two)
        await two.rollback()
        await one.commit()
        return [before, await names(two)]


@idiom
async def a_session_across_tasks(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions() as session:

        async def ask() -> Any:
            return await scalar(session, "SELECT 1 FROM pg_sleep(0.05)")

        for result in await asyncio.gather(ask(), ask(), return_exceptions=True):
            seen.append(type(result).__name__)
        await session.invalidate()
    return seen


@idiom
async def scoped(_: AsyncEngine, sessions: Sessions) -> Seen:
    registry = async_scoped_session(sessions, scopefunc=asyncio.current_task)

    async def work(name: str) -> bool:
        registry.add(Author(name=name))
        await registry.commit()
        same = registry() is registry()
        await registry.remove()
        return same

    same = await asyncio.gather(*(work(name) for name in "abc"))
    async with sessions() as session:
        return [*same, sorted(await names(session))]


# Faults


@idiom
async def constraints(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions() as session:
        session.add(Author(name="a", books=[Book(title="same"), Book(title="same")]))
        await session.flush()
        async with shown(seen):
            await session.commit()
        await session.rollback()
        session.add(Author(name="a"))
        await session.commit()
        session.add(Author(name="a"))
        async with shown(seen):
            await session.flush()
        async with shown(seen):
            await session.connection()
        await session.rollback()
        seen.append(await names(session))
        async with shown(seen):
            await session.execute(text("SELECT nonsense"))
        async with shown(seen):
            await session.execute(text("SELECT 1"))
    return seen


@idiom
async def serialization_failures(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions.begin() as session:
        session.add(Author(name="a"))
    async with sessions() as one, sessions() as two:
        for session in (one, two):
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            await names(session)
        await one.execute(update(Author).values(age=1))
        await one.commit()
        async with shown(seen):
            await two.execute(update(Author).values(age=2))
        await two.rollback()
        await two.execute(update(Author).values(age=3))
        await two.commit()
        seen.append(await one.scalar(select(Author.age)))
    return seen


@idiom
async def cancelled_and_timed_out(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    async with sessions() as session:
        async with shown(seen):
            async with asyncio.timeout(0.05):
                await session.execute(text("SELECT pg_sleep(10)"))
        async with shown(seen):
            await session.commit()
        await session.rollback()
        session.add(Author(name="after"))
        await session.commit()

    async def work() -> None:
        async with sessions.begin() as session:
            session.add(Author(name="cancelled"))
            await session.flush()
            await asyncio.sleep(10)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait({task}, timeout=PATIENCE)
    seen.append(task.cancelled())
    async with sessions() as session:
        seen.append(await names(session))
    return seen


@idiom
async def lost_connections(_: AsyncEngine, sessions: Sessions) -> Seen:
    seen: Seen = []
    end = "SELECT pg_terminate_backend(:pid)"
    async with sessions() as session, sessions() as other:
        session.add(Author(name="lost"))
        await session.flush()
        pid = await scalar(session, "SELECT pg_backend_pid()")
        await other.execute(text(end), {"pid": pid})
        await other.rollback()
        async with lost(seen):
            await session.execute(text("SELECT pg_sleep(5)"))
        async with shown(seen):
            await session.commit()
        await session.rollback()
        session.add(Author(name="after"))
        await session.commit()
        seen.append(await names(session))
        await session.rollback()
        # The commit is what finds out.
        session.add(Author(name="lost, too"))
        await session.flush()
        pid = await scalar(session, "SELECT pg_backend_pid()")
        await other.execute(text(end), {"pid": pid})
        await other.rollback()
        async with lost(seen):
            await session.commit()
        await session.rollback()
        seen.append(await names(session))
    return seen


# Engines and connections


@idiom
async def engines(engine: AsyncEngine, _: Sessions) -> Seen:
    seen: Seen = []
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO authors (name) VALUES ('a')"))
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO authors (name) VALUES ('rolled back')"))
    async with shown(seen), engine.begin() as connection:
        await connection.execute(text("INSERT INTO authors (name) VALUES ('rolled back')"))
        fail()
    connection = await engine.connect()
    seen.append((await connection.execute(text("SELECT name FROM authors"))).scalars().all())
    async with shown(seen):
        await connection.begin()
    await connection.commit()
    transaction = await connection.begin()
    nested = await connection.begin_nested()
    seen.append([transaction.is_active, nested.is_active, connection.in_nested_transaction()])
    await nested.rollback()
    await transaction.commit()
    await connection.close()
    async with shown(seen):
        await connection.execute(text("SELECT 1"))
    seen.append([connection.closed, connection.invalidated])
    seen.append([engine.dialect.name, engine.driver, engine.name])
    return seen


@idiom
async def schemas(engine: AsyncEngine, _: Sessions) -> Seen:
    async with engine.begin() as connection:
        there = await connection.run_sync(lambda sync: inspect(sync).has_table("authors"))
        columns = await connection.run_sync(
            lambda sync: [column["name"] for column in inspect(sync).get_columns("books")]
        )
        await connection.run_sync(Base.metadata.create_all)
        return [there, columns, await connection.scalar(text("SELECT current_schema()"))]


@idiom
async def invalidated_and_detached(engine: AsyncEngine, _: Sessions) -> Seen:
    seen: Seen = []
    async with engine.connect() as connection:
        pid = await scalar(connection, "SELECT pg_backend_pid()")
        await connection.invalidate()
        seen.append([connection.invalidated, connection.closed])
        async with shown(seen):
            await connection.execute(text("SELECT 1"))
        await connection.rollback()
        seen.append(await scalar(connection, "SELECT pg_backend_pid()") != pid)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver_connection: Any = raw.driver_connection
        seen.append(type(driver_connection).__module__.partition(".")[0])
        seen.append([raw.is_valid, raw.is_detached])

        def detach(sync: Connection) -> None:
            sync.detach()

        await connection.run_sync(detach)
        seen.append(await scalar(connection, "SELECT 1"))
    # Over psycopg, SQLAlchemy leaves a detached one open.
    await driver_connection.close()
    raw = await engine.raw_connection()
    seen.append(raw.is_valid)
    await greenlet_spawn(raw.close)
    return seen


@idiom
async def options_of_connections(engine: AsyncEngine, _: Sessions) -> Seen:
    seen: Seen = []
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="SERIALIZABLE", tenant="t")
        seen.append(await scalar(connection, "SHOW transaction_isolation"))
        seen.append(await connection.get_isolation_level())
        options = await connection.run_sync(lambda sync: sync.get_execution_options())
        seen.append(options["tenant"])
    async with engine.connect() as connection:
        seen.append(await scalar(connection, "SHOW transaction_isolation"))
        await connection.rollback()
        seen.append(await connection.run_sync(lambda sync: sync.default_isolation_level))
        translated = await connection.execution_options(schema_translate_map={None: "public"})
        seen.append((await translated.execute(select(Author.id))).all())
    return seen


@pytest.mark.parametrize("use", IDIOMS, ids=lambda function: function.__name__)
async def test_it_is_as_over_an_engine_of_ones_own(
    make_manager: MakeManager, cluster: LocalCluster, driver: str, tables: None, use: Idiom
) -> None:
    reset = "TRUNCATE books, authors RESTART IDENTITY"
    manager = make_manager(cluster.primary.dsn)
    await manager.ready()
    expected = create_async_engine(
        with_driver(f"{cluster.primary.dsn}?application_name={TESTED.name}", driver)
        if driver == "psycopg"
        else with_driver(cluster.primary.dsn, driver),
        connect_args={}
        if driver == "psycopg"
        else {"server_settings": {"application_name": TESTED.name}},
    )
    try:
        seen: list[Seen] = []
        for engine in (expected, manager.engine()):
            cluster.psql(cluster.primary, reset)
            # Both have one that is open, and nothing to find out about the server.
            async with engine.connect():
                pass
            async with asyncio.timeout(PATIENCE):
                seen.append(await use(engine, async_sessionmaker(engine)))
    finally:
        await expected.dispose()
    assert seen[0], "it shows nothing"
    assert seen[1] == seen[0]
    (pool,) = manager.pools

    def all_are_free() -> bool:
        return manager.get_pool_freesize(pool) == free(pool) == 15

    await eventually(all_are_free, "all slots are free")
    await eventually(
        lambda: not TESTED.backends(cluster, cluster.primary, "xact_start IS NOT NULL"),
        "no transaction is open",
    )


def test_there_are_enough_of_them() -> None:
    assert len(IDIOMS) >= 21
