"""Who has given which connection back: so a second release of it is known for one, though somebody
else may have the same object by then.

Some drivers' pools hand out the same object again and again. A task that has given its own back
has no business with it any more, unless it is given it anew.
"""

import asyncio
from functools import partial
from typing import Any, Generic
from weakref import ref

from pyscopg2.core.adapter.protocol import ConnT

TaskRef = ref[asyncio.Task[Any]]
"""No task lives longer for it."""

_FEW = 16
"""So many tasks may have ended before there is a look for those that have."""


class Returns(Generic[ConnT]):
    """The tasks that gave back a connection of their own, for each that still lives.

    Keeps neither tasks nor connections alive.
    """

    def __init__(self) -> None:
        self.givers: dict[int, set[TaskRef]] = {}
        """By ``id()`` of the connection, until it is gone."""
        self.most = _FEW
        """With more of them it is time to `prune`."""
        self.tells = True
        """Whether anything can be known. Not of objects that can't be referred to weakly: asyncpg's
        are such, and new each time."""
        self._connections: dict[int, ref[ConnT]] = {}

    def begin(self, connection: ConnT, owner: TaskRef) -> None:
        """The owner gives back what was its own, and nobody has given that back before."""
        key = id(connection)
        try:
            self._connections[key] = ref(connection, partial(self._forget, key))
        except TypeError:
            self.tells = False
        else:
            self.givers[key] = {owner}

    def prune(self, givers: set[TaskRef]) -> None:
        """Forget those that have ended: they give nothing back any more."""
        givers.difference_update([each for each in givers if not _is_running(each())])
        self.most = max(self.most, 2 * len(givers))

    def has(self, connection: ConnT, task: asyncio.Task[Any]) -> bool:
        """Whether this task has given this very connection back before."""
        return ref(task) in self.givers.get(id(connection), ())

    def _forget(self, key: int, _: ref[ConnT]) -> None:
        del self._connections[key], self.givers[key]


def _is_running(task: asyncio.Task[Any] | None) -> bool:
    return task is not None and not task.done()
