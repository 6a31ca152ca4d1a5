"""The manager whose connections are of the user's own class, or give rows of the user's own."""

from typing import Any, Generic, TypeVar, Unpack, overload

from psycopg import AsyncConnection
from psycopg.rows import AsyncRowFactory
from psycopg_pool import AsyncConnectionPool

from pyscopg2.base import BasePoolManager, Settings
from pyscopg2.core.adapter import Adapter
from pyscopg2.psycopg.adapter import PsycopgAdapter

RowT = TypeVar("RowT")
OwnT = TypeVar("OwnT", bound=AsyncConnection[Any])


class TypedPoolManager(BasePoolManager[AsyncConnectionPool[OwnT], OwnT], Generic[OwnT]):
    """`PoolManager`, typed by what its connections are.

    With a ``row_factory`` it is a ``TypedPoolManager[AsyncConnection[Row]]``, with a
    ``connection_class`` one of that class. Both go to the pool, and so come true.
    """

    # An adapter takes connections of any class.
    adapter: Adapter[Any, Any] = PsycopgAdapter()

    @overload
    def __init__(
        self: "TypedPoolManager[AsyncConnection[RowT]]",
        dsn: str,
        *,
        row_factory: AsyncRowFactory[RowT],
        **settings: Unpack[Settings],
    ) -> None: ...

    @overload
    def __init__(
        self,
        dsn: str,
        *,
        connection_class: type[OwnT],
        row_factory: AsyncRowFactory[Any] | None = None,
        **settings: Unpack[Settings],
    ) -> None: ...

    def __init__(
        self,
        dsn: str,
        *,
        connection_class: type[Any] | None = None,
        row_factory: AsyncRowFactory[Any] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        """``settings`` are the other arguments of a `PoolManager`, by name.

        :param connection_class: the class of the connections. Where its rows are no tuples, and it
            sets no row factory by itself, it needs the ``row_factory``, too.
        :param row_factory: makes the rows of cursors that have none of their own.
        :raises TypeError: neither is given; or one is in ``pool_factory_kwargs``, too. Otherwise as
            `BasePoolManager`, as all others.
        """
        options = dict(settings.get("pool_factory_kwargs") or {})
        if connection_class is None and row_factory is None:
            raise TypeError("give a row_factory or a connection_class, or use PoolManager")
        if connection_class is not None:
            _set(options, "connection_class", connection_class)
        if row_factory is not None:
            kwargs: Any = options.get("kwargs") or {}
            if callable(kwargs):
                raise TypeError("kwargs: a function has to give the row_factory by itself")
            options["kwargs"] = _set(dict(kwargs), "row_factory", row_factory)
        settings["pool_factory_kwargs"] = options
        super().__init__(dsn, **settings)


def _set(options: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    if name in options:
        raise TypeError(f"{name} is given twice: it is in pool_factory_kwargs, too")
    options[name] = value
    return options
