"""No password is shown, whatever is wrong."""

import asyncio
import struct
from urllib.parse import quote

import click
import pytest
from tests.cli.support import SSL_REQUEST, run, serving

from pyscopg2.cli import command
from pyscopg2.testing.cluster import LocalCluster

PASSWORD = "s3cr3t p@ss/w:rd'\"\\%\x1b[31m,ünï=x"

PIECES = ("s3cr3t", "w:rd", "31m", "ünï", quote(PASSWORD, safe=""))


def assert_hidden(output: str) -> None:
    for piece in PIECES:
        assert piece not in output, output


def commands(
    dsn: str,
    env: dict[str, str] | None = None,
    others: tuple[tuple[str, ...], ...] = (("watch", "--for", "0.2"),),
) -> None:
    """All of them, with all that they say. ``others``: not in a thread, where no signals come."""
    arguments = () if env else (dsn,)
    for words in (
        ("check",),
        ("check", "--json"),
        ("status",),
        ("status", "--json"),
        *others,
    ):
        assert_hidden(run(*words, *arguments, env=env, width=400).output)


ENCODED = quote(PASSWORD, safe="")

QUOTED = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")


@pytest.mark.parametrize(
    "place",
    [
        "{host}/postgres",
        "nowhere.invalid/postgres",
        "{host}/nowhere",
        "{host}/postgres?sslmode=require",
        "{host}/postgres?no_such_setting=1",
        "{host}/postgres?target_session_attrs=read-write",
        "{host},127.0.0.1:1/postgres",
    ],
)
def test_in_a_uri(cluster: LocalCluster, place: str) -> None:
    host = cluster.primary.address
    commands(f"postgresql://postgres:{ENCODED}@{place.format(host=host)}")


@pytest.mark.parametrize("user", ["postgres", "nobody"])
def test_in_keywords_and_in_the_environment(cluster: LocalCluster, user: str) -> None:
    primary = cluster.primary
    rest = f"host={primary.host} port={primary.port} user={user}"
    commands(f"{rest} password='{QUOTED}'")
    commands("", {"PYSCOPG2_DSN": f"{rest} password='{QUOTED}'"})
    env = {"PGHOST": primary.host, "PGPORT": str(primary.port), "PGUSER": user}
    commands("", env | {"PGPASSWORD": PASSWORD})


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://postgres:{PASSWORD}@127.0.0.1:1/postgres",
        f"host=127.0.0.1 port=1 user=postgres password={PASSWORD}",
        f"postgresql://postgres:x@{ENCODED}:1/postgres",
        f"postgresql://postgres@127.0.0.1:{PASSWORD}/postgres",
        f"service={PASSWORD}",
    ],
)
def test_in_a_dsn_that_is_misread(dsn: str) -> None:
    commands(dsn)


@pytest.mark.parametrize(
    "arguments",
    [
        [f"postgresql://u:{PASSWORD}@h/d"],
        ["check", "host=h", f"password={PASSWORD}"],
        ["check", f"--password={PASSWORD}"],
        ["watch", f"--dsn=postgresql://u:{PASSWORD}@h/d"],
    ],
)
def test_in_arguments_that_are_wrong(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert_hidden(done.output)


async def test_in_what_a_server_says(cluster: LocalCluster) -> None:
    """A server, or an impostor in its place, may say the password back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(8)
        if first == SSL_REQUEST:
            writer.write(b"N")
            await reader.readexactly(8)
        body = f"SFATAL\0C28000\0Mrefused: {PASSWORD}\r\nand more\0\0".encode()
        writer.write(b"E" + struct.pack("!i", 4 + len(body)) + body)
        await writer.drain()

    async with serving(serve) as port:
        dsn = f"postgresql://u:{ENCODED}@127.0.0.1:{port}/d"
        await asyncio.to_thread(commands, dsn, others=())


def test_in_an_error_that_nobody_expected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError(PASSWORD)

    monkeypatch.setattr(command, "pyscopg2", click.Command("pyscopg2", callback=fail))
    monkeypatch.setattr("sys.argv", ["pyscopg2"])
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert "unexpected RuntimeError" in told
    assert_hidden(told)
