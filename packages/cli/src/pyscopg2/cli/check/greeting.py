"""What listens at an address: whether it speaks PostgreSQL, and whether it offers TLS.

It is asked for TLS (PostgreSQL manual, 55.2.10 "SSL Session Encryption"), which every server
answers with one byte before any login, and which costs it no process that lives on.
"""

import asyncio
import os
import struct
from dataclasses import dataclass

from pyscopg2.cli.check import deadlines
from pyscopg2.cli.check.finding import Kind
from pyscopg2.core.dsn import Target

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)

_LINE = b"\r\n\r\n"
"""What servers of many other protocols wait for before they answer: HTTP, Redis, SMTP."""

_MOST = 64
"""Bytes of an answer that are looked at."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Greeting:
    """What was heard."""

    fault: Kind | None
    """None: a server of PostgreSQL's protocol."""
    text: str
    """What is wrong, in words."""
    offers_tls: bool = False
    connect_time: float | None = None
    """Seconds until the connection was there; None where it never was."""


async def greet(target: Target, addresses: tuple[str, ...]) -> Greeting:
    """Connect to the first of the addresses that accepts, and ask. Raises nothing."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        reader, writer = await _connect(target, addresses)
    except TimeoutError:
        return Greeting(
            Kind.UNREACHABLE, f"no answer to a connection attempt in {deadlines.CONNECT:g} s"
        )
    except OSError as exc:
        return Greeting(_kind(exc), _describe(exc))
    connect_time = loop.time() - begun
    try:
        fault, text, offers_tls = await _ask(reader, writer)
    finally:
        writer.transport.abort()
    return Greeting(fault, text, offers_tls, connect_time)


def _kind(exc: OSError) -> Kind:
    if isinstance(exc, ConnectionResetError):
        return Kind.CLOSED  # after it was accepted, before we looked
    refused = isinstance(exc, ConnectionRefusedError | FileNotFoundError)
    return Kind.REFUSED if refused else Kind.UNREACHABLE


def socket_path(target: Target) -> str | None:
    """Of a Unix-domain socket; None where the target is reached by TCP."""
    host = target.host or ""
    if target.hostaddr or not host.startswith(("/", "@")):
        return None
    path = f"{host}/.s.PGSQL.{target.port}"
    return f"\0{path[1:]}" if path.startswith("@") else path


async def _connect(target: Target, addresses: tuple[str, ...]) -> Stream:
    """The first that accepts. One after the other, as the driver does."""
    path = socket_path(target)
    if path is not None:
        async with asyncio.timeout(deadlines.CONNECT):
            return await asyncio.open_unix_connection(path)
    failure: OSError = TimeoutError()
    for address in addresses:
        try:
            async with asyncio.timeout(deadlines.CONNECT / len(addresses)):
                return await asyncio.open_connection(address, target.port)
        except OSError as exc:
            failure = exc
    raise failure


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[Kind | None, str, bool]:
    """The fault with its words, and whether TLS is offered."""
    try:
        writer.write(_SSL_REQUEST)
        said = await _read(reader, deadlines.GREETING)
        if said is None:
            # Frozen, or of a protocol that waits for an end of line before it answers.
            writer.write(_LINE)
            said = await _read(reader, deadlines.NUDGE)
    except OSError:
        said = b""
    if said is None:
        waited = deadlines.GREETING + deadlines.NUDGE
        return Kind.FROZEN, f"it accepts connections, and said nothing for {waited:g} s", False
    if not said:
        return Kind.CLOSED, "it accepts connections, and closes them without a word", False
    if said in (b"S", b"N"):
        return None, "", said == b"S"
    return Kind.OTHER_SERVICE, f"it does not speak PostgreSQL: it said {said[:20]!r}", False


async def _read(reader: asyncio.StreamReader, seconds: float) -> bytes | None:
    """What comes first, empty where the connection ends; None: nothing in that time."""
    try:
        async with asyncio.timeout(seconds):
            return await reader.read(_MOST)
    except TimeoutError:
        return None


def _describe(exc: OSError) -> str:
    """Without the name of a socket, which may be anything."""
    if isinstance(exc, FileNotFoundError):
        return "there is no such socket"
    # asyncio's own text is about the address that it called.
    reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
    return f"the connection was not accepted: {reason}"
