"""Whether the process has the hosts that it needs."""

from typing import Any

from pyscopg2.asgi import arguments
from pyscopg2.asgi.arguments import Manager, ManagerOf
from pyscopg2.asgi.endpoint import Endpoint, json_response


class Ready(Endpoint):
    """Answers 200 while there are so many masters and replicas, and 503 while there are not.

    The body is JSON, and says of each host what it is, and whether it would serve a write and a
    read, and if not, why. All of it is known already: nothing is awaited, and no query is sent. It
    starts no manager.
    """

    def __init__(self, manager: Manager | ManagerOf, masters: int = 1, replicas: int = 0) -> None:
        """
        :param manager: the pool manager that the application uses, or a function of a request's
            scope that returns it, for applications that make it in their lifespan.
        :param masters: so many at least.
        :param replicas: so many at least.
        :raises TypeError: an argument of the wrong kind.
        :raises ValueError: a number that is negative.
        """
        self._manager_of = arguments.require_manager(manager)
        self._masters = arguments.require_count("masters", masters)
        self._replicas = arguments.require_count("replicas", replicas)

    async def get(self, scope: Any, receive: Any, send: Any) -> None:
        manager = self._manager_of(scope)
        masters, replicas = manager.master_pool_count, manager.replica_pool_count
        ready = masters >= self._masters and replicas >= self._replicas
        told = {
            "ready": ready,
            "demanded": {"masters": self._masters, "replicas": self._replicas},
            "found": {"masters": masters, "replicas": replicas},
            "writes": manager.explain().as_dict(),
            "reads": manager.explain(read_only=True).as_dict(),
            "topology": manager.topology.as_dict(),
        }
        await json_response(200 if ready else 503, told).send(scope, send)
