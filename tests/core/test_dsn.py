"""What `parse_dsn` and `Target` promise. That libpq reads the same is in `test_dsn_libpq`."""

import copy
import dataclasses
import os
import pickle
import time
import traceback
from collections.abc import Container
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.core.dsn.target import Params
from pyscopg2.core.errors import DsnError, PyscopgError

EXAMPLES = os.environ.get("DSN_EXAMPLES")
properties = settings(
    max_examples=int(EXAMPLES or 500), derandomize=EXAMPLES is None, database=None, deadline=None
)

READS: list[tuple[str, tuple[Target, ...]]] = [
    ("", (Target(None, 5432),)),
    ("postgresql://", (Target(None, 5432),)),
    ("postgresql:///shop", (Target(None, 5432, dbname="shop"),)),
    ("host=db1", (Target("db1", 5432),)),
    (
        "postgresql://app:secret@db1,db2:6432/shop?sslmode=require&connect_timeout=3",
        tuple(
            Target(
                host,
                port,
                "app",
                "secret",
                "shop",
                {"sslmode": "require", "connect_timeout": "3"},
            )
            for host, port in [("db1", 5432), ("db2", 6432)]
        ),
    ),
    (
        "host=db1,db2 port=6432 user=app password='se cret' dbname=shop",
        tuple(Target(host, 6432, "app", "se cret", "shop") for host in ("db1", "db2")),
    ),
    (
        "postgresql://[::1]:1,[fe80::1%25eth0]",
        (Target("::1", 1), Target("fe80::1%eth0", 5432)),
    ),
    ("postgresql://%2Frun%2Fpg:1/db", (Target("/run/pg", 1, dbname="db"),)),
    ("postgresql:///db?host=/run/pg&port=1", (Target("/run/pg", 1, dbname="db"),)),
    (
        "postgresql://app@db1/shop?host=other&port=1&user=boss&dbname=shed",
        (Target("other", 1, "boss", dbname="shed"),),
    ),
    # Empty elements are the default; an empty list is as good as none.
    ("host=db1,,db2", (Target("db1", 5432), Target(None, 5432), Target("db2", 5432))),
    ("host=db1,db2 port=,1", (Target("db1", 5432), Target("db2", 1))),
    ("host='' hostaddr='' port=''", (Target(None, 5432),)),
    # Of other parameters an empty value is kept: to libpq it rules out the environment.
    ("user='' password='' dbname=''", (Target(None, 5432, "", "", ""),)),
    ("sslmode=''", (Target(None, 5432, params={"sslmode": ""}),)),
    (
        "hostaddr=10.0.0.1,10.0.0.2 host=db,db",
        (Target("db", 5432, hostaddr="10.0.0.1"), Target("db", 5432, hostaddr="10.0.0.2")),
    ),
    ("hostaddr=10.0.0.1 port=1", (Target(None, 1, hostaddr="10.0.0.1"),)),
    ("hostaddr=,10.0.0.1 host=db,", (Target("db", 5432), Target(None, 5432, hostaddr="10.0.0.1"))),
    # Twice the same host is one host, at its first place.
    ("host=b,a,b,a port=1,2,1,3", (Target("b", 1), Target("a", 2), Target("a", 3))),
    ("host=b,b port=,5432", (Target("b", 5432),)),
    ("hostaddr=,::1 host=::1,", (Target("::1", 5432),)),
    # Only a URI's own `ssl=true`, and `requiressl` everywhere.
    ("postgresql://h?ssl=true", (Target("h", 5432, params={"sslmode": "require"}),)),
    ("host=h requiressl=1", (Target("h", 5432, params={"sslmode": "require"}),)),
    ("dbname=postgresql://other", (Target(None, 5432, dbname="postgresql://other"),)),
]


@pytest.mark.parametrize(("text", "targets"), READS)
def test_reads(text: str, targets: tuple[Target, ...]) -> None:
    assert parse_dsn(text) == targets


REFUSES = [
    ("db1 port=1", "position 1: a name without '='"),
    ("host=db1 password=se cret", "position 22: a name without '='"),
    ("host=db1 password='secret", "position 10: the quoted value does not end"),
    ("host=db1 hozt=db2", "position 10: unknown parameter 'hozt'; did you mean 'host'?"),
    ("host=db1 xyzzy=1", "position 10: unknown parameter"),
    ("ssl=true", "position 1: unknown parameter"),
    ("host=a,b port=1,2,3", "port: 3 ports for 2 hosts (as many, or one for all)"),
    ("host=a port=1,2", "port: 2 ports for 1 hosts"),
    ("host=a,b hostaddr=10.0.0.1", "host and hostaddr: 2 host names, 1 hostaddr values"),
    ("host=a,b port=1,x", "port 2: not an integer from 1 to 65535"),
    ("host=a port=" + "9" * 5000, "port 1: not an integer from 1 to 65535"),
    ("port=1_0", "port 1: "),
    ("postgresql://app:pass/word@db1/shop", "port 1: "),
    ("postgresql://app:pa%zzword@db1", "password: '%' without two hexadecimal digits"),
    ("postgresql://app:pa%00word@db1", "password: %00 is forbidden"),
    ("postgresql://app:pass word@db1", "password: a space"),
    ("postgresql://db%1", "hosts: '%' without two hexadecimal digits"),
    ("postgresql://db1/%", "dbname: '%' without two hexadecimal digits"),
    ("postgresql://app:secret@db1,[::1", "position 29: '[' without ']'"),
    ("postgresql://app:secret@[]", "position 25: an empty IPv6 address"),
    ("postgresql://[::1]secret", "position 19: ':', ',', '/' or '?' must follow ']'"),
    ("postgresql://db1?user=a&secret", "position 25: a query parameter is name=value"),
    ("postgresql://db1?user=a=secret", "position 18: a query parameter is name=value"),
    (
        "postgresql://db1?user=a&conect_timeout=1",
        "position 25: unknown parameter 'conect_timeout'; did",
    ),
    ("postgresql://db1?user=a&options=%", "position 25: '%' without two hexadecimal digits"),
    ("postgresql+asyncpg://app:secret@db1", "the scheme of a URI is postgresql:// or"),
    ("postgresql+asyncpg://app:secret@db1", "(SQLAlchemy's, which names a driver, is for py"),
    (
        "mysql://app:secret@db1",
        "the scheme of a URI is postgresql:// or postgres://, in lower case",
    ),
    *(
        (text, "no scheme, and no name=value: a DSN is postgresql://user@host1,host2/dbname, or")
        for text in ("db1", "db1,db2/app", "app:secret@db1/app", "app:secret@db1/app?sslmode=a")
    ),
    ("POSTGRESQL://db1?user=a", "the scheme of a URI is postgresql:// or"),
    ("host=db1\0", "position 9: NUL character"),
    ("host=\ud800", "a lone surrogate"),
]


@pytest.mark.parametrize(("text", "message"), REFUSES)
def test_refuses_and_says_where(text: str, message: str) -> None:
    with pytest.raises(DsnError) as caught:
        parse_dsn(text)
    assert str(caught.value).startswith(message) or message in str(caught.value)
    assert isinstance(caught.value, PyscopgError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("host=a aplication_name=x", "position 8: unknown parameter 'aplication_name'; did you m"),
        ("postgresql://app:secret@db1?search_pth=a", "position 29: unknown parameter 'search_pth'"),
        ("postgresql://db1?user=a&zzz=1", "position 25: unknown parameter 'zzz'"),
        # Pieces of what is secret, or may be.
        ("password=a secret=c", "position 12: unknown parameter"),
        ("postgresql://db1?password=a&secret=c", "position 29: unknown parameter"),
        ("postgresql://app:p@w?secret=b@db1/app", "position 22: unknown parameter"),
        ("host=a s3cr3t=1", "position 8: unknown parameter"),
    ],
)
def test_names_an_unknown_parameter_that_can_be_no_piece_of_a_secret(
    text: str, message: str
) -> None:
    with pytest.raises(DsnError) as caught:
        parse_dsn(text)
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


class Url:
    """As SQLAlchemy's."""

    def render_as_string(self, hide_password: bool = True) -> str:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        (None, "a DSN is a str, not NoneType (is an environment variable not set?)"),
        (b"host=db1", "a DSN is a str, not bytes"),
        (Url(), "a DSN is a str, not Url: give its render_as_string(hide_password=False)"),
    ],
)
def test_says_what_to_give_instead(dsn: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        parse_dsn(dsn)
    assert str(caught.value) == message


@pytest.mark.parametrize("dsn", [None, b"host=db1", 5432, ["host=db1"]])
def test_reads_nothing_but_text(dsn: Any) -> None:
    with pytest.raises(TypeError, match="a DSN is a str, not "):
        parse_dsn(dsn)


def test_schemes_beside_libpqs_own() -> None:
    schemes = ("postgresql+one://", "postgresql+two://")
    plain = parse_dsn("postgresql://app:secret@db1,db2/d")
    assert parse_dsn("postgresql+two://app:secret@db1,db2/d", schemes=schemes) == plain
    assert parse_dsn("postgresql://app:secret@db1,db2/d", schemes=schemes) == plain
    with pytest.raises(
        DsnError, match=r"\+one://, postgresql\+two://, postgresql:// or postgres://"
    ):
        parse_dsn("postgresql+three://app:secret@db1", schemes=schemes)
    with pytest.raises(DsnError, match=r"position 29: '\[' without '\]'"):
        parse_dsn("postgresql+one://u:secret@a,[::1", schemes=schemes)


@pytest.mark.parametrize("extra", [True, {"search_path"}, ["search_path"]])
@pytest.mark.parametrize("text", ["postgresql://h?search_path=a", "host=h search_path=a"])
def test_extra_params(text: str, extra: bool | Container[str]) -> None:
    (target,) = parse_dsn(text, extra_params=extra)
    assert target.params == {"search_path": "a"}
    assert target.to_kwargs() == {"host": "h", "port": 5432, "search_path": "a"}
    for form in (target.to_conninfo(), target.to_uri()):
        assert parse_dsn(form, extra_params=extra) == (target,)


@pytest.mark.parametrize("extra", [False, {"jit"}, ()])
def test_extra_params_allow_no_others(extra: bool | Container[str]) -> None:
    with pytest.raises(DsnError, match="unknown parameter"):
        parse_dsn("host=h search_path=a", extra_params=extra)


def test_a_parameter_without_a_name_is_never_allowed() -> None:
    with pytest.raises(DsnError, match="unknown parameter"):
        parse_dsn("=a", extra_params=True)


# Target.


@pytest.mark.parametrize(
    ("target", "address"),
    [
        (Target("db1", 5432), "db1:5432"),
        (Target("::1", 5432), "[::1]:5432"),
        (Target("fe80::1%eth0", 1), "[fe80::1%eth0]:1"),
        (Target("/run/postgresql", 5432), "/run/postgresql:5432"),
        (Target("/run/a:b", 5432), "/run/a:b:5432"),
        (Target("@abstract", 5432), "@abstract:5432"),
        (Target(None, 5432, hostaddr="10.0.0.1"), "10.0.0.1:5432"),
        (Target(None, 5432, hostaddr="::1"), "[::1]:5432"),
        (Target("db1", 5432, hostaddr="10.0.0.1"), "db1(10.0.0.1):5432"),
        (Target(None, 5432), "(default):5432"),
        (Target("/run/pg@home", 5432), "/run/pg@home:5432"),
        (Target("half@db1", 5432), "half***:5432"),
        (Target("@half@db1", 5432), "@half***:5432"),
        (Target("db1;x", 5432, hostaddr="10.0.0.1;x"), "db1***(10.0.0.1***):5432"),
        (Target("fe80::1%eth0;x", 1), "[fe80::1%eth0***]:1"),
        (Target("dead:beef", 1), "dead***:1"),
        (Target(";x", 1), "***:1"),
        (Target("db1", 1, hostaddr="db2"), "db1(***):1"),
        (Target(None, 1, hostaddr="db2"), "***:1"),
        (Target("db1", 1, misread=True), "***"),
        (Target("db1", 1, misread=True, number=2), "*** #2"),
    ],
)
def test_address(target: Target, address: str) -> None:
    assert target.address == address


@pytest.mark.parametrize(
    ("target", "database"),
    [
        (Target("db1", 5432, dbname="my shop"), "my shop"),
        (Target("db1", 5432), ""),
        (Target("db1", 5432, dbname="shop;password=secret"), "shop***"),
        (Target("db1", 5432, dbname="secret", misread=True), "***"),
    ],
)
def test_database(target: Target, database: str) -> None:
    assert target.database == database


def test_is_a_value() -> None:
    (one,) = parse_dsn("postgresql://app:secret@db1?sslmode=require&options=-c")
    (two,) = parse_dsn("options=-c sslmode=require host=db1 user=app password=secret")
    assert one == two
    assert hash(one) == hash(two)
    assert one != dataclasses.replace(one, password="other")
    assert one != dataclasses.replace(one, params={})
    for same in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), dataclasses.replace(one)):
        assert same == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        one.params["sslmode"] = "disable"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


def test_params_are_copied() -> None:
    params = {"sslmode": "require"}
    target = Target("db1", 5432, params=params)
    params.clear()
    assert target.params == {"sslmode": "require"}
    assert isinstance(target.params, Params)


def test_writes() -> None:
    (target,) = parse_dsn(
        "postgresql://app:it's%5C@[::1]/my%20shop?hostaddr=::1&options=-c%20a%3Db"
    )
    assert target.to_kwargs() == {
        "host": "::1",
        "hostaddr": "::1",
        "port": 5432,
        "user": "app",
        "password": "it's\\",
        "dbname": "my shop",
        "options": "-c a=b",
    }
    assert target.to_conninfo() == (
        r"host='::1' hostaddr='::1' port='5432' user='app' password='it\'s\\' dbname='my shop'"
        " options='-c a=b'"
    )
    assert target.to_uri() == (
        "postgresql://app:it%27s%5C@[::1]:5432/my%20shop?hostaddr=%3A%3A1&options=-c%20a%3Db"
    )


def test_writes_empty_values() -> None:
    target = Target(None, 5432, "", "", "")
    assert target.to_kwargs() == {"port": 5432, "user": "", "password": "", "dbname": ""}
    assert target.to_uri() == "postgresql://:5432/?user=&password=&dbname="
    assert parse_dsn(target.to_uri()) == parse_dsn(target.to_conninfo()) == (target,)


# Secrets.

SECRETS = ("sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key", "options")


def test_repr_is_readable() -> None:
    (target,) = parse_dsn("postgresql://app:secret@db1/shop?sslmode=require&sslpassword=secret")
    assert (
        repr(target)
        == str(target)
        == (
            "Target(host='db1', port=5432, user='app', password='***', dbname='shop',"
            " params={'sslmode': 'require', 'sslpassword': '***'})"
        )
    )
    assert repr(Target(None, 5432)) == "Target(port=5432)"


def test_repr_hides_secrets() -> None:
    text = "password=Zq7 token=Zq7 Zq7=x " + " ".join(f"{name}=Zq7" for name in SECRETS)
    (target,) = parse_dsn(text, extra_params=True)
    for shown in (repr(target), str(target), repr(target.params), f"{target}", f"{[target]}"):
        assert "Zq7" not in shown
    assert "and 2 more" in repr(target)


# What libpq reads of a password that is not encoded, or of a separator that it does not know.
MISREAD = [
    "postgresql://app:pa@Zq7@db1/shop",
    "postgresql://app:pa@Zq@7@db1,db2/shop",
    "postgresql://app:pa@@Zq7@db1",
    "postgresql://app:12/Zq7@db1/shop",
    "postgresql://app:@/Zq7@db1/shop",
    "postgresql://app:12//Zq7@db1/shop",
    "postgresql://app:12/@Zq7@db1/shop",
    "postgresql://app:pa@Zq7/x@db1/shop",
    "postgresql://app:pa@Zq7,x@db1/shop",
    "postgresql://app:pa@[Zq7],x@db1/shop",
    "postgresql://app:pa@Zq7?user=x@db1/shop",
    "postgresql://app:@Zq7/x@db1/shop",
    "postgresql://app:1,Zq7/x@db1/shop",
    "postgresql://app:12/Zq7?user=x@db1/shop",
    "postgresql://app:12/Zq7?user=x@db1",
    "postgresql://app:12/?application_name=Zq7@db1",
    "postgresql://app:12/?host=Zq7@db1",
    "postgresql://app:pa@%2FZq7@db1",
    "postgresql://app:123/x@db1",
    "postgresql://app%3AZq7@db1",
    "postgresql://db1/shop&password=Zq7",
    "postgresql://db1/shop;password=Zq7",
    "postgresql://db1;password=Zq7",
    "postgresql://db1#password=Zq7",
    "postgresql://db1/shop?sslmode=require;x-Zq7",
    "host=db1;password=Zq7;user=a",
    "host=h,password=Zq7,user=u",
    "host=pa@Zq7,x",
    "user=u,password=Zq7,host=h",
    "sslmode=require;password=Zq7",
    "dbname='host=x password=Zq7'",
    "dbname='postgresql://db1/x?password=Zq7'",
    "dbname=postgresql://app:Zq7@db1/x",
    "sslkey='pkcs11:object=app;pin-value=Zq7'",
    "sslcert='engine:Zq7'",
]


@pytest.mark.parametrize("text", MISREAD)
def test_a_password_stays_hidden_where_libpq_misreads_it(text: str) -> None:
    for target in parse_dsn(text):
        for shown in (repr(target), target.address, repr(target.params)):
            assert not any(secret in shown for secret in ("Zq", "123")), shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # Azure's user names; a socket in the abstract namespace; spaces.
        ("postgresql://app%40server:x@db1/shop", "host='db1', port=5432, user='app@server'"),
        ("postgresql:///shop?host=@pg", "host='@pg', port=5432, dbname='shop'"),
        ("host=/run/pg@home dbname='my shop'", "host='/run/pg@home', port=5432, dbname='my shop'"),
        ("host=ünï.example user=a-b_c.d", "host='ünï.example', port=5432, user='a-b_c.d'"),
    ],
)
def test_what_is_harmless_is_shown(text: str, shown: str) -> None:
    (target,) = parse_dsn(text)
    assert f"({shown}" in repr(target)
    assert "*" not in target.address


def test_hosts_that_are_shown_alike_are_numbered() -> None:
    targets = parse_dsn("host=db;a,db;b,db;a,db port=1")
    assert [target.address for target in targets] == ["db***:1", "db***:1 #2", "db:1"]
    targets = parse_dsn("postgresql://app:pa@ss@db1,db2")
    assert [target.address for target in targets] == ["***", "*** #2"]
    assert {repr(target) for target in targets} == {"Target(***)"}


def test_what_is_not_shown_is_known_as_a_secret() -> None:
    (target,) = parse_dsn(
        "host=db1 user='a:Zq7' password='x y' options='-c app.token=Xk9 --a_b=Vb4'"
        " tenant=Wj5 c;d=1",
        extra_params=True,
    )
    assert target.secrets == {
        *("a:Zq7", "a", "Zq7", "x y", "-c app.token=Xk9 --a_b=Vb4", "Xk9", "Vb4"),
        # The names of settings are none; one that no setting can have may be a piece of one.
        *("Wj5", "c;d", "1"),
    }
    assert parse_dsn("postgresql://app@db1:1234/shop")[0].secrets == frozenset()
    misread = parse_dsn("postgresql://app:1234/Zq7@db1?sslmode=require")[0].secrets
    assert {"app", "1234", "Zq7@db1", "Zq7", "require"} <= misread


def refusal(text: str) -> DsnError | None:
    try:
        parse_dsn(text)
    except DsnError as error:
        return error
    return None


def check_tells_nothing(error: DsnError) -> None:
    shown = f"{error} {error!r} {error.args}" + "".join(traceback.format_exception(error))
    assert not any(mark in shown for mark in ("Zq7", "Xk9", "Wj5")), shown
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app:Zq7%zzXk9@db1",
        "postgresql://app:Zq7%Xk9@db1",
        "postgresql://app:Zq7/Xk9@db1",
        "postgresql://app:Zq7/Xk9?Wj5=1@db1",
        "postgresql://app:1/Xk9?Wj5=1@db1",
        "postgresql://app:Zq7 Xk9@db1",
        "postgresql://app:Zq7@[Xk9@db1",
        "postgresql://app:Zq7@[Xk9]Wj5@db1",
        "postgresql://db1?password=Zq7&Xk9=Wj5",
        "postgresql://db1?password=Zq7&Xk9",
        "postgresql://db1?password=Zq7=Xk9",
        "postgresql://db1?password=%Zq7",
        "postgresql://db1?sslpassword=%Zq7",
        "postgresql://db1?Zq7",
        "Postgres://app:Zq7@db1",
        "app:Zq7@db1",
        "password=Zq7 Xk9",
        "password=Zq7 Xk9=Wj5",
        "password='Zq7'Xk9'=Wj5",
        "password='Zq7",
        "password=a port=Zq7",
        "password=Zq7\ud800",
        "password=Zq7\0",
        "Zq7",
        "Zq7=Xk9",
    ],
)
def test_errors_tell_nothing(text: str) -> None:
    error = refusal(text)
    assert error is not None
    check_tells_nothing(error)


passwords = st.lists(
    st.sampled_from(["Zq7", "Xk9", "Wj5", *"%@/:?#[]&=' \\,+1\0\n\ud800"]), min_size=1, max_size=8
).map("".join)


@properties
@given(
    st.sampled_from(
        [
            "postgresql://app:{}@db1/shop",
            "postgresql://app:{}@[::1]:1,db2?sslmode=require",
            "postgresql://db1/shop?password={}&sslpassword={}",
            "postgresql://{}",
            "host=db1 password={} user=app",
            "host=db1 password='{}' sslpassword='{}'",
            "{}",
        ]
    ),
    passwords,
)
def test_errors_tell_nothing_whatever_the_password(form: str, password: str) -> None:
    if error := refusal(form.replace("{}", password)):
        check_tells_nothing(error)


NAMES = ["?user=", "&host=", "?application_name=", "&sslmode=", ",", "1"]


@properties
@given(
    st.sampled_from(["postgresql://app:{}@db1/shop", "postgresql://:{}@db1,db2?user=a"]),
    st.lists(passwords | st.sampled_from(NAMES), min_size=1, max_size=4).map("".join),
)
def test_targets_tell_nothing_of_a_password_that_is_not_encoded(form: str, password: str) -> None:
    try:
        targets = parse_dsn(form.replace("{}", password), extra_params=True)
    except DsnError:
        return
    for target in targets:
        shown = f"{target!r} {target} {target.address} {target.params!r}"
        assert not any(mark in shown for mark in ("Zq7", "Xk9", "Wj5")), shown


# Time.

LONG = [
    ("", "= '\\a"),
    ("a=", "= '\\a"),
    ("password='", "= \\a"),
    ("host=", ",%["),
    ("port=", ",1 "),
    ("postgresql://", ",:@/%[?&a "),
    ("postgresql://h?user=", "&=% a"),
]


def seconds(text: str) -> float:
    start = time.process_time()
    refusal(text)
    return time.process_time() - start


@pytest.mark.parametrize(
    ("prefix", "unit"),
    [(prefix, unit) for prefix, units in LONG for unit in units]
    + [
        *[("postgresql://", "%41"), ("postgresql://", "[a],"), ("postgresql://h?", "user=a&")],
        *[("postgresql://a:", "@x,"), ("host=", "a;b,"), ("postgresql://h?a=", "%40,")],
    ],
)
def test_long_texts_take_linear_time(prefix: str, unit: str) -> None:
    def text(size: int) -> str:
        return prefix + unit * (size // len(unit))

    # The largest is a megabyte; the square of eight would be 64.
    small = min(seconds(text(125_000)) for _ in range(3))
    large = seconds(text(1_000_000))
    assert large < 32 * max(small, 0.001)
    assert len(str(refusal(text(125_000)))) < 200


def test_many_different_hosts_take_linear_time() -> None:
    """With a database, a user and a parameter that are as long: no target looks at them alone."""

    def text(size: int) -> str:
        hosts = ",".join(f"h{number}" for number in range(size))
        return f"host={hosts} user={'u' * size} dbname={'d;' * size} options={'o' * size}"

    small = min(seconds(text(2_000)) for _ in range(3))
    large = min(seconds(text(16_000)) for _ in range(2))
    assert large < 32 * max(small, 0.001)


def test_a_hundred_hosts_take_a_few_milliseconds() -> None:
    text = "postgresql://app:secret@" + ",".join(f"db{n}:6432" for n in range(100)) + "/shop"
    assert [target.host for target in parse_dsn(text)] == [f"db{n}" for n in range(100)]
    assert min(seconds(text) for _ in range(10)) < 0.01
