"""The fault proxy, in front of servers that are a few lines each."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import pytest
import uvloop
from tests.support.waiting import PATIENCE, eventually

from pyscopg2.testing.fault_proxy import FaultProxy

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [
    asyncio.SelectorEventLoop,
    uvloop.new_event_loop,
]


@dataclass
class Echo:
    """Answers each line with its own name before it."""

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    clients: int = 0
    resets: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients += 1
        try:
            while line := await reader.readline():
                writer.write(self.name.encode() + b" " + line)
        except ConnectionResetError:
            self.resets += 1
        finally:
            self.clients -= 1
            writer.close()


@contextlib.asynccontextmanager
async def echo(name: str) -> AsyncGenerator[Echo]:
    server = Echo(name)
    listener = await asyncio.start_server(server.serve, server.host, 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await eventually(lambda: server.clients == 0)


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, line: str = "hello") -> str:
        self.writer.write(line.encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            return (await self.reader.readline()).decode().rstrip("\n")


@contextlib.asynccontextmanager
async def client(proxy: FaultProxy) -> AsyncGenerator[Client]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def test_it_passes_both_ways_and_hands_on_ends() -> None:
    async with echo("one") as server, FaultProxy(server) as proxy:
        async with client(proxy) as one, client(proxy) as two:
            answers = await asyncio.gather(one.ask("a"), two.ask("b"))
            assert list(answers) == ["one a", "one b"]
            assert proxy.flow_count == server.clients == 2
            large = "x" * 50_000
            assert await one.ask(large) == f"one {large}"
        await eventually(lambda: server.clients == proxy.flow_count == 0)


async def test_it_moves_new_flows_and_leaves_those_there_are() -> None:
    async with echo("one") as first, echo("two") as second, FaultProxy(first) as proxy:
        address = proxy.address
        async with client(proxy) as before:
            assert await before.ask() == "one hello"
            proxy.move_to(second)
            async with client(proxy) as after:
                assert await after.ask() == "two hello"
                assert await before.ask() == "one hello"
        assert proxy.address == address


async def test_a_cut_resets_the_flows_there_are_and_new_ones_pass() -> None:
    async with echo("one") as server, FaultProxy(server) as proxy, client(proxy) as before:
        assert await before.ask() == "one hello"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await before.ask()
        await eventually(lambda: server.resets == 1)
        async with client(proxy) as after:
            assert await after.ask() == "one hello"


async def test_silence_gives_no_sign_and_new_flows_pass() -> None:
    async with echo("one") as server, FaultProxy(server) as proxy:
        async with client(proxy) as before, client(proxy) as leaving:
            assert await before.ask() == await leaving.ask() == "one hello"
            proxy.silence()
            asking = asyncio.create_task(before.ask())
            leaving.writer.close()
            async with client(proxy) as after:
                assert await after.ask() == "one hello"
                # A round trip later still nothing, and nobody noticed the end.
                assert not asking.done()
                assert server.clients == 3
            asking.cancel()
        await eventually(lambda: proxy.flow_count == 2)
    assert proxy.flow_count == 0


async def test_where_the_server_refuses_the_client_gets_a_reset() -> None:
    async with echo("one") as server:
        pass
    async with FaultProxy(server) as proxy, client(proxy) as refused:
        with pytest.raises(ConnectionResetError):
            await refused.ask()
        await eventually(lambda: proxy.flow_count == 0)


@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
def test_leaving_the_block_ends_every_flow_on_every_loop(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        async with echo("one") as server:
            async with contextlib.AsyncExitStack() as clients:
                async with FaultProxy(server) as proxy:
                    silent = await clients.enter_async_context(client(proxy))
                    assert await silent.ask() == "one hello"
                    proxy.silence()
                    well = await clients.enter_async_context(client(proxy))
                    assert await well.ask() == "one hello"
                assert proxy.flow_count == 0
                await eventually(lambda: server.clients == 0)
                for gone in (silent, well):
                    with pytest.raises(ConnectionResetError):
                        await gone.reader.read()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(proxy.host, proxy.port)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("turns", range(8))
async def test_leaving_while_a_client_connects_leaves_nothing_open(turns: int) -> None:
    """What stays open is a ResourceWarning, which fails the run."""
    async with echo("one") as server, FaultProxy(server) as proxy:
        opening = asyncio.create_task(asyncio.open_connection(proxy.host, proxy.port))
        for _ in range(turns):
            await asyncio.sleep(0)
    assert proxy.flow_count == 0
    try:
        _, writer = await opening
        writer.transport.abort()
    except OSError:
        pass
    gc.collect()
