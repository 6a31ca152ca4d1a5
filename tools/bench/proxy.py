"""A TCP proxy that holds back each answer for some time: `python -m tools.bench.proxy PORT DELAY`.

In a process of its own, so that it costs the event loop under test nothing. Prints its port.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

HOST = "127.0.0.1"


@contextlib.contextmanager
def slow_proxy(port: int, delay: float) -> Generator[int]:
    """The port of a proxy to this one, each of whose answers comes ``delay`` seconds later."""
    with subprocess.Popen(
        [sys.executable, "-m", "tools.bench.proxy", str(port), str(delay)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        while chunk := await reader.read(65536):
            chunks.put_nowait((loop.time() + delay, chunk))
        chunks.put_nowait((0.0, b""))

    async def write() -> None:
        while True:
            due, chunk = await chunks.get()
            if not chunk:
                return
            await asyncio.sleep(due - loop.time())
            writer.write(chunk)
            await writer.drain()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            group.create_task(write())
    except* OSError:
        pass
    finally:
        writer.close()


async def _serve(port: int, delay: float) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection(HOST, port)
        await asyncio.gather(_copy(reader, to_server[1], 0), _copy(to_server[0], writer, delay))

    async with await asyncio.start_server(pass_on, HOST, 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        # Ends with whoever has started it.
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
