"""How each adapter's users talk to its connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, NamedTuple

from pyscopg2.base import BasePoolManager

Manager = BasePoolManager[Any, Any]


class Driver(NamedTuple):
    """One adapter, as these programs use it."""

    make: Callable[..., Manager]
    """`PoolManager`."""
    execute: Callable[[Any, str], Awaitable[object]]
    sizes: Callable[[int, int], dict[str, int]]
    """The pool options for a minimum and a maximum."""
    scheme: str = "postgresql"


async def _fetch(connection: Any, statement: str) -> object:
    return await connection.execute(statement)


async def _by_cursor(connection: Any, statement: str) -> object:
    async with connection.cursor() as cursor:
        return await cursor.execute(statement)


async def _as_text(connection: Any, statement: str) -> object:
    text = import_module("sqlalchemy").text
    return await connection.execute(text(statement))


def _min_max(minimum: int, maximum: int) -> dict[str, int]:
    return {"min_size": minimum, "max_size": maximum}


def _minmax(minimum: int, maximum: int) -> dict[str, int]:
    return {"minsize": minimum, "maxsize": maximum}


def _overflow(minimum: int, maximum: int) -> dict[str, int]:
    return {"pool_size": max(minimum, 1), "max_overflow": maximum - max(minimum, 1)}


_KINDS: dict[str, tuple[str, Any, Any, str]] = {
    "asyncpg": ("asyncpg", _fetch, _min_max, "postgresql"),
    "asyncpgsa": ("asyncpgsa", _fetch, _min_max, "postgresql"),
    "psycopg": ("psycopg", _fetch, _min_max, "postgresql"),
    "aiopg": ("aiopg", _by_cursor, _minmax, "postgresql"),
    "aiopg_sa": ("aiopg_sa", _fetch, _minmax, "postgresql"),
    "sqlalchemy": ("sqlalchemy", _as_text, _overflow, "postgresql+asyncpg"),
    "sqlalchemy-psycopg": ("sqlalchemy", _as_text, _overflow, "postgresql+psycopg"),
}

NAMES = tuple(_KINDS)


def driver(name: str) -> Driver:
    """`ModuleNotFoundError`: it is not installed here."""
    package, execute, sizes, scheme = _KINDS[name]
    return Driver(import_module(f"pyscopg2.{package}").PoolManager, execute, sizes, scheme)


def installed() -> list[str]:
    """The names of those that are."""
    found: list[str] = []
    for name in NAMES:
        try:
            driver(name)
        except ImportError:
            continue
        found.append(name)
    return found
