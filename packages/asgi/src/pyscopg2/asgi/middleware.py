"""The middleware: a causal session for each request and each websocket."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

from pyscopg2.asgi import arguments
from pyscopg2.asgi.arguments import Application, Manager, ManagerOf, Secret
from pyscopg2.asgi.carrier import Headers
from pyscopg2.asgi.counts import Counts
from pyscopg2.asgi.reach import NOTHING, Reach, reach_of, system_of
from pyscopg2.asgi.signer import Refusal, Signer
from pyscopg2.asgi.token import Token
from pyscopg2.core.timing import stopwatch

MOST = 4
"""Tokens of one request that are looked at; more than two are nobody's who means well."""


class CausalMiddleware:
    """An ASGI application around another one: in it, requests see what their client has written.

    Each HTTP request and each websocket is a causal session (`BasePoolManager.causal`). It begins
    with what the token says that the request carries, and the response carries a new one where
    something was written. Tokens that are not in force are ignored, and counted.

    Other scopes, lifespans above all, are passed on as they are.
    """

    def __init__(
        self,
        app: Application,
        manager: Manager | ManagerOf,
        secret: Secret | Sequence[Secret],
        *,
        cookie: str | None = "pyscopg2-causal",
        header: str | None = None,
        age_limit: float = 300.0,
        secure: bool = True,
        path: str = "/",
    ) -> None:
        """No error shows a secret.

        :param manager: the pool manager that the application uses, or a function of a connection's
            scope that returns it, for applications that make it in their lifespan. It is called for
            each request and each websocket.
        :param secret: of at least 32 bytes; or several: the first one signs, and what was signed
            with any of them is read.
        :param cookie: the name of the cookie that carries tokens; None for none.
        :param header: the name of the header that carries tokens, of requests and responses; None
            for none. Where a request has both, both count.
        :param age_limit: for so many seconds after a write the client's reads are sure to see it.
        :param secure: browsers send the cookie over HTTPS alone.
        :param path: browsers send the cookie with requests to this path and what is below it.
        :raises TypeError: an argument of the wrong kind.
        :raises ValueError: a secret that is too short, or none; neither a cookie nor a header; a
            name or a path that a browser would refuse; an age limit below 1 second or above 400
            days, which is as long as browsers keep cookies.
        """
        self._app = arguments.require_app(app)
        self._manager_of = arguments.require_manager(manager)
        self._carrier = arguments.require_carrier(cookie, header, secure, path)
        self._age_limit = arguments.require_age_limit(age_limit)
        self._signer = Signer(arguments.require_secrets(secret), self._age_limit)
        self._counted: Counter[str] = Counter()

    @property
    def counts(self) -> Counts:
        """What became of the tokens that came, and of writes, so far: a snapshot."""
        return Counts(**self._counted)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI calls it.

        :raises TypeError: ``manager`` is a function, and returned no manager.
        :raises Exception: what the function raises, or the application.
        """
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        arrival = stopwatch.clock()
        manager = self._manager_of(scope)
        told = self._read(scope["headers"], manager)
        with manager.causal(after=told.position) as session:
            if told.waits:
                session.move_to(arrival)
            known = session.position, session.since

            async def tell(message: Any) -> None:
                nonlocal known, told
                if message["type"] == "http.response.start":
                    before, known = known, (session.position, session.since)
                    reach = reach_of(session, manager.topology)
                    # A token that says the same is issued again where something was written, for
                    # the age is that of the last write.
                    if reach != told or known != before or session.is_writing:
                        told = reach
                        new = self._carrier.headers(self._issue(reach), math.ceil(self._age_limit))
                        message = {**message, "headers": [*message.get("headers", ()), *new]}
                        self._counted["told"] += 1
                await send(message)

            try:
                await self._app(scope, receive, tell)
            finally:
                is_behind = (session.position, session.since) != known
                if (is_behind or session.is_writing) and not told.waits:
                    self._counted["untold"] += 1

    def _read(self, headers: Headers, manager: Manager) -> Reach:
        """What the tokens of a request say together, those that are in force."""
        reach = NOTHING
        found = list(islice(self._carrier.find(headers), MOST))
        if not found:
            return reach
        system = system_of(manager.topology)
        now = time.time()
        for signed in found:
            token = self._signer.read(signed, now)
            if isinstance(token, Token) and _is_foreign(token, system):
                token = Refusal.FOREIGN
            if isinstance(token, Token):
                self._counted["accepted"] += 1
                reach = token.reach.merge(reach)
            else:
                self._counted[token.value] += 1
        return reach

    def _issue(self, reach: Reach) -> str:
        return self._signer.sign(Token(int(time.time()), reach))


def _is_foreign(token: Token, system: int | None) -> bool:
    position = token.reach.position
    return position is not None and system not in (None, position.system_identifier)
