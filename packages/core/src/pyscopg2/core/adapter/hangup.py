"""The end of a stream, by its socket's descriptor: seeing it, and bringing it about.

Windows has no ``poll``, and gives sockets' handles where others have descriptors.
"""

import contextlib
import select
import socket

# Not POLLIN: what has come but was not read yet, a notice perhaps, is no end. Linux tells when the
# other side has ended its half of the stream; elsewhere that is a hangup already.
_END: int = getattr(select, "POLLRDHUP", getattr(select, "POLLHUP", 0))

_HAS_POLL = hasattr(select, "poll")

_AT_ONCE: int = getattr(socket, "MSG_DONTWAIT", 0)
"""Where there is none, `select` says beforehand whether there is something to be read."""

_ERROR = b"E"
"""What an error of the server's begins with (PostgreSQL manual, 55.7 "Message Formats")."""


def hung_up(fileno: int) -> bool:
    """Whether the stream on this socket has ended or failed, as far as this machine knows.

    Asks the kernel, takes a microsecond or two, never waits, and reads nothing. A flow that died
    without a sign looks alive. Without ``poll`` so does one with something before its end that was
    not read yet.
    """
    if not _HAS_POLL:
        return _peek(fileno) == b""
    poll = select.poll()
    poll.register(fileno, _END)
    return bool(poll.poll(0))


def says_good_bye(fileno: int) -> bool:
    """Whether what is to be read next, on a connection that nobody waits on, is an error.

    A server says why it ends an idle connection, and ends it after that: in between the stream has
    no end yet. Reads nothing. With TLS this can't be seen: False.
    """
    return _peek(fileno) == _ERROR


def shut_down(fileno: int) -> None:
    """End both halves of the stream: a task that waits on this socket reads its end.

    Leaves the descriptor open. Says nothing where the other side was first.
    """
    with contextlib.suppress(OSError):
        borrowed = socket.socket(fileno=fileno)
        try:
            borrowed.shutdown(socket.SHUT_RDWR)
        finally:
            borrowed.detach()


def _peek(fileno: int) -> bytes | None:
    """The next byte to be read, and no byte at the end or after an error; None: there is none yet.

    Never waits, also where the socket is one that blocks.
    """
    try:
        borrowed = socket.socket(fileno=fileno)
        try:
            if not _AT_ONCE and not select.select([borrowed], [], [], 0)[0]:
                return None
            return borrowed.recv(1, socket.MSG_PEEK | _AT_ONCE)
        finally:
            borrowed.detach()
    except BlockingIOError:
        return None
    except OSError:
        return b""
