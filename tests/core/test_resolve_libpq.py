"""`resolve` against libpq itself: `PQconninfo` and `PQpass` of a connection that has begun.

`hatch run dsn` makes the properties look for longer.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import pq

from pyscopg2.core.dsn import Resolved, Surroundings, Target, resolve
from pyscopg2.core.dsn.keywords import ENVIRONMENT
from pyscopg2.core.errors import DsnError

EXAMPLES = os.environ.get("DSN_EXAMPLES")
properties = settings(
    max_examples=int(EXAMPLES or 300),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

DEFAULTS = pq.Conninfo.parse(b"")
KNOWN = [option.keyword.decode() for option in DEFAULTS]
ENDS_HERE = {"service", "target_session_attrs", "load_balance_hosts"}
PER_HOST = {"host", "hostaddr", "port", "password"}
FAILED = re.compile(
    r"connection to server .* failed: (?!invalid integer)|connection to server .* failed:$"
    r"|\tIs the server running|$"
)
OLD = pytest.mark.skipif(pq.version() < 180000, reason="parameters and limits are those of 18")


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Oracle:
    """What libpq makes of a conninfo string."""

    values: dict[str, str]
    """With what the environment and the service file say, and the defaults."""
    password: str
    refusal: str


def ask_libpq(conninfo: str) -> Oracle:
    connection = pq.PGconn.connect_start(encode(conninfo))
    try:
        values = {
            option.keyword.decode(): option.val.decode("utf-8", "surrogateescape")
            for option in connection.info
            if option.val is not None
        }
        message = connection.error_message.decode("utf-8", "replace")
        # That connecting fails is no refusal.
        lines = [line for line in message.splitlines() if not FAILED.match(line)]
        refused = connection.status == pq.ConnStatus.BAD and bool(lines)
        password = connection.password.decode("utf-8", "surrogateescape")
        return Oracle(values, password, message if refused else "")
    finally:
        connection.finish()


COMPILED = {o.keyword.decode(): o.compiled.decode() for o in DEFAULTS if o.compiled is not None}
COMPILED["sslcertmode"] = "allow"  # in another place


class World:
    """An environment and files, for libpq as for us."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.home = folder
        self.patch = patch
        self.here = Surroundings.here()
        self.passfile = folder / ".pgpass"
        self.service_file = folder / ".pg_service.conf"
        self.reset()
        self.default_host = compiled_default_host()  # now: a test's environment may be a bad one

    def reset(self) -> None:
        for name in list(os.environ):
            if name.startswith("PG") and name != "PG_BIN":
                self.patch.delenv(name)
        self.patch.setenv("HOME", str(self.home))
        self.patch.setenv("PGSYSCONFDIR", str(self.home / "etc"))
        for path in (self.passfile, self.service_file):
            path.unlink(missing_ok=True)

    def passwords(self, text: str, mode: int = 0o600) -> None:
        self.passfile.write_bytes(encode(text))
        self.passfile.chmod(mode)

    def services(self, text: str) -> None:
        self.service_file.write_bytes(encode(text))

    def environ(self, variables: Mapping[str, str]) -> None:
        for name, value in variables.items():
            self.patch.setenv(name, value)

    @property
    def surroundings(self) -> Surroundings:
        return replace(
            self.here,
            environ=dict(os.environ),
            home=str(self.home),
            default_host=self.default_host,
        )

    def resolve(self, text: str) -> Resolved | DsnError:
        try:
            return resolve(text, self.surroundings)
        except DsnError as error:
            return error


_default_hosts: list[str] = []


def compiled_default_host() -> str:
    """The directory of sockets that this libpq looks into where nobody names a host."""
    if not _default_hosts:
        connection = pq.PGconn.connect_start(b"host='' hostaddr='' port=1 user=nobody")
        said = connection.error_message.decode()
        connection.finish()
        _default_hosts.append(said.split('"')[1].removesuffix("/.s.PGSQL.1"))
    return _default_hosts[0]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def check(world: World, text: str) -> tuple[Target, ...] | None:
    """Both take it, and mean the same by it; or both refuse it."""
    libpq = ask_libpq(text)
    resolved = world.resolve(text)
    if isinstance(resolved, DsnError):
        # libpq looks it up, and does not find it.
        is_no_name = "no host's name has an '@'" in str(resolved)
        assert libpq.refusal or is_no_name, f"only we refuse it: {resolved}"
        return None
    assert not libpq.refusal
    for target in resolved.targets:
        ours = {name: str(value) for name, value in target.to_kwargs().items()}
        for name in set(KNOWN) - ENDS_HERE - PER_HOST:
            assert or_default(ours, name) == or_default(libpq.values, name), name
        # For what differs from host to host: libpq with this one alone.
        alone = ask_libpq(replace(target, password=libpq.values.get("password")).to_conninfo())
        assert (target.password or "") == alone.password
        # A driver on libpq gets this, and libpq looks beside it again: that changes nothing.
        again = ask_libpq(target.to_conninfo())
        assert not again.refusal
        for name in set(KNOWN) - ENDS_HERE:
            assert or_default(ours, name) == or_default(again.values, name), name
    return resolved.targets


def or_default(values: Mapping[str, str], name: str) -> str | None:
    if name == "passfile":
        return values.get(name) or f"{os.environ['HOME']}/.pgpass"
    return values.get(name, COMPILED.get(name))


def places(targets: tuple[Target, ...] | None) -> list[tuple[str | None, str | None, int]]:
    return [(target.host, target.hostaddr, target.port) for target in targets or ()]


# Without a look at the network: directories of sockets that are not there.

NOWHERE = "host=/nonexistent/a,/nonexistent/b port=1,2"


def test_the_table_of_variables_is_libpqs() -> None:
    variables = {o.keyword.decode(): o.envvar.decode() for o in DEFAULTS if o.envvar is not None}
    ours = dict(ENVIRONMENT)
    del variables["service"]
    if pq.version() >= 180000:
        assert ours == variables
    else:
        assert variables.items() <= ours.items()


TEXTS = ["", "postgresql://", NOWHERE, "postgresql:///shop", "host=/nonexistent/a sslmode=require"]

ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"PGHOST": "/nonexistent/x"},
    {"PGHOST": "/nonexistent/x,/nonexistent/y"},
    {"PGHOST": "/nonexistent/x,"},
    {"PGHOST": ""},
    {"PGHOST": "/nonexistent/x,/nonexistent/y", "PGPORT": "7"},
    {"PGHOST": "/nonexistent/x,/nonexistent/y", "PGPORT": "7,8"},
    {"PGHOST": "/nonexistent/x,/nonexistent/y", "PGPORT": "7,8,9"},
    {"PGPORT": "7"},
    {"PGPORT": "7,8"},
    {"PGPORT": ""},
    {"PGPORT": "0"},
    {"PGPORT": "x"},
    {"PGPORT": "65536"},
    {"PGPORT": " 7 "},
    {"PGHOSTADDR": "127.0.0.1"},
    {"PGHOSTADDR": ""},
    {"PGHOSTADDR": "127.0.0.1,127.0.0.2"},
    {"PGHOSTADDR": ",127.0.0.2", "PGHOST": "/nonexistent/x,"},
    {"PGUSER": "u", "PGPASSWORD": "p", "PGDATABASE": "d"},
    {"PGUSER": "", "PGPASSWORD": "", "PGDATABASE": ""},
    {"PGUSER": "u"},
    {"PGDATABASE": "d"},
    {"PGAPPNAME": "a b", "PGOPTIONS": "-c geqo=off", "PGCONNECT_TIMEOUT": "3"},
    {"PGSSLMODE": "disable"},
    {"PGSSLMODE": ""},
    {"PGSSLMODE": "Require"},
    {"PGREQUIRESSL": "1"},
    {"PGREQUIRESSL": "0"},
    {"PGREQUIRESSL": "1", "PGSSLMODE": "disable"},
    {"PGSSLROOTCERT": "system"},
    {"PGSSLROOTCERT": "system", "PGSSLMODE": "require"},
    {"PGSSLROOTCERT": "system", "PGREQUIRESSL": "1"},
    {"PGSSLNEGOTIATION": "direct"},
    {"PGSSLNEGOTIATION": "direct", "PGSSLMODE": "verify-ca"},
    {"PGSSLNEGOTIATION": "quick"},
    {"PGCHANNELBINDING": "require"},
    {"PGCHANNELBINDING": "x"},
    {"PGGSSENCMODE": "prefer"},
    {"PGGSSENCMODE": "x"},
    {"PGSSLCERTMODE": "x"},
    {"PGTARGETSESSIONATTRS": "read-write"},
    {"PGTARGETSESSIONATTRS": "master"},
    {"PGLOADBALANCEHOSTS": "random"},
    {"PGLOADBALANCEHOSTS": "x"},
    {"PGSERVICE": "s"},
    {"PGSERVICE": ""},
    {"PGCLIENTENCODING": "LATIN1", "PGKRBSRVNAME": "k", "PGREQUIREPEER": "postgres"},
    {"PGMINPROTOCOLVERSION": "3.0", "PGMAXPROTOCOLVERSION": "3.2", "PGREQUIREAUTH": "none"},
]


@OLD
@pytest.mark.parametrize("environ", ENVIRONMENTS, ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_the_environment_counts_as_for_libpq(
    world: World, text: str, environ: dict[str, str]
) -> None:
    world.environ(environ)
    check(world, text)


@OLD
def test_every_variable_reaches_its_parameter(world: World) -> None:
    for name, variable in ENVIRONMENT.items():
        world.reset()
        value = {
            "host": "/nonexistent/x",
            "hostaddr": "127.0.0.1",
            "port": "7",
            "connect_timeout": "7",
            "load_balance_hosts": "random",
            "target_session_attrs": "standby",
            "sslmode": "allow",
            "sslnegotiation": "postgres",
            "sslcertmode": "disable",
            "channel_binding": "require",
            "gssencmode": "prefer",
            "require_auth": "md5",
            "min_protocol_version": "3.2",
            "max_protocol_version": "3.2",
            "ssl_min_protocol_version": "TLSv1.3",
            "ssl_max_protocol_version": "TLSv1.3",
        }.get(name, "v")
        world.environ({variable: value})
        targets = check(world, "" if name in {"host", "hostaddr"} else "host=/nonexistent/a")
        assert targets is not None
        if name not in ENDS_HERE:
            assert str(targets[0].to_kwargs()[name]) == value


SERVICES = r"""
# a comment
orphan=1
[other]
host=/nonexistent/other
nonsense
[ s]
host=/nonexistent/spaced
[s] and more
  host=/nonexistent/s1,/nonexistent/s2
port=3,4
user=it's meEND
password= with spaces #and this
password=second
application_name=a=b
options=-c geqo=off

# a comment
[s]
user=not read
[empty]
[bad-line]
user
[bad-name]
hozt=x
[bad-space]
user =x
[nested]
service=s
[steers]
host=/nonexistent/s
target_session_attrs=read-write
load_balance_hosts=random
[wrong-value]
sslmode=x
[wrong-port]
port=x
[requiressl]
requiressl=1
""".replace("END", "  ")


@OLD
@pytest.mark.parametrize(
    "text", ["service={}", "postgresql:///?service={}", NOWHERE + " service={}"]
)
@pytest.mark.parametrize(
    "service",
    [
        "s",
        "other",
        "empty",
        "bad-line",
        "bad-name",
        "bad-space",
        "nested",
        "steers",
        "wrong-value",
        "wrong-port",
        "requiressl",
        "nowhere",
        "''",
        "s]",
    ],
)
def test_services_are_libpqs(world: World, text: str, service: str) -> None:
    if service == "''" and text.startswith("postgresql:"):
        service = ""
    world.services(SERVICES)
    world.environ({"PGHOST": "/nonexistent/env", "PGUSER": "env", "PGAPPNAME": "env"})
    check(world, text.format(service))


@OLD
def test_what_a_service_says(world: World) -> None:
    world.services(SERVICES)
    targets = check(world, "service=s user=mine")
    assert places(targets) == [("/nonexistent/s1", "", 3), ("/nonexistent/s2", "", 4)]
    assert targets is not None
    assert (targets[0].user, targets[0].password) == ("mine", " with spaces #and this")
    world.environ({"PGSERVICE": "s"})
    assert places(check(world, "")) == places(targets)


@OLD
def test_a_driver_on_libpq_is_not_sent_to_another_service(world: World) -> None:
    world.services(SERVICES)
    for elsewhere in ("nowhere", "empty", "s"):
        world.environ({"PGSERVICE": elsewhere})
        assert places(check(world, "service=other")) == []  # its second line is nonsense
        assert places(check(world, "service=steers")) == [("/nonexistent/s", "", 5432)]


@OLD
def test_where_service_files_are(world: World, tmp_path: Path) -> None:
    system = tmp_path / "etc/pg_service.conf"
    chosen = tmp_path / "chosen.conf"
    assert check(world, "service=s") is None
    system.parent.mkdir()
    system.write_text("[s]\nhost=/nonexistent/system\n[t]\nhost=/nonexistent/t\n")
    assert places(check(world, "service=s")) == [("/nonexistent/system", "", 5432)]
    world.services("[s]\nhost=/nonexistent/home\n")
    assert places(check(world, "service=s")) == [("/nonexistent/home", "", 5432)]
    assert places(check(world, "service=t")) == [("/nonexistent/t", "", 5432)]
    world.environ({"PGSERVICEFILE": str(chosen)})
    assert check(world, "service=s") is None
    chosen.write_text("[s]\nhost=/nonexistent/chosen\n")
    assert places(check(world, "service=s")) == [("/nonexistent/chosen", "", 5432)]
    assert places(check(world, "service=t")) == [("/nonexistent/t", "", 5432)]
    chosen.write_text("[t]\nx\n")
    assert places(check(world, "service=s")) == [("/nonexistent/system", "", 5432)]
    assert check(world, "service=t") is None


@OLD
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
@pytest.mark.parametrize("length", [1020, 1021, 1022, 1023, 1024])
def test_how_long_a_line_of_a_service_file_may_be(world: World, length: int, end: str) -> None:
    line = "application_name=".ljust(length, "x")
    world.services(f"[s]\nhost=/nonexistent/a\n{line}{end}")
    check(world, "service=s")


# Passwords. With a hostaddr, host is a name and nothing is looked up.

PASSWORDS = r"""
# comment:1:d:u:comment
 # no comment
#db1:5432:shop:app:no
short
db1:5432:shop
db1:5432:shop:app
db1:5432:shop:app\:x:no
db1:5432:shop:app:sec\:ret\\ # and this:not this
db1:5432:*:app:any-db
*:5433:shop:app:any-host
db\:2:5432:shop:app:colon-host
\*:5432:shop:app:starred-host
db\3:5432:shop:app:needless backslash
db4:5432:sh\\op:a\:b:escapes
localhost:5432:shop:app:local
/nonexistent/a:5432:shop:app:socket
::1:5432:shop:app:bare-v6
\:\:1:5432:shop:app:v6
127.0.0.1:5432:shop:app:address
db5:5432:shop:app:
db6:5432:shop:app:ends\
db7:5432:shop:app:tabs	and ünicode END
*:*:*:nobody:
*:*:*:*:last
""".replace("END", "\t ")


@OLD
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "text",
    [
        *(
            f"host={host} hostaddr=127.0.0.1"
            for host in ("db1", "db:2", "*", "db3", "db5", "db6", "db7", "::1")
        ),
        "hostaddr=127.0.0.1",
        "host=/nonexistent/a",
        "host=/nonexistent/b",
        "",
        "host=''",
        "host=@abstract",
        "host=localhost hostaddr=127.0.0.1",
        "host=db1,db5,db9 hostaddr=127.0.0.1,127.0.0.1,127.0.0.1",
        "host=db1,db1 port=5432,5433 hostaddr=127.0.0.1,127.0.0.1",
        "host=db1 hostaddr=127.0.0.1 port=''",
        "host=db1 hostaddr=127.0.0.1 dbname=other",
        "host=db1 hostaddr=127.0.0.1 user=other",
        "host=db1 hostaddr=127.0.0.1 user=nobody",
        "host=db1 hostaddr=127.0.0.1 password=own",
        "host=db1 hostaddr=127.0.0.1 password=''",
        "host=db1 hostaddr=127.0.0.1 passfile=''",
        "host=db1 hostaddr=127.0.0.1 passfile=/nonexistent/passfile",
        "host=db1 hostaddr=127.0.0.1 passfile=/",
        r"host=db4 hostaddr=127.0.0.1 dbname='sh\\op' user=a:b",
    ],
)
def test_password_files_are_libpqs(world: World, text: str, end: str) -> None:
    world.passwords(PASSWORDS.replace("\n", end))
    world.environ({"PGUSER": "app", "PGDATABASE": "shop"})
    assert check(world, text)


@OLD
def test_a_password_from_the_environment_comes_before_the_file(world: World) -> None:
    world.passwords("*:*:*:*:file")
    world.environ({"PGPASSWORD": "env"})
    assert [t.password for t in check(world, NOWHERE) or ()] == ["env", "env"]
    world.environ({"PGPASSWORD": ""})
    assert [t.password for t in check(world, NOWHERE) or ()] == ["file", "file"]


@OLD
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o640, 0o604, 0o610, 0o602])
def test_who_may_read_the_password_file(world: World, mode: int) -> None:
    world.passwords("*:*:*:*:file", mode)
    targets = check(world, "host=/nonexistent/a")
    assert targets is not None
    refused = bool(mode & 0o077)
    assert targets[0].password == (None if refused else "file")
    resolved = world.resolve("host=/nonexistent/a")
    assert isinstance(resolved, Resolved)
    assert len(resolved.warnings) == refused


# Everything at once, for what libpq looks at before it connects.

sockets = st.lists(st.sampled_from(["/nonexistent/a", "/nonexistent/b", ""]), max_size=3).map(
    ",".join
)
CHOICES = {
    "host": sockets,
    "port": st.sampled_from(["1", "", "5432", "1,5432", ",1", "x", "0"]),
    "user": st.sampled_from(["u", "", "a:b"]),
    "password": st.sampled_from(["p", "", " é"]),
    "dbname": st.sampled_from(["d", "", "d\\"]),
    "application_name": st.sampled_from(["a b", "", "a=b"]),
    "options": st.sampled_from(["-c geqo=off", ""]),
    "sslmode": st.sampled_from(["require", "disable", "verify-full", "verify-full", "", "x"]),
    "sslrootcert": st.sampled_from(["system", "/nonexistent/ca", ""]),
    "sslnegotiation": st.sampled_from(["direct", "postgres", "x"]),
    "channel_binding": st.sampled_from(["prefer", "x"]),
    "target_session_attrs": st.sampled_from(["any", "standby", "x"]),
    "load_balance_hosts": st.sampled_from(["random", "disable", "x"]),
    "gssencmode": st.sampled_from(["disable", "prefer", "require", ""]),
    "sslcertmode": st.sampled_from(["disable", "require", ""]),
    "require_auth": st.lists(
        st.sampled_from(["md5", "none", "!md5", "!oauth", "!", "MD5", "", " gss"]), max_size=2
    ).map(",".join),
    "min_protocol_version": st.sampled_from(["3.0", "3.2", "latest", "3.1", ""]),
    "max_protocol_version": st.sampled_from(["3.0", "3.2", "latest", "x", ""]),
    "ssl_min_protocol_version": st.sampled_from(["TLSv1", "tlsv1.3", "SSLv3", ""]),
    "ssl_max_protocol_version": st.sampled_from(["TLSv1.1", "TLSv1.2", "TLSv1.3", "x", ""]),
}
# What has no variable of its own, and so stands in the text or in a service file only.
NUMBERS = st.sampled_from(["0", "", "x", " 1 ", "+7", "-1", "1 2", "99999999999"])
KEYS = st.sampled_from(["A" * 43 + "=", "A" * 44, "A" * 43, "/+9z" * 10 + "AAB=", "AA==", "x", ""])
OTHERS = {
    "keepalives": NUMBERS,
    "keepalives_count": NUMBERS,
    "keepalives_idle": NUMBERS,
    "keepalives_interval": NUMBERS,
    "tcp_user_timeout": NUMBERS,
    "scram_client_key": KEYS,
    "scram_server_key": KEYS,
}
variable_settings = st.one_of(
    *(st.tuples(st.just(name), values) for name, values in CHOICES.items() if name != "host"),
    *[st.tuples(st.just("host"), CHOICES["host"])] * 6,
)
settings_of = variable_settings | st.one_of(
    *(st.tuples(st.just(name), values) for name, values in OTHERS.items())
)
variables = st.lists(variable_settings, max_size=4).map(
    lambda chosen: {ENVIRONMENT[name]: value for name, value in chosen}
)
services = st.sampled_from(["s", "s", "t", "nowhere", ""])
texts = st.lists(settings_of | st.tuples(st.just("service"), services), max_size=4).map(
    lambda chosen: " ".join(f"{name}='{value}'".replace("\\", "\\\\") for name, value in chosen)
)
service_files = st.lists(
    st.one_of(
        st.sampled_from(["[s]", "[s]", "[t] x", " [s]", "# c", "", "x", "service=t", "hozt=1"]),
        settings_of.map("=".join),
        settings_of.map("=".join),
        settings_of.map(" = ".join),
    ),
    max_size=8,
).map("\n".join)
fields = st.lists(st.sampled_from([*"*ud1:::\\é\t#\r", "localhost"]), max_size=9).map("".join)
password_files = st.lists(
    st.one_of(
        fields,
        st.tuples(
            st.sampled_from(["*", "localhost", "/nonexistent/a", "/nonexistent/b", "\\*"]),
            st.sampled_from(["*", "1", "5432", "54\\32"]),
            st.sampled_from(["*", "d", "u", "d\\\\"]),
            st.sampled_from(["*", "u", "a\\:b", "a:b"]),
            fields,
        ).map(":".join),
    ),
    max_size=5,
).map("\n".join)


@OLD
@pytest.mark.parametrize(
    "params",
    [
        *(
            f"require_auth={x}"
            for x in ("x", "none", "none,none", "md5,!none", "!md5,!gss", "md5,")
        ),
        *(f"require_auth={x}" for x in ("password,gss,sspi,oauth,md5,scram-sha-256,none", "''")),
        *(f"min_protocol_version={x}" for x in ("x", "''", "3.0", "3.1", "3.2", "latest")),
        *(f"max_protocol_version={x}" for x in ("x", "''", "3.0", "3.1", "3.2", "latest")),
        *(
            f"min_protocol_version={least} max_protocol_version={most}"
            for least in ("3.0", "3.2", "latest")
            for most in ("3.0", "3.2", "latest")
        ),
        *(
            f"ssl_min_protocol_version={least} ssl_max_protocol_version={most}"
            for least in ("TLSv1.1", "tlsv1.3", "''", "x")
            for most in ("TLSv1", "TLSv1.2", "TLSv1.3", "''", "x")
        ),
        *(f"ssl_max_protocol_version={x}" for x in ("TLSv1.1", "TLSv1.2", "TLSv1.3", "''")),
        *(f"scram_client_key={x}" for x in ("x", "''", "AA==", "A" * 43 + "=", "A" * 44)),
        *(f"scram_server_key={x}" for x in ("x", "''", "AA==", "A" * 42 + "B=", "A" * 43)),
        *(f"gssencmode={x}" for x in ("disable", "prefer", "''")),
        *(f"keepalives={x}" for x in ("0", "1", "''", "x")),
        *(f"keepalives_idle={x}" for x in ("7", "''", "x")),
        *(f"keepalives={x} keepalives_count=x" for x in ("0", "2", "x", "' 0 '")),
        *(f"tcp_user_timeout={x}" for x in ("7", "''", "x", "-1")),
    ],
)
@pytest.mark.parametrize("host", ["host=/nonexistent/a", "hostaddr=127.0.0.1 port=1"])
def test_values_that_libpq_refuses(world: World, host: str, params: str) -> None:
    check(world, f"{host} {params}")


@OLD
@pytest.mark.parametrize("host", ["/nonexistent/a", "@abstract", "''"])
def test_no_encryption_by_gssapi_on_a_socket(world: World, host: str) -> None:
    assert check(world, f"host={host} gssencmode=require") is None
    # Over TCP libpq looks for a ticket, which is none of our business.
    resolved = world.resolve("hostaddr=127.0.0.1 gssencmode=require")
    assert isinstance(resolved, Resolved)


@OLD
@pytest.mark.parametrize("timeout", ["1", "0", "-1", " 1 ", "", "x", "1.5", "99999999999"])
def test_connect_timeout(world: World, timeout: str) -> None:
    """`PQconnectStart` does not look at it, `PQconnectdb` does, when it waits."""
    text = f"hostaddr=127.0.0.1 port=1 connect_timeout='{timeout}'"
    connection = pq.PGconn.connect(encode(text))  # refused, but not at once
    message = connection.error_message.decode()
    connection.finish()
    assert isinstance(world.resolve(text), DsnError) == ("invalid integer value" in message)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        yield World(tmp_path_factory.mktemp("world"), patch)


@OLD
@properties
@given(text=texts, environ=variables, service=services, file=service_files, entries=password_files)
def test_never_disagrees_with_libpq(
    shared_world: World, text: str, environ: dict[str, str], service: str, file: str, entries: str
) -> None:
    shared_world.services(file)
    shared_world.passwords(entries)
    if "[" in file and service != "nowhere":
        environ = {**environ, "PGSERVICE": service} if service else environ
    try:
        os.environ.update(environ)
        check(shared_world, text)
    finally:
        for name in environ:
            del os.environ[name]
