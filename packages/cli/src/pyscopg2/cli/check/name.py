"""A host's name -> its addresses."""

import asyncio
import socket


async def resolve_name(name: str) -> tuple[str, ...]:
    """The addresses in the order in which they are tried. `OSError`: the name is unknown."""
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError as exc:
        # A part of the name is empty, or longer than 63 characters.
        raise OSError(f"not a host's name ({type(exc).__name__})") from None
    return tuple(dict.fromkeys(str(row[4][0]) for row in rows))
