"""What a user gets from `acquire`."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

ConnT_co = TypeVar("ConnT_co", covariant=True)


class AcquireContext(ABC, Generic[ConnT_co]):
    """A connection to come: nothing happens before it is awaited or entered, once.

    ``await`` gives the connection, which has to be given to `BasePoolManager.release` later.
    ``async with`` gives it for the block, ends the block as the driver's own pool does, and
    releases it in any case. The errors are those of `BasePoolManager.acquire`.
    """

    __slots__ = ()

    @abstractmethod
    def __await__(self) -> Generator[Any, Any, ConnT_co]: ...

    @abstractmethod
    def close(self) -> None:
        """Let it be: it will not be awaited or entered, and nobody is warned of that. As of a
        coroutine that was not begun; of one that was, this changes nothing."""

    # An ``async def``, so that checkers take this for a `contextlib.AbstractAsyncContextManager`:
    # what that returns, one of them calls a `Coroutine`, another a `types.CoroutineType`.

    @abstractmethod
    async def __aenter__(self) -> ConnT_co: ...

    @abstractmethod
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
