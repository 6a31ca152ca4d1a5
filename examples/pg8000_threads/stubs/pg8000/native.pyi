# pg8000 has no types of its own: here is what the example uses of it.

from collections.abc import Callable, Mapping
from io import BufferedIOBase
from typing import Any, Protocol

class Error(Exception): ...
class InterfaceError(Error): ...
class DatabaseError(Error): ...

class _Socket(Protocol):
    def makefile(self, mode: str) -> BufferedIOBase: ...
    def close(self) -> None: ...

class Connection:
    parameter_statuses: Mapping[str, str]
    pg_types: Mapping[int, Callable[[str], Any]]
    def __init__(
        self,
        user: str,
        *,
        database: str | None = None,
        password: str | None = None,
        application_name: str | None = None,
        startup_params: Mapping[str, str] | None = None,
        ssl_context: bool | None = None,
        sock: _Socket | None = None,
    ) -> None: ...
    def run(self, sql: str, **params: Any) -> list[list[Any]] | None: ...
    def close(self) -> None: ...
    def handle_READY_FOR_QUERY(self, data: bytes, context: Any) -> None: ...  # noqa: N802
    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None: ...  # noqa: N802
