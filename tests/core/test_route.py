"""Whether something stands between an address and its server, and what that is to reads."""

import socket

import pytest
from tests.core.conftest import Bench, virtual

from pyscopg2.core.dsn import parse_dsn
from pyscopg2.core.monitoring.route import Route, is_direct
from pyscopg2.core.timing.background import Background


class Names:
    """A name service: where all names lead to; nowhere, while they cannot be looked up."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses
        self.asked = 0

    def look_up(self, name: str, port: int, *_: object, **__: object) -> object:
        self.asked += 1
        if not self.addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "not now")
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (address, port)) for address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names(("10.0.0.2",))
    monkeypatch.setattr(socket, "getaddrinfo", made.look_up)
    return made


@pytest.mark.parametrize(
    ("host", "server", "direct"),
    [
        ("10.0.0.1", "10.0.0.1:5432", True),
        ("10.0.0.1", "10.0.0.2:5432", False),
        ("10.0.0.1", "10.0.0.1:5433", False),
        ("10.0.0.1", None, True),
        ("[::1]", "::1:5432", True),
        ("[0:0::1]", "::1:5432", True),
        ("[::1]", "::2:5432", False),
        ("%2Ftmp", "10.0.0.1:5432", True),
        ("db", "10.0.0.1:5432", True),
        ("db", "10.0.0.3:5432", False),
        ("nowhere", "10.0.0.1:5432", False),
    ],
)
async def test_what_stands_between(
    host: str, server: str | None, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(name: str, port: int, *_: object, **__: object) -> object:
        if name != "db":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (address, port)) for address in ("10.0.0.2", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    (target,) = parse_dsn(f"postgresql://{host}:5432/test?user=u")
    assert await is_direct(target, server) is direct


@virtual
async def test_a_name_is_looked_up_beside_the_checks_and_unknown_till_then(names: Names) -> None:
    (target,) = parse_dsn("postgresql://db:5432/test?user=u")
    background = Background()
    route = Route(target, background)
    for _ in range(3):
        assert not route.is_direct("10.0.0.2:5432")
    await background.drain(1)
    for _ in range(3):
        assert route.is_direct("10.0.0.2:5432")
    assert names.asked == 1
    # Dialled anew.
    names.addresses = ("10.9.0.1",)
    route.reconsider()
    assert not route.is_direct("10.0.0.2:5432")
    await background.drain(1)
    assert not route.is_direct("10.0.0.2:5432")
    assert names.asked == 2


async def questions(bench: Bench) -> int:
    """How often a read asks its server which one it is."""
    asked = bench["db2"].queries
    async with bench.manager.acquire_replica(max_lag=60) as connection:
        assert connection.server.name == "db2"
    return bench["db2"].queries - asked


@virtual
async def test_a_name_that_can_not_be_looked_up_now_is_looked_up_again(names: Names) -> None:
    async with Bench(replicas=1, ready=False, refresh_delay=30) as bench:
        bench["db2"].address = "10.0.0.2:5432"
        names.addresses = ()
        await bench.manager.ready()
        await bench.check()
        assert await questions(bench) == 1
        names.addresses = ("10.0.0.1", "10.0.0.2")
        for _ in range(2):
            await bench.check()
        assert await questions(bench) == 0


@virtual
async def test_a_name_that_has_become_a_services_has_each_connection_asked(names: Names) -> None:
    async with Bench(replicas=1, ready=False, refresh_delay=30) as bench:
        bench["db2"].address = "10.0.0.2:5432"
        await bench.manager.ready()
        await bench.check()
        assert await questions(bench) == 0
        names.addresses = ("10.9.0.1",)
        bench["db2"].break_connections()
        for _ in range(2):
            await bench.check()
        assert await questions(bench) == 1
