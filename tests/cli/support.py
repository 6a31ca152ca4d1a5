"""The command as the tests run it, and what it is pointed at."""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from click.testing import CliRunner, Result

from pyscopg2.cli.check.finding import Kind
from pyscopg2.cli.command import pyscopg2
from pyscopg2.core.dsn import Surroundings, Target, resolve
from pyscopg2.testing.cluster import LocalCluster

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"

LIMIT = 10.0
"""Seconds within which a check has ended, on a busy machine; on another one it is 3."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(*arguments: str, env: dict[str, str] | None = None, width: int = 80) -> Result:
    """The command, in this process. What nobody expected is raised."""
    runner = CliRunner(env={"COLUMNS": str(width), **(env or {})})
    return runner.invoke(pyscopg2, arguments, catch_exceptions=False)


@dataclass(frozen=True)
class Checked:
    """What `pyscopg2 check --json` said."""

    exit_code: int
    report: dict[str, Any]

    @property
    def kinds(self) -> set[tuple[str, str | None]]:
        """What was found, and where."""
        return {(found["kind"], found["address"]) for found in self.report["findings"]}

    def text(self, kind: Kind) -> str:
        """What was said of the one finding of that kind."""
        (found,) = (each for each in self.report["findings"] if each["kind"] == kind.label)
        text: str = found["text"]
        return text


def check(dsn: str) -> Checked:
    done = run("check", "--json", dsn)
    report = json.loads(done.stdout)
    assert report["seconds"] < LIMIT
    assert report["exit_code"] == done.exit_code
    return Checked(done.exit_code, report)


async def check_beside(dsn: str) -> Checked:
    """The same while this event loop serves what it is pointed at."""
    return await asyncio.to_thread(check, dsn)


def as_user(cluster: LocalCluster, account: str, params: str = "", *, dbname: str = "") -> str:
    """The cluster's DSN with another account, as ``user:password``."""
    hosts = ",".join(node.address for node in cluster.nodes)
    return f"postgresql://{account}@{hosts}/{dbname or cluster.database}{params}"


def one_target(dsn: str) -> Target:
    (target,) = resolve(dsn, Surroundings.here(), extra_params=True).targets
    return target


@asynccontextmanager
async def serving(serve: Serve) -> AsyncGenerator[int]:
    """A server at a port of this machine's, each of whose connections is served so."""
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, EOFError):
                await serve(reader, writer)
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(handle(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1")
    port: int = server.sockets[0].getsockname()[1]
    try:
        yield port
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@dataclass(frozen=True)
class Authority:
    """Files of an authority, of one that nobody trusts, and a server's own for ``localhost``."""

    ca: Path
    stranger: Path
    server: Path


def make_authority(folder: Path) -> Authority:
    ca, stranger = trustme.CA(), trustme.CA()
    names = Authority(folder / "ca", folder / "stranger", folder / "server")
    ca.cert_pem.write_to_path(names.ca)
    stranger.cert_pem.write_to_path(names.stranger)
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(names.server)
    return names


def tls_front(cluster: LocalCluster, authority: Authority) -> Serve:
    """A primary's own front door, with TLS: the bundled PostgreSQL is built without."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(8)
        if first == SSL_REQUEST:
            writer.write(b"S")
            await writer.start_tls(context)
            first = await reader.readexactly(8)
        primary = cluster.primary
        back, forth = await asyncio.open_connection(primary.host, primary.port)
        try:
            forth.write(first)
            ways = [asyncio.ensure_future(pump(reader, forth))]
            ways.append(asyncio.ensure_future(pump(back, writer)))
            _, pending = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in pending:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            forth.transport.abort()

    return serve
