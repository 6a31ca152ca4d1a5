"""A page that shows a manager while it works."""

import asyncio
import secrets
import time
from contextlib import aclosing
from typing import Any
from weakref import WeakKeyDictionary

from pyscopg2.asgi import arguments
from pyscopg2.asgi.arguments import Manager, ManagerOf
from pyscopg2.asgi.document import DOCUMENT
from pyscopg2.asgi.endpoint import NOT_STORED, Endpoint, text_response
from pyscopg2.asgi.journal import Journal
from pyscopg2.asgi.stream import Heading, Stream

MOST = 32
"""Pages that may be open at a time: each costs something."""


class StatusPage(Endpoint):
    """One page, at the path where this is mounted, and below it ``events``, the stream of
    server-sent events that it follows: what the hosts are and were in the last ten minutes, how
    busy they are, how far behind, and what happens.

    It shows addresses, errors and numbers to everybody who may ask for it: it is for those who run
    the service, and does not ask who they are.
    """

    def __init__(
        self,
        manager: Manager | ManagerOf,
        *,
        title: str = "pyscopg2",
        renew_after: float = 15.0,
    ) -> None:
        """
        :param manager: the pool manager that the application uses, or a function of a request's
            scope that returns it, for applications that make it in their lifespan. What is shown
            of the past begins here; with a function, at the first request.
        :param title: stands at the top, and tells one service from another.
        :param renew_after: after so many seconds, from 1 to 86,400, a page asks anew. A server that
            waits for open responses before it ends waits no longer than that.
        :raises TypeError: an argument of the wrong kind.
        :raises ValueError: a title that is empty; a time that is out of its range.
        """
        self._manager_of = arguments.require_manager(manager)
        self._heading = Heading(arguments.require_title(title), secrets.token_hex(8))
        self._renew_after = arguments.require_renewal(renew_after)
        self._journals: WeakKeyDictionary[Manager, Journal] = WeakKeyDictionary()
        self._streams: set[Stream] = set()
        self._is_closed = False
        if arguments.is_manager(manager):
            self._journal_of(manager)

    def close(self) -> None:
        """End the open streams, and open no more. Safe to call again.

        The end of a lifespan does it where this is run by itself, and the manager's end in any
        case. Call it where your server tells early that it is going to end.
        """
        self._is_closed = True
        for stream in self._streams:
            stream.close()

    async def get(self, scope: Any, receive: Any, send: Any) -> None:
        match _path(scope):
            case "":
                await DOCUMENT.send(scope, send)
            case "events":
                await self._follow(scope, receive, send)
            case _:
                await text_response(404, "nothing is here").send(scope, send)

    async def _follow(self, scope: Any, receive: Any, send: Any) -> None:
        manager = self._manager_of(scope)
        journal = self._journal_of(manager)
        if self._is_closed or len(self._streams) >= MOST:
            why = "it ends" if self._is_closed else f"{MOST} pages are open"
            await text_response(503, why).send(scope, send)
            return
        headers = [
            (b"content-type", b"text/event-stream"),
            # So that nginx passes on what comes, when it comes.
            (b"x-accel-buffering", b"no"),
            *NOT_STORED,
        ]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body"})
            return
        stream = Stream(manager, journal, self._heading, self._renew_after)
        self._streams.add(stream)
        try:
            await send(start)
            await _tell(stream, receive, send)
        finally:
            stream.close()
            self._streams.discard(stream)

    def _journal_of(self, manager: Manager) -> Journal:
        journal = self._journals.get(manager)
        if journal is None:
            journal = self._journals[manager] = Journal(manager.topology, time.time())
            manager.subscribe(journal.hear)
        return journal


async def _tell(stream: Stream, receive: Any, send: Any) -> None:
    """Until the stream ends, or the client leaves, also while it does not take what is sent."""
    sending = asyncio.ensure_future(_send(stream, send))
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        sending.cancel()
        leaving.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)


async def _send(stream: Stream, send: Any) -> None:
    try:
        async with aclosing(stream.messages()) as messages:
            async for message in messages:
                await send({"type": "http.response.body", "body": message, "more_body": True})
        await send({"type": "http.response.body"})
    except OSError:
        # What ASGI servers say where the client has left.
        pass


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _path(scope: Any) -> str:
    """Below where this is mounted. Servers and frameworks disagree on whether ``path`` has the
    mount point in front, and on slashes at the end."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")).strip("/")
