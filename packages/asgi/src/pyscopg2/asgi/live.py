"""Whether the process lives."""

from typing import Any

from pyscopg2.asgi.endpoint import Endpoint, json_response


class Live(Endpoint):
    """Answers 200 to every GET and HEAD: the event loop runs. It asks nothing and nobody, so that
    a database that is down restarts no process."""

    async def get(self, scope: Any, receive: Any, send: Any) -> None:
        await json_response(200, {"live": True}).send(scope, send)
