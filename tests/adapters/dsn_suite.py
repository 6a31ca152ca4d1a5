"""What a DSN says, and what stands beside it, has its effect: the same tests for every adapter.

Subclass `DsnSuite` with one fixture, `subject`.
"""

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from pyscopg2.base import BasePoolManager
from pyscopg2.core.adapter import TakesExtraParams
from pyscopg2.core.dsn import Surroundings, Target, resolve
from pyscopg2.core.errors import DsnError
from pyscopg2.testing.cluster import LocalCluster, Node

PATIENCE = 30.0
"""Seconds after which a condition is taken for one that never comes, also on a busy machine."""

PRINTABLE = "".join(chr(code) for code in range(32, 127)) + "äß€漢"
SPECIAL = "".join(character for character in PRINTABLE[:95] if not character.isalnum())

KEY_PASSWORD = "p/w %&="

Manager = BasePoolManager[Any, Any]


@dataclass(frozen=True)
class DsnSubject:
    """The manager, and what its tests have to know of its driver."""

    make: Callable[..., Manager]
    """The class."""
    scalar: Callable[[Any, str], Awaitable[object]]
    """The first column of the first row, by a user's connection."""
    sizes: Mapping[str, Any]
    """Pool options for few connections."""
    scheme: str = "postgresql://"
    fileno: Callable[[Any], int] | None = None
    """The descriptor of a connection's socket, where the driver takes libpq's keepalives."""
    is_libpq: bool = True
    """Whether the driver uses libpq."""
    work_mem: Mapping[str, Any] | None = None
    """Pool options that set it to 2MB, by a way that the driver has beside the DSN."""
    read: Callable[[Target], Mapping[str, Any]] | None = None
    """What the driver's own parser reads, by libpq's names, of what the adapter makes of it."""


@dataclass(frozen=True)
class Authority:
    """Certificates of an authority, of one that nobody trusts, of a client and of the server."""

    ca: Path
    stranger: Path
    certificate: Path
    key: Path
    server: Path
    encrypted_key: Path
    """The client's, with `KEY_PASSWORD`."""


class DsnSuite:
    @pytest.fixture(scope="class")
    @classmethod
    def authority(cls, tmp_path_factory: pytest.TempPathFactory) -> Authority:
        folder = tmp_path_factory.mktemp("tls")
        ca, stranger = trustme.CA(), trustme.CA()
        server = ca.issue_cert("localhost")
        client = ca.issue_cert("client@example.org", common_name="client")
        files = ("ca", "stranger", "cert", "key", "server", "encrypted-key")
        names = Authority(*(folder / name for name in files))
        ca.cert_pem.write_to_path(names.ca)
        stranger.cert_pem.write_to_path(names.stranger)
        client.private_key_pem.write_to_path(names.key)
        names.key.chmod(0o600)
        key = serialization.load_pem_private_key(client.private_key_pem.bytes(), None)
        names.encrypted_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(KEY_PASSWORD.encode()),
            )
        )
        names.encrypted_key.chmod(0o600)
        client.cert_chain_pems[0].write_to_path(names.certificate)
        server.private_key_and_cert_chain_pem.write_to_path(names.server)
        return names

    @pytest.fixture(scope="class")
    @classmethod
    def dsn_cluster(cls) -> Iterator[LocalCluster]:
        with LocalCluster(replicas=1) as cluster:
            yield cluster

    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("HOME", str(tmp_path))
        return tmp_path

    @pytest.fixture
    def bench(self, subject: DsnSubject, dsn_cluster: LocalCluster) -> "Bench":
        return Bench(subject, dsn_cluster)

    @pytest.fixture
    async def front(
        self, dsn_cluster: LocalCluster, authority: Authority
    ) -> AsyncIterator["TlsFront"]:
        async with TlsFront(dsn_cluster.primary, authority).serving() as front:
            yield front

    # Parameters

    async def test_session_parameters(self, bench: "Bench") -> None:
        options = quote("-c search_path=a,\\ b -c geqo=off")
        async with bench.manager(f"application_name=a%20b&options={options}") as manager:
            assert await bench.show(manager, "application_name") == "a b"
            assert await bench.show(manager, "geqo") == "off"
            assert await bench.show(manager, "search_path") == "a, b"

    async def test_fallback_application_name(self, bench: "Bench") -> None:
        async with bench.manager("fallback_application_name=second") as manager:
            assert await bench.show(manager, "application_name") == "second"
        async with bench.manager(
            "fallback_application_name=second&application_name=first"
        ) as manager:
            assert await bench.show(manager, "application_name") == "first"

    async def test_client_encoding(self, bench: "Bench") -> None:
        async with bench.manager("client_encoding=UTF8") as manager:
            assert await bench.show(manager, "client_encoding") == "UTF8"

    async def test_keepalives(self, bench: "Bench") -> None:
        params = "keepalives=1&keepalives_idle=77&keepalives_interval=7&tcp_user_timeout=77000"
        async with bench.manager(params) as manager, manager.acquire_master() as connection:
            assert await bench.subject.scalar(connection, "SELECT 1") == 1
            if bench.subject.fileno is not None:
                with socket.socket(fileno=socket.dup(bench.subject.fileno(connection))) as own:
                    assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    if hasattr(socket, "TCP_KEEPIDLE"):
                        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77

    async def test_connect_timeout(self, bench: "Bench") -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            (target,) = bench.resolve(f"u:p@127.0.0.1:{port}/d?connect_timeout=1&sslmode=disable")
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(Exception) as caught:
                    await bench.create_pool(target)
        assert not isinstance(caught.value, TypeError | ValueError)

    async def test_every_printable_character_in_a_password(self, bench: "Bench") -> None:
        quoted = PRINTABLE.replace("'", "''")
        node = bench.cluster.primary
        bench.cluster.psql(
            node,
            "DROP ROLE IF EXISTS printable;"
            " SET standard_conforming_strings = on;"
            f" CREATE ROLE printable LOGIN PASSWORD '{quoted}'",
        )
        bench.cluster.wait_streaming()
        async with bench.manager("", f"printable:{quote(PRINTABLE, safe='')}") as manager:
            await manager.ready(timeout=PATIENCE)

    async def test_every_special_character_anywhere(self, bench: "Bench") -> None:
        dbname = SPECIAL + "äß€漢"
        # asyncpg sends a comma and an equals sign as they are where SCRAM wants them escaped.
        user = dbname.replace(",", "").replace("=", "")
        primary = bench.cluster.primary
        for sql in (
            f"DROP DATABASE IF EXISTS {_identifier(dbname)}",
            f"DROP ROLE IF EXISTS {_identifier(user)}",
            f"CREATE ROLE {_identifier(user)} LOGIN PASSWORD 'x'",
            f"CREATE DATABASE {_identifier(dbname)}",
        ):
            bench.cluster.psql(primary, sql)
        netloc = f"{_encoded(user)}:x@{primary.host}:{primary.port}/{_encoded(dbname)}"
        params = f"application_name={_encoded(SPECIAL)}"
        async with bench.opened(f"{bench.subject.scheme}{netloc}?{params}") as manager:
            assert await bench.scalar(manager, "SELECT current_user") == user
            assert await bench.scalar(manager, "SELECT current_database()") == dbname
            assert await bench.show(manager, "application_name") == SPECIAL

    @pytest.mark.parametrize("value", [PRINTABLE, "'", "\\", " ", "\n", "a b"])
    def test_the_drivers_own_parser_reads_what_the_target_says(
        self, bench: "Bench", value: str
    ) -> None:
        if bench.subject.read is None:
            pytest.skip("the driver has none: what the server sees tells")
        for place in (("db1", None), ("::1", "::1"), ("/run/a b", None)):
            host, hostaddr = place
            params = {"application_name": value, "sslpassword": value}
            target = Target(host, 6432, value, value, value, params, hostaddr)
            expected = {name: str(said) for name, said in target.to_kwargs().items()}
            assert expected.items() <= bench.subject.read(target).items()

    async def test_unknown_parameters(self, bench: "Bench") -> None:
        if bench.takes_extra_params():
            params = "statement_timeout=4321&search_path="
            async with bench.manager(params) as manager:
                assert await bench.show(manager, "statement_timeout") == "4321ms"
                assert await bench.show(manager, "search_path") == ""
            with pytest.raises(ValueError, match="database: a DSN has the database in dbname"):
                bench.subject.make(bench.uri("database=other"))
        else:
            with pytest.raises(DsnError, match="unknown parameter"):
                bench.subject.make(bench.uri("statement_timeout=4321"))

    async def test_the_pools_own_settings_count_before_those_of_the_dsn(
        self, bench: "Bench"
    ) -> None:
        if bench.subject.work_mem is None:
            pytest.skip("the driver has one way for both")
        uri = bench.uri("work_mem=1MB&statement_timeout=4321")
        async with bench.opened(uri, bench.subject.work_mem) as manager:
            assert await bench.show(manager, "work_mem") == "2MB"
            assert await bench.show(manager, "statement_timeout") == "4321ms"

    @pytest.mark.parametrize(
        "params",
        [
            *("require_auth=none", "channel_binding=require", "requirepeer=x"),
            *("gssencmode=require", "sslcertmode=disable", "sslsni=0", "sslcrldir=/crls"),
            "sslcrl=/crl&sslrootcert=system",
        ],
    )
    async def test_what_the_driver_can_not_do_is_refused_not_forgotten(
        self, bench: "Bench", params: str
    ) -> None:
        if bench.subject.is_libpq:
            pytest.skip("libpq does")
        with pytest.raises(ValueError, match=params.partition("=")[0]):
            bench.subject.make(bench.uri(params))

    # TLS

    @pytest.mark.parametrize(("mode", "is_on"), [("disable", False), ("require", True)])
    async def test_sslmode(self, bench: "Bench", front: "TlsFront", mode: str, is_on: bool) -> None:
        async with bench.opened(front.uri(bench, f"sslmode={mode}")) as manager:
            assert await bench.scalar(manager, "SELECT 1") == 1
        assert {*front.seen} == {"TLS" if is_on else "plain"}

    async def test_a_server_with_the_right_certificate(
        self, bench: "Bench", front: "TlsFront", authority: Authority
    ) -> None:
        params = f"sslmode=verify-full&sslrootcert={quote(str(authority.ca))}"
        async with bench.opened(front.uri(bench, params)) as manager:
            assert await bench.scalar(manager, "SELECT 1") == 1
        assert {*front.seen} == {"TLS"}

    @pytest.mark.parametrize(
        ("mode", "host", "trusts_stranger"),
        [
            ("verify-full", "localhost", True),
            ("verify-ca", "localhost", True),
            ("verify-full", "127.0.0.1", False),
        ],
        ids=["wrong CA", "wrong CA, any name", "wrong name"],
    )
    async def test_a_server_with_the_wrong_certificate(
        self,
        bench: "Bench",
        front: "TlsFront",
        authority: Authority,
        mode: str,
        host: str,
        trusts_stranger: bool,
    ) -> None:
        ca = authority.stranger if trusts_stranger else authority.ca
        params = f"sslmode={mode}&sslrootcert={quote(str(ca))}"
        (target,) = bench.resolve(front.rest(bench, params, host))
        with pytest.raises(Exception, match=r"(?i)certificate"):
            await bench.create_pool(target)
        assert front.seen == []

    async def test_a_clients_certificate(
        self, bench: "Bench", front: "TlsFront", authority: Authority
    ) -> None:
        params = (
            f"sslmode=require&sslcert={quote(str(authority.certificate))}"
            f"&sslkey={quote(str(authority.key))}"
        )
        async with bench.opened(front.uri(bench, params)) as manager:
            assert await bench.scalar(manager, "SELECT 1") == 1
        assert {*front.seen} == {"TLS of client"}

    @pytest.mark.parametrize("is_system", [False, True], ids=["file", "system"])
    async def test_all_of_tls(
        self,
        bench: "Bench",
        front: "TlsFront",
        authority: Authority,
        is_system: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca if is_system else authority.stranger))
        ca = "system" if is_system else quote(str(authority.ca))
        params = (
            f"sslmode=verify-full&sslrootcert={ca}&sslcert={quote(str(authority.certificate))}"
            f"&sslkey={quote(str(authority.encrypted_key))}"
            f"&sslpassword={quote(KEY_PASSWORD, safe='')}&ssl_min_protocol_version=tlsv1.3"
        )
        async with bench.opened(front.uri(bench, params)) as manager:
            assert await bench.scalar(manager, "SELECT 1") == 1
        assert {*front.seen} == {"TLS of client"}
        front.seen.clear()
        front.context.maximum_version = ssl.TLSVersion.TLSv1_2
        (target,) = bench.resolve(front.rest(bench, params))
        with pytest.raises(Exception) as caught:
            await bench.create_pool(target)
        assert not isinstance(caught.value, TypeError | ValueError)
        assert front.seen == []

    async def test_authorities_that_the_system_does_not_have(
        self,
        bench: "Bench",
        front: "TlsFront",
        authority: Authority,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.stranger))
        (target,) = bench.resolve(front.rest(bench, "sslrootcert=system"))
        with pytest.raises(Exception, match=r"(?i)certificate"):
            await bench.create_pool(target)
        assert front.seen == []

    async def test_an_empty_parameter_of_tls_is_none_of_the_environments(
        self,
        bench: "Bench",
        front: "TlsFront",
        authority: Authority,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The stranger's certificates stand there: who takes them sees a wrong one."""
        monkeypatch.setenv("PGSSLROOTCERT", str(authority.stranger))
        uri = front.uri(bench, "sslmode=require&sslrootcert=")
        if bench.subject.is_libpq:
            async with bench.opened(uri) as manager:
                assert await bench.scalar(manager, "SELECT 1") == 1
        else:
            with pytest.raises(ValueError, match="sslrootcert: empty, but"):
                bench.subject.make(uri)

    async def test_tls_from_the_environment(
        self,
        bench: "Bench",
        front: "TlsFront",
        authority: Authority,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("PGSSLMODE", "verify-full")
        monkeypatch.setenv("PGSSLROOTCERT", str(authority.ca))
        async with bench.opened(front.uri(bench, "")) as manager:
            assert await bench.scalar(manager, "SELECT 1") == 1
        assert {*front.seen} == {"TLS"}
        monkeypatch.setenv("PGSSLROOTCERT", str(authority.stranger))
        (target,) = bench.resolve(front.rest(bench, ""))
        with pytest.raises(Exception, match=r"(?i)certificate"):
            await bench.create_pool(target)

    # What stands beside the text

    async def test_all_from_the_environment(
        self, bench: "Bench", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nodes = bench.cluster.nodes
        environ = {
            "PGHOST": ",".join(node.host for node in nodes),
            "PGPORT": ",".join(str(node.port) for node in nodes),
            "PGUSER": bench.cluster.user,
            "PGPASSWORD": bench.cluster.password,
            "PGDATABASE": "template1",
            "PGAPPNAME": "from-environ",
            "PGOPTIONS": "-c geqo=off",
            "PGSSLMODE": "disable",
            "PGCONNECT_TIMEOUT": "20",
            "PGTARGETSESSIONATTRS": "read-write",
            "PGLOADBALANCEHOSTS": "random",
        }
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        async with bench.opened(bench.subject.scheme) as manager:
            await manager.ready(1, len(nodes) - 1, timeout=PATIENCE)
            assert await bench.show(manager, "application_name") == "from-environ"
            assert await bench.show(manager, "geqo") == "off"
            assert await bench.scalar(manager, "SELECT current_database()") == "template1"

    async def test_a_service_and_a_password_file(
        self, bench: "Bench", home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nodes = bench.cluster.nodes
        hosts = ",".join(node.host for node in nodes)
        ports = ",".join(str(node.port) for node in nodes)
        (home / ".pg_service.conf").write_text(
            f"[app]\nhost={hosts}\nport={ports}\nuser={bench.cluster.user}\ndbname=template1\n"
            "application_name=from service\ntarget_session_attrs=standby\n"
        )
        passfile = home / ".pgpass"
        passfile.write_text(
            "".join(
                f"{node.host}:{node.port}:*:{bench.cluster.user}:{bench.cluster.password}\n"
                for node in nodes
            )
        )
        passfile.chmod(0o600)
        # One that is not there: the DSN's own counts, for the driver too.
        monkeypatch.setenv("PGSERVICE", "elsewhere")
        async with bench.opened(f"{bench.subject.scheme}?service=app") as manager:
            await manager.ready(1, len(nodes) - 1, timeout=PATIENCE)
            assert await bench.show(manager, "application_name") == "from service"

    async def test_the_environment_does_not_add_what_the_dsn_has(
        self, bench: "Bench", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = {
            "PGHOST": "/nonexistent/a,/nonexistent/b,",
            "PGPORT": "1,2,3",
            "PGUSER": "nobody",
            "PGPASSWORD": "wrong",
            "PGDATABASE": "nowhere",
            "PGAPPNAME": "wrong",
            "PGSSLMODE": "verify-full",
        }
        for name, value in wrong.items():
            monkeypatch.setenv(name, value)
        async with bench.manager("sslmode=disable&application_name=right") as manager:
            await manager.ready(timeout=PATIENCE)
            assert await bench.show(manager, "application_name") == "right"

    async def test_a_variable_that_this_libpq_does_not_know(
        self, bench: "Bench", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It came with libpq 18; psycopg2 brings an older one, which does as it says even so."""
        monkeypatch.setenv("PGMINPROTOCOLVERSION", "3.0")
        monkeypatch.setenv("PGMAXPROTOCOLVERSION", "latest")
        async with bench.manager("") as manager:
            assert await bench.scalar(manager, "SELECT 1") == 1

    # The choice of a host

    @pytest.mark.parametrize("attrs", ["read-write", "standby", "any"])
    @pytest.mark.parametrize("place", ["DSN", "environment"])
    async def test_parameters_that_choose_a_host_cost_no_host_its_place(
        self,
        bench: "Bench",
        attrs: str,
        place: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.WARNING, logger="pyscopg2")
        params = f"target_session_attrs={attrs}&load_balance_hosts=random"
        if place == "environment":
            monkeypatch.setenv("PGTARGETSESSIONATTRS", attrs)
            monkeypatch.setenv("PGLOADBALANCEHOSTS", "random")
            params = ""
        async with bench.manager(params) as manager:
            await manager.ready(1, 1, timeout=PATIENCE)
            warned = [r.getMessage() for r in caplog.records if "ignored" in r.getMessage()]
        assert [text.partition(" is")[0].split(": ")[-1] for text in warned] == [
            *([f"target_session_attrs={attrs}"] if attrs != "any" else []),
            "load_balance_hosts=random",
        ]


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _encoded(text: str) -> str:
    return quote(text, safe="")


_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class TlsFront:
    """A server's own front door, with TLS: the bundled PostgreSQL is built without.

    It answers a request for TLS as a server does, and hands on what comes through.
    """

    def __init__(self, node: Node, authority: Authority) -> None:
        self.node = node
        self.seen: list[str] = []
        """How each connection came in that has spoken to the server: plain or TLS, and whose."""
        self.port = 0
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(authority.server)
        self.context.load_verify_locations(authority.ca)
        self.context.verify_mode = ssl.CERT_OPTIONAL

    def rest(self, bench: "Bench", params: str, host: str = "localhost") -> str:
        cluster = bench.cluster
        return f"{cluster.user}:{cluster.password}@{host}:{self.port}/{cluster.database}?{params}"

    def uri(self, bench: "Bench", params: str) -> str:
        return bench.subject.scheme + self.rest(bench, params)

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator["TlsFront"]:
        connections: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(accept, "127.0.0.1")
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen = "plain"
            first = await reader.readexactly(8)
            if first == _SSL_REQUEST:
                writer.write(b"S")
                await writer.start_tls(self.context)
                first = await reader.readexactly(8)
                certificate: Any = writer.get_extra_info("peercert") or {}
                names = [value for rdn in certificate.get("subject", ()) for _, value in rdn]
                seen = "TLS of client" if "client" in names else "TLS"
            self.seen.append(seen)
            back, forth = await asyncio.open_connection(self.node.host, self.node.port)
            try:
                forth.write(first)
                _, pending = await asyncio.wait(
                    [
                        asyncio.ensure_future(_pump(reader, forth)),
                        asyncio.ensure_future(_pump(back, writer)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
            finally:
                forth.close()
        except (OSError, EOFError):
            pass  # the client has had enough
        finally:
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@dataclass(frozen=True)
class Bench:
    subject: DsnSubject
    cluster: LocalCluster

    def netloc(
        self, account: str = "", host: str | None = None, nodes: list[Node] | None = None
    ) -> str:
        """What stands behind the scheme: the account, the hosts and the database."""
        account = account or f"{self.cluster.user}:{self.cluster.password}"
        hosts = ",".join(f"{host or n.host}:{n.port}" for n in nodes or self.cluster.nodes)
        return f"{account}@{hosts}/{self.cluster.database}"

    def uri(self, params: str = "", account: str = "", host: str | None = None) -> str:
        return f"{self.subject.scheme}{self.netloc(account, host)}?{params}"

    @asynccontextmanager
    async def opened(
        self, dsn: str, options: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Manager]:
        kwargs = {**self.subject.sizes, **(options or {})}
        async with asyncio.timeout(2 * PATIENCE):
            async with self.subject.make(
                dsn, acquire_timeout=PATIENCE, pool_factory_kwargs=kwargs
            ) as manager:
                yield manager

    @asynccontextmanager
    async def manager(
        self, params: str, account: str = "", host: str | None = None
    ) -> AsyncGenerator[Manager]:
        async with self.opened(self.uri(params, account, host)) as manager:
            yield manager

    async def scalar(self, manager: Manager, sql: str) -> object:
        async with manager.acquire_master() as connection:
            return await self.subject.scalar(connection, sql)

    def show(self, manager: Manager, name: str) -> Awaitable[object]:
        return self.scalar(manager, f"SELECT current_setting('{name}')")

    def adapter(self) -> Any:
        return self.subject.make(self.uri()).adapter

    def takes_extra_params(self) -> bool:
        adapter = self.adapter()
        return isinstance(adapter, TakesExtraParams) and adapter.extra_params is True

    def resolve(self, rest: str) -> tuple[Target, ...]:
        return resolve(f"postgresql://{rest}", Surroundings.here()).targets

    async def create_pool(self, target: Target) -> None:
        """Create a pool and end it; raises what creating it raises."""
        adapter = self.adapter()
        pool = await adapter.create_pool(target, **self.subject.sizes)
        await adapter.terminate_pool(pool)
