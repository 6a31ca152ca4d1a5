"""The addresses of a host, which libpq is not left to look up."""

import asyncio
import ipaddress
import socket

from pyscopg2.core.dsn.target import Target


async def addresses(target: Target) -> list[dict[str, str]]:
    """What to add to the settings, for each address to be tried in turn.

    libpq would look a name up in the event loop's thread, and on its way from one address to the
    next it changes the socket, of which aiopg takes no notice.
    """
    host = target.host
    if host is None or target.hostaddr or not _is_name(host):
        return [{}]
    found = await asyncio.get_running_loop().getaddrinfo(host, target.port, type=socket.SOCK_STREAM)
    return [{"hostaddr": address} for address in dict.fromkeys(str(i[4][0]) for i in found)]


def _is_name(host: str) -> bool:
    """Rather than the directory of a socket, or an address."""
    if host.startswith(("/", "@")):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
