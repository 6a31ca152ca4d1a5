"""What sends or fetches much ends with its connection.

asyncpg's COPY and ``executemany`` wait for the user's source, or for the server to read on, without
looking whether the connection is still there: a source that yields goes on for ever, and a server
that froze is waited for after the connection was terminated.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import new_class
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

_BULK = (
    "copy_from_query",
    "copy_from_table",
    "copy_to_table",
    "copy_records_to_table",
    "executemany",
    "fetchmany",
)
"""Methods of asyncpg's connections."""

_classes: WeakValueDictionary[type[Any], type[Any]] = WeakValueDictionary()
"""Made, by the class that they are made of."""


def ends_with_its_connection(
    connection_class: type[Any], lost: Callable[[str], Exception]
) -> type[Any]:
    """The user's class of connections, with what it does in bulk ending when it is closed.

    ``lost`` is asyncpg's error of a connection that was lost.
    """
    made = _classes.get(connection_class)
    if made is None:
        bulk = {
            name: _ending(getattr(connection_class, name), lost)
            for name in _BULK
            if hasattr(connection_class, name)
        }
        body = {"__slots__": (), "__module__": connection_class.__module__, **bulk}
        name = connection_class.__name__
        made = new_class(name, (connection_class,), exec_body=lambda ns: ns.update(body))
        _classes[connection_class] = made
    return made


def _ending(
    method: Callable[..., Coroutine[Any, Any, T]], lost: Callable[[str], Exception]
) -> Callable[..., Coroutine[Any, Any, T]]:
    async def ending(self: Any, *args: Any, **kwargs: Any) -> T:
        return await _while_open(self, method(self, *args, **kwargs), lost)

    ending.__name__ = method.__name__
    ending.__doc__ = method.__doc__
    return ending


async def _while_open(
    connection: Any, work: Coroutine[Any, Any, T], lost: Callable[[str], Exception]
) -> T:
    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(None)
    is_over = False

    def end(_: object) -> None:
        if not is_over and not scope.expired():
            scope.reschedule(loop.time())

    connection.add_termination_listener(end)
    try:
        async with scope:
            try:
                return await work
            finally:
                is_over = True
    except (AttributeError, TimeoutError) as exc:
        # The former where asyncpg wants to tell the server something, and has no socket any more;
        # or where the user's time is up while it waits for the source, and not for the server.
        if not connection.is_closed():
            timeout = exc.__context__
            if isinstance(exc, AttributeError) and isinstance(timeout, TimeoutError):
                connection.terminate()
                raise timeout from None
            raise
        raise lost("connection was closed in the middle of operation") from exc
    finally:
        connection.remove_termination_listener(end)
        if scope.expired():
            # asyncpg connects to the server by now, to have it cancel what is over.
            connection.terminate()
