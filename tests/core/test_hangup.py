"""What the kernel tells of a socket's other side."""

import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from pyscopg2.core.adapter import hangup
from pyscopg2.core.adapter.hangup import hung_up, shut_down


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    if request.param == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(params=["poll", "no poll"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the kernel offers: Windows has no ``poll``."""
    has_poll = bool(request.param == "poll")
    monkeypatch.setattr(hangup, "_HAS_POLL", has_poll)
    if not has_poll:
        monkeypatch.delattr(select, "poll")
    return str(request.param)


def test_a_silent_one_has_not_hung_up(
    pair: tuple[socket.socket, socket.socket], kernel: str
) -> None:
    assert not hung_up(pair[0].fileno())


def test_what_was_sent_is_no_hangup(pair: tuple[socket.socket, socket.socket], kernel: str) -> None:
    ours, theirs = pair
    theirs.send(b"x")
    assert ours.recv(1, socket.MSG_PEEK) == b"x"
    assert not hung_up(ours.fileno())


@pytest.mark.parametrize("unread", [b"", b"FATAL"])
def test_the_end_of_the_stream_is_one(
    pair: tuple[socket.socket, socket.socket], unread: bytes
) -> None:
    ours, theirs = pair
    theirs.send(unread)
    theirs.close()
    assert hung_up(ours.fileno())
    assert ours.recv(10) == unread, "nothing was read"


def test_without_poll_the_end_shows_when_what_comes_before_it_is_read(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangup, "_HAS_POLL", False)
    ours, theirs = pair
    theirs.send(b"FATAL")
    theirs.close()
    assert ours.recv(10, socket.MSG_PEEK) == b"FATAL"
    assert not hung_up(ours.fileno())
    assert ours.recv(10) == b"FATAL"
    assert hung_up(ours.fileno())


def test_a_descriptor_that_is_none_has_hung_up(kernel: str) -> None:
    fileno = os.dup(0)
    os.close(fileno)
    assert hung_up(fileno)


def test_who_reads_a_socket_that_is_shut_down_gets_its_end(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(ours.recv(1)))
    reading.start()
    shut_down(ours.fileno())
    reading.join(10)
    assert got == [b""]
    assert theirs.recv(1) == b""
    shut_down(ours.fileno())
    assert ours.fileno() != -1, "it is open still"


def test_the_module_can_be_imported_where_there_is_no_poll() -> None:
    program = (
        "import select\n"
        "for name in [name for name in dir(select) if 'poll' in name.lower()]:\n"
        "    delattr(select, name)\n"
        "import pyscopg2.core.adapter.hangup\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_reset_is_one(pair: tuple[socket.socket, socket.socket], kernel: str) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert hung_up(ours.fileno())


def test_our_own_shutdown_is_one(pair: tuple[socket.socket, socket.socket], kernel: str) -> None:
    ours, _ = pair
    ours.shutdown(socket.SHUT_RDWR)
    assert hung_up(ours.fileno())
