"""What the kernel tells of a socket's other side."""

import socket
import struct
from collections.abc import Iterator

import pytest

from pyscopg2.core.hangup import hung_up


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


def test_a_silent_one_has_not_hung_up(pair: tuple[socket.socket, socket.socket]) -> None:
    assert not hung_up(pair[0].fileno())


def test_what_was_sent_is_no_hangup(pair: tuple[socket.socket, socket.socket]) -> None:
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


def test_a_reset_is_one(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert hung_up(ours.fileno())


def test_our_own_shutdown_is_one(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    ours.shutdown(socket.SHUT_RDWR)
    assert hung_up(ours.fileno())
