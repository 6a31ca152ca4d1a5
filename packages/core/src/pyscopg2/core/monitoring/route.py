"""Whether something stands between an address and the server that answers there."""

import asyncio
import ipaddress
import socket

from pyscopg2.core.dsn.target import Target
from pyscopg2.core.timing.background import Background


class Route:
    """Remembers of one host whether the server that answers is the one that its address names."""

    def __init__(self, target: Target, background: Background) -> None:
        self._target = target
        self._background = background
        self._known: dict[str | None, bool] = {}
        """By the address that a server knows as its own."""
        self._looking_up: set[str | None] = set()

    def is_direct(self, server: str | None) -> bool:
        """As far as it is known by now: a name is looked up beside the checks, and is False until
        then."""
        known = self._known.get(server)
        if known is None:
            known = _compare(self._target, server)
            if known is not None:
                self._known[server] = known
            elif server not in self._looking_up:
                self._looking_up.add(server)
                self._background.spawn(self._look_up(server))
        return known is True

    def reconsider(self) -> None:
        """The address was dialled anew: it may lead elsewhere now."""
        self._known.clear()

    async def _look_up(self, server: str | None) -> None:
        try:
            known = await _find_out(self._target, server)
        finally:
            self._looking_up.discard(server)
        if known is not None:
            self._known[server] = known


async def is_direct(target: Target, server: str | None) -> bool:
    """Whether ``server``, the address and the port that a server knows as its own, are those that
    the target names. If not, a balancer, a Kubernetes service or a translated address stands
    between, and may lead to several servers.

    True where the server did not tell: so it is over a Unix-domain socket. A name that cannot be
    looked up now tells nothing: False.
    """
    return await _find_out(target, server) is True


async def _find_out(target: Target, server: str | None) -> bool | None:
    """`is_direct`; None where a name cannot be looked up now."""
    known = _compare(target, server)
    if known is not None:
        return known
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError:
        return None
    own, _ = _split(str(server))
    return own in {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}


def _compare(target: Target, server: str | None) -> bool | None:
    """`is_direct`; None where a name has to be looked up first."""
    dialled = target.hostaddr or target.host
    if server is None or dialled is None or dialled.startswith(("/", "@")):
        return True
    own, port = _split(server)
    if port != target.port:
        return False
    try:
        return ipaddress.ip_address(dialled) == own
    except ValueError:
        return None


def _split(server: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    address, _, port = server.rpartition(":")
    return ipaddress.ip_address(address), int(port)
