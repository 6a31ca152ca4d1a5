"""The SQLSTATE of a refused connect, from what the server said."""

import time

import pytest

from pyscopg2.core.adapter.refusals import refusal_sqlstate

AT = 'connection to server at "127.0.0.1", port 5432 failed: '
LOGIN = 'host "10.0.0.7", user "app", database "app"'


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ('FATAL:  password authentication failed for user "app"', "28P01"),
        ('FATAL:  role "nobody" does not exist', "28000"),
        ('FATAL:  role "readers" is not permitted to log in', "28000"),
        (f"FATAL:  no pg_hba.conf entry for {LOGIN}, no encryption", "28000"),
        (f"FATAL:  pg_hba.conf rejects connection for {LOGIN}, SSL encryption", "28000"),
        ('FATAL:  database "nowhere" does not exist', "3D000"),
        (f'FATAL:  database "{"n" * 63}" does not exist', "3D000"),
        ('FATAL:  database "the "best" one" does not exist', "3D000"),
    ],
)
@pytest.mark.parametrize("before", ["", AT, f"connection failed: {AT}"])
def test_what_postgresql_refuses_has_its_sqlstate(said: str, code: str, before: str) -> None:
    assert refusal_sqlstate(f"{before}{said}\n") == code


@pytest.mark.parametrize(
    "said",
    [
        "",
        f"{AT}Connection refused\n\tIs the server running on that host?\n",
        f"{AT}FATAL:  the database system is starting up\n",
        f"{AT}FATAL:  sorry, too many clients already\n",
        "FATAL:  terminating connection due to administrator command\n",
        f"{AT}timeout expired\n",
        'could not translate host name "database" to address: Name or service not known\n',
        # Not the server's words: an error of a statement, and of the user's own.
        'role "nobody" does not exist\n',
        'ERROR:  database "nowhere" does not exist\n',
        # Nothing that PostgreSQL says: longer than its names, and on two lines.
        f'FATAL:  database "{"n" * 65}" does not exist\n',
        'FATAL:  database "nowhere"\n" does not exist\n',
    ],
)
def test_what_may_heal_or_is_no_refusal_has_none(said: str) -> None:
    assert refusal_sqlstate(said) is None


def test_of_several_refusals_the_wrong_password_counts() -> None:
    """As with ``sslmode=prefer``: libpq connects twice, and says both."""
    unencrypted = f"{AT}FATAL:  no pg_hba.conf entry for {LOGIN}, no encryption\n"
    encrypted = f'{AT}FATAL:  password authentication failed for user "app"\n'
    assert refusal_sqlstate(unencrypted + encrypted) == "28P01"
    assert refusal_sqlstate(encrypted + unencrypted) == "28P01"


def test_a_refusal_is_found_at_the_end_of_a_long_message() -> None:
    notices = "NOTICE:  FATAL: nothing yet\n" * 1000
    assert refusal_sqlstate(f'{notices}FATAL:  role "nobody" does not exist\n') == "28000"


@pytest.mark.parametrize(
    "piece",
    [
        "FATAL:",
        "FATAL: ",
        " ",
        'FATAL:  database "',
        'FATAL:  role "x" ',
        'FATAL:  database "" does not exis',
        "FATAL:  password authentication failed for user",
        "FATAL:  pg_hba.conf ",
    ],
)
@pytest.mark.parametrize("before", ["", "FATAL: ", 'FATAL:  role "'])
def test_a_hostile_text_takes_linear_time(piece: str, before: str) -> None:
    """Milliseconds; many seconds where the time grows with the square of the text's length."""
    text = before + piece * (200_000 // len(piece))
    began = time.process_time()
    assert refusal_sqlstate(text) is None
    assert time.process_time() - began < 1
