"""As much of a pooler as a check can see: it has keys of its own, and lends its servers."""

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.cli.support import SSL_REQUEST, pump, serving

from pyscopg2.testing.cluster import Node

_READY = b"Z\x00\x00\x00\x05I"
"""Ready for a query, in no transaction."""

Server = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class StandInPooler:
    """Each client's login goes through to a connection of its own to the server. From then on, in
    transaction mode, that is lent to whoever asks, the one last given back first."""

    def __init__(self, node: Node, *, by_transaction: bool) -> None:
        self._node = node
        self._by_transaction = by_transaction
        self._free: asyncio.LifoQueue[Server] = asyncio.LifoQueue()
        self._all: list[asyncio.StreamWriter] = []
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator["StandInPooler"]:
        async with serving(self._serve) as self.port:
            try:
                yield self
            finally:
                for writer in self._all:
                    writer.transport.abort()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if await client.readexactly(8) == SSL_REQUEST:
            to_client.write(b"N")
        (length,) = struct.unpack("!i", await client.readexactly(4))
        startup = struct.pack("!i", length) + await client.readexactly(length - 4)
        server = await asyncio.open_connection(self._node.host, self._node.port)
        self._all.append(server[1])
        server[1].write(startup)
        login = asyncio.ensure_future(pump(client, server[1]))
        try:
            await _until_ready(server[0], to_client)
        finally:
            login.cancel()
            await asyncio.gather(login, return_exceptions=True)
        if self._by_transaction:
            self._free.put_nowait(server)
            await self._lend(client, to_client)
        else:
            back = asyncio.ensure_future(pump(server[0], to_client))
            try:
                await pump(client, server[1])
            finally:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)

    async def _lend(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """A server for each transaction, from its first message to its end."""
        asked = told = asyncio.ensure_future(_message(client))
        try:
            while (message := await asked)[:1] != b"X":
                reader, writer = server = await self._free.get()
                writer.write(message)
                asked = asyncio.ensure_future(_message(client))
                told = asyncio.ensure_future(_message(reader))
                while True:
                    await asyncio.wait((asked, told), return_when=asyncio.FIRST_COMPLETED)
                    if told.done():
                        to_client.write(told.result())
                        if told.result() == _READY:
                            break
                        told = asyncio.ensure_future(_message(reader))
                    else:
                        writer.write(asked.result())
                        asked = asyncio.ensure_future(_message(client))
                self._free.put_nowait(server)
        finally:
            asked.cancel()
            told.cancel()
            await asyncio.gather(asked, told, return_exceptions=True)


async def _until_ready(server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    """Hand on what the server says, but for its key."""
    message = b""
    while message != _READY:
        message = await _message(server)
        if message[:1] == b"K":
            message = b"K" + struct.pack("!iii", 12, 1, 1)
        to_client.write(message)


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!i", head[1:])
    return head + await reader.readexactly(length - 4)
