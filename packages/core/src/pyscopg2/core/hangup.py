"""Whether the other side of a socket has hung up, for drivers that don't notice by themselves."""

import select

# Not POLLIN: what has come but was not read yet, a notice perhaps, is no end. Linux tells when the
# other side has ended its half of the stream; elsewhere that is a hangup already.
_END = getattr(select, "POLLRDHUP", select.POLLHUP)


def hung_up(fileno: int) -> bool:
    """Whether the stream on this socket has ended or failed, as far as this machine knows.

    Asks the kernel, takes a microsecond or two, never waits, and reads nothing. A flow that died
    without a sign looks alive.
    """
    poll = select.poll()
    poll.register(fileno, _END)
    return bool(poll.poll(0))
