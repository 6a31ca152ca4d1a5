"""`parse_dsn` against libpq itself: `PQconninfoParse`, and `PQconnectStart` for host lists.

`hatch run dsn` makes the properties look for longer.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import pq

from pyscopg2.core.dsn import Target, parse_dsn
from pyscopg2.core.dsn.keywords import KEYWORDS
from pyscopg2.core.errors import DsnError

EXAMPLES = os.environ.get("DSN_EXAMPLES")
properties = settings(
    max_examples=int(EXAMPLES or 300),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

Place = tuple[str | None, str | None, int]  # host, hostaddr, port

OWN = ("host", "hostaddr", "port", "user", "password", "dbname")
KNOWN = [option.keyword.decode() for option in pq.Conninfo.parse(b"")]


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def libpq_values(text: str) -> dict[str, bytes] | None:
    """What libpq reads; None where it refuses."""
    try:
        options = pq.Conninfo.parse(encode(text))
    except psycopg.OperationalError:
        return None
    return {o.keyword.decode(): o.val for o in options if o.val is not None}


def split_hosts(values: dict[str, bytes]) -> list[Place] | None:
    """The manual's rules for host lists, and `PQconnectPoll`'s for a port; None where refused."""
    hosts, hostaddrs, ports = (
        values.get(name, b"").decode("utf-8", "surrogateescape").split(",")
        for name in ("host", "hostaddr", "port")
    )
    count = len(hosts) if hostaddrs == [""] else len(hostaddrs)
    if hosts == [""]:
        hosts *= count
    if hostaddrs == [""]:
        hostaddrs *= count
    if len(ports) == 1:
        ports *= count
    if not len(hosts) == len(hostaddrs) == len(ports):
        return None
    if not all(re.fullmatch(r"|[ \t\n\v\f\r]*\+?[0-9]+[ \t\n\v\f\r]*", port) for port in ports):
        return None
    numbers = [int(port or "5432") for port in ports]
    if not all(1 <= number <= 65535 for number in numbers):
        return None
    return [(h or None, a or None, n) for h, a, n in zip(hosts, hostaddrs, numbers, strict=True)]


def our_targets(text: str) -> tuple[Target, ...] | None:
    try:
        return parse_dsn(text)
    except DsnError:
        return None


def check_agreement(text: str) -> None:
    if pq.version() < 180000 and text.startswith("postgres") and " " in text:
        return  # before 18, libpq kept the spaces of a URI
    values = libpq_values(text)
    places = None if values is None else split_hosts(values)
    targets = our_targets(text)
    if values is None or places is None:
        assert targets is None
        return
    assert targets is not None
    # The first of each: an address is as good in `host` as in `hostaddr`.
    first = {(h or a, a or h, n): (h, a, n) for h, a, n in reversed(places)}
    ours = [(target.host, target.hostaddr, target.port) for target in targets]
    assert ours == [place for place in dict.fromkeys(places) if place in first.values()]
    assert len({target.address for target in targets}) == len(targets)
    for target in targets:
        singles = {name: encode(str(value)) for name, value in target.to_kwargs().items()}
        for name in KNOWN:
            if name not in ("host", "hostaddr", "port"):
                assert singles.get(name) == values.get(name), name
        assert set(singles) <= {*KNOWN}


@pytest.fixture(scope="module", autouse=True)
def bare_environment() -> Iterator[None]:
    """`PQconnectStart` fills in from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("PG"):
                patch.delenv(name)
        yield


CASES = r"""
postgresql://
postgres://
postgresql:///
postgresql://?
postgresql:///?
postgresql://host
postgresql://host/
postgresql://host/db
postgres://host/db
postgresql://host:5433
postgresql://host:5433/
postgresql://host:/db
postgresql://:5433
postgresql://:5433/db
postgresql://user@
postgresql://user@host
postgresql://user:@host
postgresql://:secret@host
postgresql://:@host
postgresql://@host
postgresql://user:secret@host:5433/db?sslmode=disable
postgresql://user:se:cret@host
postgresql://user:se?cret@host
postgresql://user:se#cret@host
postgresql://user:se[cret@host
postgresql://user:se/cret@host
postgresql://user:12/34@host
postgresql://user:se@cret@host
postgresql://user:se+cret@host
postgresql://us%65r:s%65cret@h%6Fst:54%33%33/d%62
postgresql://user%40corp:a%3Ab%2Fc%40d%25@host
postgresql://us er@host
postgresql:// user : secret @ host : 5433 / db ? sslmode = disable & user = other
postgresql://user:secret@host /db
postgresql://host1, host2
postgresql://host:5433 /db
postgresql://h ost
postgresql://host?user=a b
postgresql://host?user=a%20b
postgresql://host?user=%20a%20
postgresql://host?user=+a+
postgresql://host/d+b
postgresql://host/db/more
postgresql://host/db#more
postgresql://host//
postgresql://host/%2F
postgresql://host/%20
postgresql://host#x
postgresql://host;x
postgresql://%
postgresql://host%
postgresql://host%4
postgresql://host%4g
postgresql://host%g4
postgresql://host%zz
postgresql://host%%34
postgresql://host%00
postgresql://user:%00@host
postgresql://user:pa%zzword@host
postgresql://host/%0
postgresql://host?user=%0
postgresql://host?us%0=a
postgresql://host?user=%C3%A9
postgresql://host?user=%c3%a9
postgresql://host?user=%ff%fe
postgresql://é:ü@ñ/ß
postgresql://[::1]
postgresql://[::1]/
postgresql://[::1]/db
postgresql://[::1]:5433
postgresql://[::1]:5433/db
postgresql://[::1]?user=a
postgresql://[::1],[::2]:5433,h
postgresql://user@[::1]
postgresql://user:secret@[2001:db8::7]:5433,[2001:db8::8]/db
postgresql://[fe80::1%25eth0]:5433
postgresql://[fe80::1%eth0]
postgresql://[fe80::1%2525]
postgresql://[
postgresql://[]
postgresql://[::1
postgresql://[::1/db
postgresql://user:secret@[::1
postgresql://user:secret@[]:5432
postgresql://[::1]x
postgresql://[::1]]
postgresql://[::1] :5433
postgresql://[::1]@host
postgresql://user@[::1]@host
postgresql://[not-an-address]:5433
postgresql://[a,b]:5433
postgresql://[a/b?c]:5433
postgresql://::1
postgresql://h[::1]
postgresql://h,[
postgresql://h1,h2
postgresql://h1,h2:6432
postgresql://h1:6432,h2
postgresql://h1:6432,h2:6433
postgresql://h1:6432,h2:6433,h3:6434/db
postgresql://h1,h2,h3:6432
postgresql://h1,h1
postgresql://h1:5432,h1
postgresql://h1:5433,h1,h1:5433
postgresql://,
postgresql://,,
postgresql://,h
postgresql://h,
postgresql://:1,:2
postgresql://:1,
postgresql://,:2
postgresql://h1%2Ch2
postgresql://h1%2Ch2:6432
postgresql://h1%2Ch2:6432,h3:6433
postgresql://h1,h2:6432%2C6433
postgresql://h:1:2
postgresql://h:0
postgresql://h:1
postgresql://h:65535
postgresql://h:65536
postgresql://h:-1
postgresql://h:+1
postgresql://h:05432
postgresql://h:000000000000000000000005432
postgresql://h:99999999999999999999
postgresql://h:1_0
postgresql://h:1.0
postgresql://h:1e3
postgresql://h:0x10
postgresql://h:x
postgresql://h:٣
postgresql://h:²
postgresql://h: 5433
postgresql://h:%205433%20
postgresql://h:%095433%0A
postgresql://h:%20
postgresql://h:5 4
postgresql://h1:%20,h2
postgresql://%2Frun%2Fpostgresql
postgresql://%2Frun%2Fpostgresql:5433/db
postgresql://%2Fa,%2Fb:5433
postgresql://%40abstract
postgresql:///db?host=/run/postgresql
postgresql:///db?host=/a,/b&port=1,2
postgresql://h?host=other
postgresql://h:1?host=other
postgresql://h:1?port=2
postgresql://h:1?port=
postgresql://h?host=
postgresql://h1,h2?port=1
postgresql://h1:1,h2:2?port=3
postgresql://h1:1,h2:2?port=3,4,5
postgresql://h1,h2?port=1,
postgresql://h1:1,h2:2?host=other
postgresql://h1,h2?hostaddr=10.0.0.1
postgresql://h1,h2?hostaddr=10.0.0.1,10.0.0.2
postgresql://?hostaddr=10.0.0.1,10.0.0.2
postgresql://:5433?hostaddr=10.0.0.1,10.0.0.2
postgresql://user:secret@h?user=other&password=else
postgresql://h/db?dbname=other
postgresql://h/db?dbname=
postgresql://h?user=a&user=b
postgresql://h?user=&password=&dbname=
postgresql://h?user=a&
postgresql://h?user=a&&
postgresql://h?&
postgresql://h?&user=a
postgresql://h?user
postgresql://h?user=a&password
postgresql://h?user=a=b
postgresql://h?user==
postgresql://h?user=a%3Db%26c
postgresql://h?=
postgresql://h?=a
postgresql://h?user=a?b
postgresql://h?user=a/b
postgresql://h?user=a@b
postgresql://h?user=a#b
postgresql://h?us%65r=a
postgresql://h? user =a
postgresql://h?%20user=a
postgresql://h?USER=a
postgresql://h?uzer=a
postgresql://h?ssl=true
postgresql://h?ssl=True
postgresql://h?ssl=1
postgresql://h?ssl=false
postgresql://h?s%73l=tru%65
postgresql://h?ssl= true
postgresql://h?ssl=true&sslmode=disable
postgresql://h?sslmode=disable&ssl=true
postgresql://h?sslmode=anything
postgresql://h?requiressl=1
postgresql://h?requiressl=0
postgresql://h?requiressl=
postgresql://h?target_session_attrs=read-write&load_balance_hosts=random&connect_timeout=x
postgresql://h?options=-c%20search_path%3Da
POSTGRESQL://h
Postgresql://h
postgresql:/h
postgresql:h
postgres+driver://h
http://h
 postgresql://h
host
host=
host =
host = a
host=a
  host=a
host=a port=5433
host = a port = 5433
host= port=5433
host=a,b port=5433
host=a,b port=5433,
host=a,b port=,5433
host=a,b port=1,2,3
host=a,b,c port=1,2
host=a port=,
host=a,a
host=a@h,b@h
host=a;x,a;y,a;x
host=, port=1
host=,
host=,,a
host=''
host='' port=''
port=
port=5433
port=' 5433 '
port=+5433
port=' '
port=5433x
port='54 33'
port=''
port=0
port=65536
port=1,2
host=a,b port=,
host=a,b port=', '
hostaddr=10.0.0.1
hostaddr=10.0.0.1,10.0.0.2
hostaddr=10.0.0.1,10.0.0.2 port=1,2
hostaddr=10.0.0.1 host=a
hostaddr=10.0.0.1 host=a,b
hostaddr=10.0.0.1,10.0.0.2 host=a
hostaddr=10.0.0.1,10.0.0.2 host=a,
hostaddr=10.0.0.1,10.0.0.2 host=a,a
hostaddr=, host=a,b
hostaddr=,10.0.0.1 host=10.0.0.1,
hostaddr= host=a,b
hostaddr='' host=a,b
hostaddr=::1 host=::1
host=/run/postgresql
host=/run/a,/run/b
host=@abstract
host=fe80::1%eth0
user=a password=b dbname=c
user='' password='' dbname=''
password='se cret'
password=se cret
password=se'cret
password='se'cret
password='se\'cret'
password=se\ cret
password=se\\cret
password='se\\cret'
password=\'
password=\n
password=secret\
password='secret\'
password='secret\
password='secret
password='
password=''
password='' user=a
password=''user=a
password='a'user='b'
password="a b"
password="a"
password==
password=a=b
password ==
= a
=
==
'host'=a
ho\st=a
host a
host a=b
host=a=b port=1
host=a user
host=a user=
host=a user=b user=c
HOST=a
hozt=a
ssl=true
sslmode=require
requiressl=1
requiressl=10
requiressl=yes
sslmode=disable requiressl=1
requiressl=1 sslmode=disable
dbname=postgresql://other
dbname='host=other'
dbname='postgresql://user:secret@other/db'
application_name='a b' connect_timeout=3 options='-c geqo=off'
user=é password=пароль
user=a%20b
host=a\,b
host='a,b' port='1,2'
host='a, b'
""".splitlines()[1:]

UNPRINTABLE = [
    "",
    " ",
    "\t\n\v\f\r",
    "\thost\n=\va\f\rport=1\n",
    "host=a\x1cport=1",
    "host=a\xa0port=1",
    "host=a\u2003port=1",
    "host\x85=a",
    "password='a\nb'",
    "password=a\nuser=b",
    "password=\\\n",
    "port='\v1\f'",
    "port='\xa01'",
    "postgresql://\thost\n",
    "postgresql://host?user=\t",
    "postgresql://host:\t1",
    "postgresql://host: ",
    "postgresql:// ",
    "postgresql://host/ ",
    "postgresql://host?user= ",
    "postgresql://a@ ",
    "postgresql:// @host",
    "postgresql://a\xa0b",
    "postgresql://\udcff:\udcfe@host",
    "user=\udcff",
]


@pytest.mark.parametrize("text", [*CASES, *UNPRINTABLE])
def test_reads_what_libpq_reads(text: str) -> None:
    check_agreement(text)


def test_keywords_are_those_of_libpq() -> None:
    assert {*KNOWN} <= KEYWORDS
    if pq.version() >= 180000:
        assert {*KNOWN} == KEYWORDS


# The grammar: well-formed pieces mostly, each with a chance to be broken.

words = st.sampled_from(
    ["a", "db1", "x.y", "é", "1", "5432", "65536", "+1", "010", "", "true", "/run/pg", "::1"]
)
encoded = st.binary(min_size=1, max_size=3).map(lambda raw: "".join(f"%{b:02x}" for b in raw))
odd = st.sampled_from(
    [*"%+ :@/?,&='\\#[]\t\n", "%2", "%g0", "%00", "%2C", "%20", "\xa0", "\u0663", "\udcff", "  "]
)
piece = st.lists(st.one_of(words, words, words, encoded, odd), min_size=1, max_size=3).map("".join)
value = st.one_of(words, words, words, words, piece)
name = st.one_of(
    st.sampled_from(OWN),
    st.sampled_from(KNOWN),
    st.sampled_from(KNOWN),
    st.sampled_from(["ssl", "requiressl", "hozt", "", " user", "us%65r"]),
)
spaces = st.sampled_from(["", "", "", " ", "\t", " \n"])
good_host = st.sampled_from(["", "a", "db1", "[::1]", "[fe80::1%25a]", "%2Frun", "@pg"])
good_port = st.sampled_from(["", "", ":", ":1", ":5432", ":%31", ":+1"])
netloc_host = st.one_of(
    good_host, good_host, good_host, value, st.sampled_from(["[", "[]", "[a]b"])
)
netloc_port = st.one_of(
    good_port, good_port, good_port, st.sampled_from([":0", ":65536", ":x", ": 1"])
)
commas = st.lists(value, min_size=1, max_size=4).map(",".join)


@st.composite
def uris(draw: st.DrawFn) -> str:
    userinfo = draw(st.sampled_from(["", "", "{}@", "{}:{}@", ":{}@", "{}:@"]))
    netlocs = draw(st.lists(st.tuples(netloc_host, netloc_port), min_size=1, max_size=4))
    path = draw(st.sampled_from(["", "", "/", "/{}"]))
    query = draw(st.lists(st.tuples(name, st.one_of(value, commas)), max_size=4))
    return "".join(
        (
            draw(st.sampled_from(["postgresql://", "postgres://"])),
            userinfo.format(draw(value), draw(value)),
            ",".join(host + port for host, port in netlocs),
            path.format(draw(value)),
            draw(st.sampled_from(["?", "?", "?", ""])) if query else "",
            "&".join(f"{key}={text}" for key, text in query),
            draw(st.sampled_from(["", "", "", "&", " "])),
        )
    )


@st.composite
def keyword_strings(draw: st.DrawFn) -> str:
    text = draw(spaces)
    for _ in range(draw(st.integers(0, 5))):
        raw = draw(st.one_of(value, commas))
        quoted = "'" + raw.replace("\\", "\\\\").replace("'", "\\'") + "'"
        text += "".join(
            (
                draw(name),
                draw(spaces),
                "=",
                draw(spaces),
                draw(st.sampled_from([raw, quoted, f"'{raw}'", raw.replace(" ", "\\ ")])),
                draw(st.sampled_from([" ", " ", "\n", ""])),
            )
        )
    return text


@st.composite
def mutants(draw: st.DrawFn) -> str:
    text = draw(st.one_of(st.sampled_from([*CASES, *UNPRINTABLE]), uris(), keyword_strings()))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 5)))
        patch = draw(st.one_of(st.just(""), odd, words, st.just(text[start:end] * 2)))
        text = text[:start] + patch + text[end:]
    return text


dsns = st.one_of(
    uris(),
    keyword_strings(),
    mutants(),
    st.text(max_size=30).filter(lambda text: "\0" not in text),
)


@properties
@given(dsns)
def test_never_disagrees_with_libpq(text: str) -> None:
    check_agreement(text)


# Directories that do not exist: PQconnectStart tries every host and fails at once, each in its
# own words, without a look at the network.
lists = st.lists(st.sampled_from(["/nonexistent/a", "/nonexistent/b"]), min_size=1, max_size=4)
ports = st.lists(
    st.one_of(
        st.sampled_from(
            ["", "1", "0", "65535", "65536", "-1", "+7", " 8 ", "\t9", "1 2", "x", " "]
        ),
        st.integers(-9, 99999).map(str),
        st.text("0123456789+-_ \t\v.xe\u0663", max_size=5),
    ),
    max_size=5,
)


@properties
@given(lists, st.one_of(st.none(), ports.map(",".join)))
def test_refuses_the_host_lists_that_connecting_refuses(hosts: list[str], port: str | None) -> None:
    text = f"host={','.join(hosts)} user=nobody" + ("" if port is None else f" port='{port}'")
    connection = pq.PGconn.connect_start(text.encode())
    message = connection.error_message.decode()
    connection.finish()
    refused = any(
        reason in message
        for reason in ("could not match", "invalid port number", "invalid integer value")
    )
    targets = our_targets(text)
    assert (targets is None) == refused
    for target in targets or ():
        assert f'"{target.host}/.s.PGSQL.{target.port}"' in message


# Round trips.

printable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
host_names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0,"), min_size=1, max_size=12
)
addresses = st.one_of(
    st.sampled_from(
        ["db1", "10.0.0.1", "::1", "fe80::1%eth0", "/run/postgresql", "@pg", "[", "a]"]
    ),
    host_names,
)
targets = st.builds(
    Target,
    host=st.none() | addresses,
    hostaddr=st.none() | addresses,
    port=st.integers(1, 65535),
    user=st.none() | printable,
    password=st.none() | printable,
    dbname=st.none() | printable,
    params=st.dictionaries(st.sampled_from([n for n in KNOWN if n not in OWN]), printable),
)


def check_round_trips(target: Target) -> None:
    values = {keyword: encode(str(text)) for keyword, text in target.to_kwargs().items()}
    for text in (target.to_conninfo(), target.to_uri()):
        assert libpq_values(text) == values
        assert parse_dsn(text) == (target,)


@properties
@given(targets)
def test_targets_survive_being_written(target: Target) -> None:
    check_round_trips(target)


def test_every_printable_character_survives() -> None:
    characters = [chr(code) for code in range(1, 0x3000) if chr(code).isprintable()]
    for character in characters[:500]:
        check_round_trips(Target("h", 1, "u", password=character))
    every = "".join(characters)
    check_round_trips(Target("h", 1, every, every, every))


def test_bytes_that_are_not_utf8_survive() -> None:
    (target,) = parse_dsn("postgresql://h?password=%ff%fe")
    assert encode(target.password or "") == b"\xff\xfe"
    check_round_trips(target)


@properties
@given(st.lists(targets, min_size=1, max_size=3), printable)
def test_lists_of_hosts_survive(several: list[Target], password: str) -> None:
    """A URI as others write it: `urllib` quotes, hosts without ``hostaddr``."""
    places = dict.fromkeys((target.host or "", target.port) for target in several)
    netlocs = ",".join(f"{quote(host, safe='')}:{port}" for host, port in places)
    parsed = parse_dsn(f"postgresql://user:{quote(password, safe='')}@{netlocs}/db")
    assert [(target.host or "", target.port) for target in parsed] == list(places)
    first = dataclasses.replace(parsed[0], host=None, port=1)
    assert all(dataclasses.replace(target, host=None, port=1) == first for target in parsed)
    assert first.password == (password or None)
