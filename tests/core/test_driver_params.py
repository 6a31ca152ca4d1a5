"""What a driver without libpq is handed of a DSN, and what it must not be trusted with."""

import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest

from pyscopg2.core.adapter.driver_params import may_be_left_out, supported, take_settings
from pyscopg2.core.adapter.tls import take_system_context
from pyscopg2.core.dsn import Target
from pyscopg2.core.dsn.keywords import KEYWORDS

OWN = {"host", "hostaddr", "port", "user", "password", "dbname"}
ENDS_WITH_US = {"load_balance_hosts", "passfile", "service", "target_session_attrs"}
LEFT_OUT = {
    *("client_encoding", "fallback_application_name", "sslcompression", "sslkeylogfile"),
    *("keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval"),
    "tcp_user_timeout",
}
DOCS = Path(__file__).parents[2] / "packages/core/docs/dsn.md"


def target(params: Mapping[str, str]) -> Target:
    return Target("db1", 5432, "app", "secret", "shop", params)


def is_refused(name: str, value: str) -> bool:
    try:
        handed = supported(target({name: value}), ())
    except ValueError:
        return True
    assert handed == {}
    return False


def test_every_parameter_is_a_demand_unless_it_is_known_to_be_none() -> None:
    harmless = {name for name in KEYWORDS - OWN if not is_refused(name, "odd")}
    assert harmless == ENDS_WITH_US | LEFT_OUT


def test_what_is_left_out_is_documented() -> None:
    text = DOCS.read_text()
    assert all(f"`{name}`" in text for name in LEFT_OUT - {"fallback_application_name"})


@pytest.mark.parametrize(
    ("name", "met", "refused"),
    [
        ("channel_binding", ["disable", "prefer"], ["require"]),
        ("gssdelegation", ["", "0"], ["1"]),
        ("gssencmode", ["disable", "prefer"], ["require"]),
        ("max_protocol_version", ["3.0", "3.2", "latest"], []),
        ("min_protocol_version", ["3.0"], ["3.2", "latest"]),
        ("require_auth", [""], ["none", "scram-sha-256"]),
        ("sslcertmode", ["allow"], ["disable", "require"]),
        ("sslcrldir", [""], ["/etc/crls"]),
        ("sslsni", ["1"], ["0", ""]),
    ],
)
def test_values_that_are_met(name: str, met: list[str], refused: list[str]) -> None:
    assert [value for value in (*met, *refused) if is_refused(name, value)] == refused


def test_hands_over_what_the_driver_knows_and_what_libpq_does_not() -> None:
    params = {"sslmode": "require", "work_mem": "1MB", "search_path": "", "passfile": "/p"}
    assert supported(target(params), {"sslmode"}) == {
        "sslmode": "require",
        "work_mem": "1MB",
        "search_path": "",
    }


def test_what_nobody_knows_may_not_be_left_out() -> None:
    assert not may_be_left_out("servicefile", "")
    assert not may_be_left_out("work_mem", "")


def test_a_refusal_names_the_parameter_and_shows_no_value() -> None:
    with pytest.raises(ValueError, match="requirepeer") as caught:
        supported(target({"requirepeer": "Zq7"}), ())
    assert str(caught.value) == "requirepeer: the driver can't do what the DSN demands"


def test_the_database_is_not_a_setting() -> None:
    with pytest.raises(ValueError, match="database: a DSN has the database in dbname"):
        supported(target({"database": "other"}), ())


@pytest.mark.parametrize("params", [{"options": "\udcff"}, {"work_mem": "\udcff"}])
def test_bytes_that_are_not_utf8(params: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="UTF-8") as caught:
        supported(target(params), {"options"})
    assert caught.value.__context__ is None


def test_an_empty_value_lets_no_variable_in() -> None:
    known = {"sslcert", "sslpassword"}
    given = target({"sslcert": "", "sslpassword": ""})
    assert supported(given, known, {}) == {"sslcert": "", "sslpassword": ""}
    assert supported(given, known, {"PGSSLCERT": ""})
    with pytest.raises(ValueError, match="sslcert: empty, but the driver would take PGSSLCERT"):
        supported(given, known, {"PGSSLCERT": "/etc/cert"})


@pytest.mark.parametrize("version", ["TLSv1.2", "tlsv1.2", "TLSV1.2"])
def test_versions_are_written_as_drivers_write_them(version: str) -> None:
    name = "ssl_min_protocol_version"
    assert supported(target({name: version}), {name}) == {name: "TLSv1.2"}


def test_the_fallback_name_counts_where_there_is_no_other() -> None:
    fallback = {"fallback_application_name": "second"}
    known = {"application_name"}
    assert supported(target(fallback), known) == {"application_name": "second"}
    assert supported(target(fallback), ()) == {}
    for name in ("first", ""):
        given = target({**fallback, "application_name": name})
        assert supported(given, known) == {"application_name": name}


def test_settings_are_told_as_libpq_tells_them() -> None:
    params = {"application_name": "a", "options": "", "search_path": "", "sslmode": "require"}
    assert take_settings(params) == {"application_name": "a", "search_path": ""}
    assert params == {"sslmode": "require"}


def test_no_context_for_other_authorities() -> None:
    params = {"sslrootcert": "/etc/ca", "sslmode": "verify-full"}
    assert take_system_context(params) is None
    assert params == {"sslrootcert": "/etc/ca", "sslmode": "verify-full"}


def test_the_systems_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    params = {
        "sslrootcert": "system",
        "sslmode": "verify-full",
        "ssl_min_protocol_version": "TLSv1.3",
        "ssl_max_protocol_version": "TLSv1.3",
        "sslnegotiation": "direct",
    }
    context = take_system_context(params)
    assert params == {"sslnegotiation": "direct"}
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version is context.maximum_version is ssl.TLSVersion.TLSv1_3
    for name, error in (("sslcrl", ValueError), ("sslcert", FileNotFoundError)):
        with pytest.raises(error):
            take_system_context({"sslrootcert": "system", name: "/nonexistent/file"})
