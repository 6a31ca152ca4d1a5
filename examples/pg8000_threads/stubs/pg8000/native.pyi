# pg8000 has no types of its own: here is what the example uses of it.

import socket
import ssl
from collections.abc import Mapping
from typing import Any

class Error(Exception): ...
class InterfaceError(Error): ...
class DatabaseError(Error): ...

class Connection:
    def __init__(
        self,
        user: str,
        host: str = ...,
        database: str | None = None,
        port: int = 5432,
        password: str | None = None,
        *,
        ssl_context: ssl.SSLContext | bool | None = None,
        application_name: str | None = None,
        startup_params: Mapping[str, str] | None = None,
        sock: socket.socket | None = None,
    ) -> None: ...
    def run(self, sql: str, **params: Any) -> list[list[Any]] | None: ...
    def close(self) -> None: ...
    def handle_READY_FOR_QUERY(self, data: bytes, context: Any) -> None: ...  # noqa: N802
    def handle_ERROR_RESPONSE(self, data: bytes, context: Any) -> None: ...  # noqa: N802
