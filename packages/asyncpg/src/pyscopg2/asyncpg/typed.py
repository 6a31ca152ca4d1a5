"""The manager whose rows are of the user's own class."""

from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, cast

from pyscopg2.asyncpg.adapter import AsyncpgAdapter
from pyscopg2.base import BasePoolManager, Settings
from pyscopg2.core.adapter import Adapter

if TYPE_CHECKING:
    from asyncpg import Pool, Record
    from asyncpg.pool import PoolConnectionProxy

RecordT = TypeVar("RecordT", bound="Record")


class TypedPoolManager(
    BasePoolManager["Pool[RecordT]", "PoolConnectionProxy[RecordT]"], Generic[RecordT]
):
    """`PoolManager`, typed by the class of the rows that its connections give."""

    # An adapter takes connections of any class.
    adapter: Adapter["Pool[RecordT]", "PoolConnectionProxy[RecordT]"] = cast(Any, AsyncpgAdapter())

    def __init__(
        self, dsn: str, *, record_class: "type[RecordT]", **settings: Unpack[Settings]
    ) -> None:
        """``settings`` are the other arguments of a `PoolManager`, by name.

        :param record_class: the class of the rows, as of `asyncpg.create_pool`.
        :raises TypeError: ``record_class`` is in ``pool_factory_kwargs``, too. Otherwise as
            `BasePoolManager`, as all others.
        """
        options = dict(settings.get("pool_factory_kwargs") or {})
        if "record_class" in options:
            raise TypeError("record_class is given twice: it is in pool_factory_kwargs, too")
        settings["pool_factory_kwargs"] = {**options, "record_class": record_class}
        super().__init__(dsn, **settings)
