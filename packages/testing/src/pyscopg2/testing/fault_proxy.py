"""An address in front of a server: its flows can be cut or silenced, and it can move.

What `LocalCluster` does to servers, this does to the way there: the server stays well.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Protocol, Self, cast, final

__all__ = ["Addressed", "FaultProxy"]

_HOST = "127.0.0.1"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Addressed(Protocol):
    """Where a server listens: a `Node`, or a further `FaultProxy`."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


@final
class FaultProxy:
    """A TCP address that leads to ``server``, in the event loop that enters its ``async with``.

    The address is the same for the proxy's whole life, wherever it leads: as that of a ``-rw``
    service, or a DNS name, that follows the master. Who connects while the server refuses gets a
    connection, and its reset at once.

    Leaving the block ends all flows; the server and the clients see them reset.
    """

    def __init__(self, server: Addressed, *, delay: float = 0.0) -> None:
        """
        :param delay: seconds by which all that passes is held back, in each direction: half of a
            round trip. To accept a connection takes no time.
        """
        self._target = server
        self._delay = delay
        self._flows: set[_Flow] = set()
        self._listener: socket.socket | None = None
        self._port = 0

    def __repr__(self) -> str:
        target = f"{self._target.host}:{self._target.port}"
        return f"<FaultProxy {self.address} to {target}, flows: {len(self._flows)}>"

    @property
    def host(self) -> str:
        """The host to connect to: always ``127.0.0.1``."""
        return _HOST

    @property
    def port(self) -> int:
        """The port to connect to; 0 before the block."""
        return self._port

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    @property
    def flow_count(self) -> int:
        """How many flows there are, the silenced ones among them."""
        return len(self._flows)

    def move_to(self, server: Addressed) -> None:
        """Lead new flows to another server. Those there are stay where they are: see `cut`."""
        self._target = server

    def cut(self) -> None:
        """Reset all flows there are. New ones pass."""
        for flow in tuple(self._flows):
            flow.reset()

    def silence(self) -> None:
        """Let all flows there are die without a sign: nothing passes any more, not even an end.

        Whoever writes is not refused, whoever reads waits for ever. New flows pass.
        """
        for flow in self._flows:
            flow.silence()

    async def __aenter__(self) -> Self:
        self._listener = socket.create_server((_HOST, 0))
        self._listener.setblocking(False)
        self._port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        flows = tuple(self._flows)
        for flow in flows:
            flow.reset()
        for flow in flows:
            await flow.ended.wait()

    def _accept(self, listener: socket.socket) -> None:
        # By hand: asyncio's own server, closed while it accepts, leaves that socket open.
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return  # the client has left already
        self._flows.add(_Flow(client, self._target, self._flows.discard, self._delay))


class _Forget(Protocol):
    def __call__(self, flow: "_Flow", /) -> None: ...


class _Flow:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(
        self, client: socket.socket, target: Addressed, forget: _Forget, delay: float
    ) -> None:
        self.delay = delay
        self._target = target
        self._forget = forget
        self.client = _End(self)
        self.server = _End(self)
        self.silent = False
        self.over = False
        self.ended = asyncio.Event()
        self._may_be_cancelled = False
        self._connecting = asyncio.get_running_loop().create_task(self._connect(client))
        self._connecting.add_done_callback(self._connected)

    async def _connect(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        client.setblocking(False)
        await loop.connect_accepted_socket(lambda: self.client, client)
        if self.over:
            self.reset()
            return
        self._may_be_cancelled = True
        try:
            await loop.create_connection(lambda: self.server, self._target.host, self._target.port)
        except OSError:
            self.reset()
        finally:
            self._may_be_cancelled = False

    def _connected(self, _: object) -> None:
        if self.client.is_lost:
            self.reset()
        self.end_reached()

    def silence(self) -> None:
        self.silent = True
        for end in (self.client, self.server):
            end.pause_reading()

    def reset(self) -> None:
        self.over = True
        if self._may_be_cancelled:
            self._connecting.cancel()
        for end in (self.client, self.server):
            end.reset()

    def peer(self, end: "_End") -> "_End":
        return self.server if end is self.client else self.client

    def end_reached(self) -> None:
        """Called when one of what makes up a flow has ended; it is gone with the last of them."""
        if self.client.is_lost and self.server.is_lost and self._connecting.done():
            self._forget(self)
            self.ended.set()


class _End(asyncio.Protocol):
    """One of a flow's two connections. Lost: not there yet, or not any more."""

    def __init__(self, flow: _Flow) -> None:
        self._flow = flow
        self._transport: asyncio.Transport | None = None
        self._early = bytearray()
        """What is to be written when the connection is there."""
        self._late: deque[tuple[float, Callable[[], None]]] = deque()
        """What is held back, and until when, on the event loop's clock."""

    @property
    def is_lost(self) -> bool:
        return self._transport is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._flow.over:
            self.reset()
        elif self._flow.silent:
            self.pause_reading()
        elif self is self._flow.server:
            self._transport.write(self._early)

    def data_received(self, data: bytes) -> None:
        if not self._flow.silent:
            self._pass_on(partial(self._flow.peer(self).write, data))

    def eof_received(self) -> bool:
        if not self._flow.silent:
            self._pass_on(self._flow.peer(self).finish)
        return self._flow.silent

    def _pass_on(self, act: Callable[[], None]) -> None:
        """Now, or after the flow's delay, in order."""
        if not self._flow.delay:
            act()
            return
        loop = asyncio.get_running_loop()
        self._late.append((loop.time() + self._flow.delay, act))
        if len(self._late) == 1:
            loop.call_at(self._late[0][0], self._pass_late)

    def _pass_late(self) -> None:
        loop = asyncio.get_running_loop()
        while self._late and self._late[0][0] <= loop.time():
            act = self._late.popleft()[1]
            if not self._flow.silent:
                act()
        if self._late:
            loop.call_at(self._late[0][0], self._pass_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._flow.silent:
            peer = self._flow.peer(self)
            self._pass_on(peer.finish if exc is None else peer.reset)
        self._flow.end_reached()

    def pause_writing(self) -> None:
        self._flow.peer(self).pause_reading()

    def resume_writing(self) -> None:
        if not self._flow.silent:
            self._flow.peer(self).resume_reading()

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._early += data
        else:
            self._transport.write(data)

    def finish(self) -> None:
        """Close, after what is still to be sent."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close at once; the other side sees a reset."""
        if self._transport is not None:
            sock = cast("socket.socket | None", self._transport.get_extra_info("socket"))
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
