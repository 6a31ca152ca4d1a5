"""What `resolve` promises beyond agreement with libpq, which is in `test_resolve_libpq`."""

import logging
import os
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.conftest import manager_on

from pyscopg2.core.dsn import Resolved, Surroundings, Target, resolve
from pyscopg2.core.dsn.passfile import PasswordFile
from pyscopg2.core.dsn.service_file import read_service
from pyscopg2.core.errors import DsnError
from pyscopg2.testing.fake import FakeAdapter, FakeNetwork

EXAMPLES = os.environ.get("DSN_EXAMPLES")
FILE, FOLDER = 0o100600, 0o40755
DEFAULT = "/sockets"


class MemoryFiles:
    """Files as the test has them: text, or text and mode."""

    def __init__(self, files: Mapping[str, str | tuple[str, int]]) -> None:
        self.files = files
        self.looked_at: list[str] = []

    def mode(self, path: str, /) -> int:
        self.looked_at.append(path)
        return self._entry(path)[1]

    def read(self, path: str, /) -> str:
        text, mode = self._entry(path)
        if mode == FOLDER:
            raise IsADirectoryError(21, "Is a directory", path)
        return text

    def _entry(self, path: str) -> tuple[str, int]:
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        entry = self.files[path]
        return entry if isinstance(entry, tuple) else (entry, FILE)


def around(
    environ: Mapping[str, str] | None = None,
    files: Mapping[str, str | tuple[str, int]] | None = None,
    user: str | None = "me",
    home: str | None = "/home",
) -> Surroundings:
    return Surroundings(environ or {}, home, user, DEFAULT, MemoryFiles(files or {}))


def test_fills_in_the_defaults() -> None:
    any_host = {"target_session_attrs": "any"}
    assert resolve("", around()) == Resolved(
        (Target(DEFAULT, 5432, "me", None, "me", any_host, ""),), ()
    )
    assert resolve("host=db1,db2 user=app", around()).targets == tuple(
        Target(host, 5432, "app", None, "app", any_host, "") for host in ("db1", "db2")
    )
    assert resolve("hostaddr=10.0.0.1", around()).targets[0].address == "10.0.0.1:5432"


def test_hosts_that_come_out_as_one_are_one() -> None:
    targets = resolve(f"host=,{DEFAULT},db1", around()).targets
    assert [target.host for target in targets] == [DEFAULT, "db1"]


def test_a_password_that_was_probably_cut_short_gives_a_warning() -> None:
    # Host `app`, port 12, database `ss@db1/app`, as libpq reads it, too.
    resolved = resolve("postgresql://app:12/ss@db1/app", around())
    (warning,) = resolved.warnings
    assert warning == (
        "the DSN has an '@' behind what is read as hosts: if that is of the password, it is"
        " written %40 there, and '/' is written %2F"
    )
    assert resolve("postgresql://app:12%2Fss@db1/app", around()).warnings == ()


def test_a_host_with_an_at_that_is_not_looked_up() -> None:
    assert resolve("host=@socket", around()).targets[0].host == "@socket"
    assert resolve("host=a@b hostaddr=10.0.0.1", around()).targets[0].hostaddr == "10.0.0.1"


def test_the_order_of_precedence() -> None:
    files = {"/home/.pg_service.conf": "[s]\nuser=service\ndbname=service\n"}
    environ = {"PGUSER": "env", "PGDATABASE": "env", "PGAPPNAME": "env"}
    (target,) = resolve("service=s user=text", around(environ, files)).targets
    assert (target.user, target.dbname) == ("text", "service")
    assert target.params["application_name"] == "env"


@pytest.mark.parametrize(
    ("text", "environ", "message"),
    [
        ("", {"PGPORT": "x"}, "PGPORT: port 1: not an integer"),
        ("host=a,b", {"PGPORT": "1,2,3"}, "PGPORT: port: 3 ports for 2 hosts"),
        ("hostaddr=1.1.1.1", {"PGHOST": "a,b"}, "PGHOST: host and hostaddr: 2 host names, 1"),
        ("", {"PGSSLMODE": "on"}, "PGSSLMODE: sslmode: must be one of disable, allow, prefer"),
        ("sslmode=on", {}, "^sslmode: must be one of disable"),
        ("connect_timeout=x", {}, "^connect_timeout: not a whole number"),
        ("", {"PGCONNECT_TIMEOUT": "1.5"}, "PGCONNECT_TIMEOUT: connect_timeout: not a whole"),
        ("target_session_attrs=master", {}, "target_session_attrs: must be one of any, read-write"),
        ("", {"PGLOADBALANCEHOSTS": "yes"}, "PGLOADBALANCEHOSTS: load_balance_hosts: must be"),
        ("sslrootcert=system sslmode=require", {}, "sslrootcert=system needs verify-full"),
        ("sslnegotiation=direct", {}, "sslnegotiation=direct needs require"),
        ("require_auth=x", {}, "^require_auth: a list with commas of password, md5"),
        ("require_auth=md5,md5", {}, "^require_auth: a method is there twice"),
        ("require_auth=md5,!gss", {}, "^require_auth: either all methods have a '!', or none"),
        ("", {"PGMINPROTOCOLVERSION": "3.1"}, "_version: must be one of 3.0, 3.2, latest"),
        (
            "min_protocol_version=latest max_protocol_version=3.0",
            {},
            "^min_protocol_version: above max_protocol_version",
        ),
        ("ssl_min_protocol_version=x", {}, "^ssl_min_protocol_version: must be one of TLSv1, "),
        ("ssl_max_protocol_version=TLSv1", {}, "^ssl_max_protocol_version: below ssl_min"),
        ("scram_client_key=x", {}, "^scram_client_key: not a key of 32 bytes in base64"),
        ("host=/a gssencmode=require", {}, "^gssencmode: a socket has no encryption"),
        ("host=db1 keepalives_idle=''", {}, "^keepalives_idle: not a whole number"),
        ("host=/a,db1 tcp_user_timeout=x", {}, "^tcp_user_timeout: not a whole number"),
        ("service=x", {}, "service: no such service in /home/.pg_service.conf"),
        ("", {"PGSERVICE": "x"}, "PGSERVICE: no such service in"),
        ("service=s", {"PGSERVICEFILE": "/none"}, "PGSERVICEFILE /none: can't be read: No such"),
        ("service=s", {"PGSERVICEFILE": "/folder"}, "can't be read: Is a directory"),
        # As libpq 18 has it.
        ("service=s servicefile=/none", {}, "^position 11: unknown parameter 'servicefile'; d"),
        ("service=bad", {}, r"/home/.pg_service.conf, line 4: unknown parameter; did .* 'host'"),
        ("service=line", {}, "line 6: a line is parameter=value"),
        ("service=nested", {}, "line 8: a service can't name another one"),
        ("service=ldap", {}, "line 10: a service is not looked up by LDAP"),
        ("service=port", {}, "line 12: port 1: not an integer"),
        # The first `@` has ended the password.
        (
            "postgresql://app:p@ss@db1/app",
            {},
            "^host: no host's name has an '@' .in the passw",
        ),
        ("", {"PGHOST": "a@b"}, "^PGHOST: host: no host's name has an '@'"),
    ],
)
def test_refuses_and_says_where(text: str, environ: dict[str, str], message: str) -> None:
    services = (
        "[s]\nuser=u\n[bad]\nhozt=h\n[line]\nuser\n[nested]\nservice=s\n[ldap]\nldap://h\n"
        "[port]\nport=x\n"
    )
    files: dict[str, str | tuple[str, int]] = {
        "/home/.pg_service.conf": services,
        "/folder": ("", FOLDER),
    }
    with pytest.raises(DsnError, match=message):
        resolve(text, around(environ, files))


def test_nobody_without_a_name() -> None:
    with pytest.raises(DsnError, match="user: not given"):
        resolve("", around(user=None))
    assert resolve("user=u", around(user=None)).targets[0].user == "u"


def test_a_home_that_nobody_knows() -> None:
    assert resolve("", around(home=None)).targets[0].password is None
    with pytest.raises(DsnError, match="no such service in any file"):
        resolve("service=s", around({"PGSYSCONFDIR": "/none"}, home=None))


def test_looks_at_no_file_that_is_not_needed() -> None:
    files = MemoryFiles({})
    resolve("password=p", Surroundings({}, "/home", "me", DEFAULT, files))
    assert files.looked_at == []


def test_extra_params() -> None:
    files = {"/home/.pg_service.conf": "[s]\nsearch_path=a\n"}
    (target,) = resolve("service=s work_mem=1MB", around({}, files), extra_params=True).targets
    assert (target.params["search_path"], target.params["work_mem"]) == ("a", "1MB")
    with pytest.raises(DsnError, match="unknown parameter"):
        resolve("service=s", around({}, files))


@pytest.mark.parametrize(
    ("text", "environ", "warnings"),
    [
        ("", {}, []),
        ("target_session_attrs=any load_balance_hosts=disable", {}, []),
        (
            "target_session_attrs=read-write",
            {},
            ["target_session_attrs=read-write is ignored: each acquire says whether it wants "],
        ),
        (
            "target_session_attrs=any",
            {"PGLOADBALANCEHOSTS": "random", "PGTARGETSESSIONATTRS": "standby"},
            ["PGLOADBALANCEHOSTS: load_balance_hosts=random is ignored: the manager's balancer_p"],
        ),
    ],
)
def test_the_choice_of_a_host_is_not_the_drivers(
    text: str, environ: dict[str, str], warnings: list[str]
) -> None:
    resolved = resolve(text, around(environ))
    assert len(resolved.warnings) == len(warnings)
    for said, start in zip(resolved.warnings, warnings, strict=True):
        assert said.startswith(start)
    for target in resolved.targets:
        assert target.params["target_session_attrs"] == "any"
        assert target.params.get("load_balance_hosts", "disable") == "disable"


@pytest.mark.parametrize(
    ("mode", "reason"), [(0o100640, "0600"), (FOLDER, "not a plain file"), (0o10600, "plain file")]
)
def test_a_password_file_that_may_not_be_used_is_told(mode: int, reason: str) -> None:
    files: dict[str, str | tuple[str, int]] = {"/home/.pgpass": ("*:*:*:*:p", mode)}
    resolved = resolve("", around({}, files))
    assert resolved.targets[0].password is None
    (warning,) = resolved.warnings
    assert "/home/.pgpass is ignored" in warning
    assert reason in warning


def test_paths_forge_no_lines() -> None:
    folder = "/a\r\x1b[2J\u202e"
    files: dict[str, str | tuple[str, int]] = {
        f"{folder}/.pgpass": ("", FOLDER),
        f"{folder}/.pg_service.conf": "[s]\noh\n",
    }
    resolved = resolve("", around({}, files, home=folder))
    (warning,) = resolved.warnings
    assert warning.isprintable()
    for text, environ in (("service=s", {}), ("service=s", {"PGSERVICEFILE": f"{folder}/x"})):
        with pytest.raises(DsnError) as caught:
            resolve(text, around(environ, files, home=folder))
        assert str(caught.value).isprintable()


def test_a_manager_resolves_when_it_is_constructed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="pyscopg2")
    monkeypatch.setenv("PGHOST", "db1,db2")
    monkeypatch.setenv("PGPORT", "6432")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    manager = manager_on(FakeAdapter(FakeNetwork.cluster(1)), "postgresql://app@/shop")
    assert [host.address for host in manager.topology] == ["db1:6432", "db2:6432"]
    assert [r.getMessage().partition(" is")[0] for r in caplog.records] == [
        "PGTARGETSESSIONATTRS: target_session_attrs=read-write"
    ]


def test_a_manager_lets_through_what_its_adapter_takes() -> None:
    class Generous(FakeAdapter):
        extra_params = True

    network = FakeNetwork.cluster(1)
    manager_on(Generous(network), "postgresql://db1?work_mem=1MB")
    with pytest.raises(DsnError, match="unknown parameter"):
        manager_on(FakeAdapter(network), "postgresql://db1?work_mem=1MB")


# Secrets.

MARKS = ("Zq7", "Xk9", "Wj5")
secrets = st.lists(
    st.sampled_from([*MARKS, *"%@/:?#[]&=' \\,+1\0\n*"]), min_size=1, max_size=6
).map("".join)
FORMS = [
    "",
    "service=s",
    "service=s host=db1,db2 user=app",
    "postgresql://app:{}@db1/shop",
    "postgresql://app:{}@db1,db2?service=s&sslpassword={}",
    "postgresql://?service={}&password={}",
    "host=db1 password={} service=s passfile=/none",
    "host=db1 password='{}' sslmode={} connect_timeout={}",
    "target_session_attrs={} password={}",
    "{}",
]
SERVICES = [
    "",
    "[s]\npassword={}\n",
    "[s]\nhost=db1\npassword={}\nsslpassword={}\nport={}\n",
    "[s]\n{}\n",
    "[s]\n{}=1\npassword={}",
    "[{}]\npassword={}",
]
ENVIRONS = [
    {},
    {"PGPASSWORD": "{}"},
    {"PGPASSWORD": "{}", "PGPORT": "x"},
    {"PGPASSWORD": "{}", "PGOPTIONS": "-c app.token={}", "PGSSLMODE": "{}"},
    {"PGPORT": "{}", "PGCONNECT_TIMEOUT": "{}", "PGTARGETSESSIONATTRS": "{}"},
    # More hosts than there can be commas in a secret: it never becomes the address of one.
    {"PGHOST": "a,b,c,d,e,f,g,h", "PGHOSTADDR": "{}", "PGSERVICE": "{}"},
]


def attempt(text: str, surroundings: Surroundings) -> Resolved | DsnError:
    try:
        return resolve(text, surroundings, extra_params=True)
    except DsnError as error:
        return error


def shown_by(error: BaseException) -> str:
    # Not the lines of this file, which a traceback quotes, too.
    frames = traceback.TracebackException.from_exception(error, capture_locals=False)
    return f"{error} {error!r} {error.args} {''.join(frames.format())}"


@settings(
    max_examples=int(EXAMPLES or 300), derandomize=EXAMPLES is None, database=None, deadline=None
)
@given(
    st.sampled_from(FORMS),
    st.sampled_from(ENVIRONS),
    st.sampled_from(SERVICES),
    st.sampled_from(["", "*:*:*:*:{}", "{}:*:*:*:{}\n{}", "{}"]),
    secrets,
)
def test_nothing_shows_a_secret(
    form: str, environ: dict[str, str], services: str, passwords: str, secret: str
) -> None:
    variables = {n: v.replace("{}", secret.replace("\0", "")) for n, v in environ.items()}
    files: dict[str, str | tuple[str, int]] = {
        "/home/.pg_service.conf": services.replace("{}", secret),
        "/home/.pgpass": passwords.replace("{}", secret),
    }
    surroundings = around(variables, files)
    outcome = attempt(form.replace("{}", secret), surroundings)
    if isinstance(outcome, DsnError):
        shown = shown_by(outcome)
        assert outcome.__cause__ is None
        assert outcome.__context__ is None
    else:
        shown = f"{outcome} {' '.join(outcome.warnings)}"
        for target in outcome.targets:
            shown += f"{target!r} {target.address} {target} {target.params!r}"
    shown += repr(surroundings)
    assert not any(mark in shown for mark in MARKS), shown


def test_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "Zq7")
    assert "Zq7" not in repr(Surroundings.here())


# Time.


def test_time_is_linear() -> None:
    def seconds(size: int) -> float:
        hosts = ",".join(f"db{n}" for n in range(100))
        services = "[x]\n" * size + "[s]\n" + "user=u\n" * size
        passwords = "db1:5432:a:b:c\n" * size + ":\\" * size
        start = time.process_time()
        read_service(services, "s", "file")
        for host in ("db1", ":" * 100):
            PasswordFile(passwords, [host], "a", "x").find(host, 5432)
        resolve(f"host={hosts} {'user=u ' * size}", around())
        return time.process_time() - start

    small = min(seconds(2_000) for _ in range(3))
    large = min(seconds(20_000) for _ in range(3))
    assert large < 40 * small  # ten times as much; the square would be a hundred


def test_a_password_file_with_a_line_for_each_of_many_hosts_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        names = [f"db{n}" for n in range(size)]
        lines = [f"{name}:5432:*:*:p{name}\n" for name in names]
        ports = [f"one:{port}:*:*:q{port}\n" for port in range(1, size + 1)]
        files = {"/home/.pgpass": "".join(reversed(lines + ports))}
        start = time.process_time()
        targets = resolve(f"host={','.join(names)}", around(files=files)).targets
        assert targets[-1].password == f"p{names[-1]}"
        every = ",".join(map(str, range(1, size + 1)))
        dsn = f"host={','.join(['one'] * size)} port={every}"
        targets = resolve(dsn, around(files=files)).targets
        assert targets[-1].password == f"q{size}"
        return time.process_time() - start

    small = min(seconds(200) for _ in range(3))
    large = min(seconds(2_000) for _ in range(3))
    assert large < 40 * small  # ten times as much; the square would be a hundred


def test_reads_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".pg_service.conf").write_bytes(b"[s]\napplication_name=\xff\r\n")
    (tmp_path / ".pgpass").write_text("*:*:*:*:p")
    (tmp_path / ".pgpass").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    (target,) = resolve("service=s", Surroundings.here()).targets
    assert (target.password, target.params["application_name"]) == ("p", "\udcff")
