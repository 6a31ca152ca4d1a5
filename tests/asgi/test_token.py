"""Tokens: what was signed is read, and nothing else is."""

import dataclasses
import string
from dataclasses import replace

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyscopg2.asgi import Counts
from pyscopg2.asgi.reach import Reach
from pyscopg2.asgi.signer import MAX_LENGTH, SKEW, Refusal, Signer
from pyscopg2.asgi.token import LONGEST, Token
from pyscopg2.core.wal import WalPosition

# On a busy machine an example may take long; and what was found before is told by no file.
hypothesis.settings.register_profile("patient", deadline=None, database=None)
hypothesis.settings.load_profile("patient")

OLD, NEW, OTHER = b"1" * 32, b"2" * 32, b"3" * 32
NOW = 1_800_000_000
SIGNER = Signer([NEW, OLD], 300)

positions = st.builds(
    WalPosition,
    st.integers(1, 2**64 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
reaches = st.builds(Reach, st.none() | positions, st.booleans())
tokens = st.builds(Token, st.integers(0, 2**48 - 1), reaches)
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " "
TOKEN = Token(NOW, Reach(WalPosition(7412345678901234567, 1, 0x3000148)))


@given(tokens)
def test_a_token_goes_through_its_text(token: Token) -> None:
    assert Token.parse(str(token)) == token
    assert len(str(token)) <= LONGEST


@given(tokens, st.floats(-SKEW, 300))
def test_what_was_signed_is_read(token: Token, age: float) -> None:
    signed = SIGNER.sign(token)
    assert len(signed) <= MAX_LENGTH
    assert SIGNER.read(signed.encode(), token.issued + age) == token


@given(tokens)
def test_it_may_stand_in_a_cookie_and_in_a_header(token: Token) -> None:
    """RFC 6265, section 4.1.1, without the characters that some quote."""
    assert set(SIGNER.sign(token)) <= set(string.digits + string.ascii_letters + "._-")


@given(st.binary(max_size=2 * MAX_LENGTH), st.floats(allow_nan=False))
def test_any_bytes_are_refused(signed: bytes, now: float) -> None:
    refused = {Refusal.MALFORMED, Refusal.FORGED, Refusal.OVERSIZED}
    assert SIGNER.read(signed, now) in refused


@given(tokens, st.data())
def test_every_change_of_a_character_is_refused(token: Token, data: st.DataObject) -> None:
    signed = SIGNER.sign(token)
    at = data.draw(st.integers(0, len(signed) - 1))
    other = data.draw(st.sampled_from(CHARACTERS).filter(lambda c: c != signed[at]))
    changed = signed[:at] + other + signed[at + 1 :]
    refused = {Refusal.MALFORMED, Refusal.FORGED}
    assert SIGNER.read(changed.encode(), token.issued) in refused


def test_every_change_of_a_character_of_this_one_is_refused() -> None:
    """The last one, too, of which base64 has bits to spare."""
    signed = SIGNER.sign(TOKEN)
    for at, character in enumerate(signed):
        for other in CHARACTERS:
            if other != character:
                changed = signed[:at] + other + signed[at + 1 :]
                assert isinstance(SIGNER.read(changed.encode(), NOW), Refusal), changed


@given(tokens, st.data())
def test_what_is_cut_or_longer_is_refused(token: Token, data: st.DataObject) -> None:
    signed = SIGNER.sign(token).encode()
    cut = data.draw(st.integers(0, len(signed) - 1))
    assert isinstance(SIGNER.read(signed[:cut], token.issued), Refusal)
    more = data.draw(st.binary(min_size=1, max_size=100))
    assert isinstance(SIGNER.read(signed + more, token.issued), Refusal)
    assert isinstance(SIGNER.read(more + signed, token.issued), Refusal)


def test_the_first_secret_signs_and_all_of_them_are_read() -> None:
    before = Signer([OLD], 300).sign(TOKEN).encode()
    after = Signer([NEW], 300).sign(TOKEN).encode()
    assert SIGNER.read(before, NOW) == SIGNER.read(after, NOW) == TOKEN
    assert SIGNER.sign(TOKEN).encode() == after
    assert Signer([NEW], 300).read(before, NOW) is Refusal.FORGED
    assert Signer([OTHER], 300).read(after, NOW) is Refusal.FORGED


@pytest.mark.parametrize(
    ("age", "read"),
    [
        (0, TOKEN),
        (300, TOKEN),
        (300.1, Refusal.OLD),
        (1e12, Refusal.OLD),
        (-SKEW, TOKEN),
        (-SKEW - 0.1, Refusal.EARLY),
        (-1e12, Refusal.EARLY),
    ],
)
def test_its_age(age: float, read: Token | Refusal) -> None:
    assert SIGNER.read(SIGNER.sign(TOKEN).encode(), NOW + age) == read


def test_no_time_is_looked_at_in_what_is_not_signed() -> None:
    forged = SIGNER.sign(replace(TOKEN, issued=NOW + 3600)).replace("p", "w", 1)
    assert SIGNER.read(forged.encode(), NOW) is Refusal.FORGED


def test_no_one_is_longer_than_the_longest() -> None:
    most = WalPosition(2**64 - 1, 2**32 - 1, 2**64 - 1)
    signed = SIGNER.sign(Token(2**48 - 1, Reach(most, True)))
    assert len(signed) == MAX_LENGTH == 100
    assert SIGNER.read(signed.encode() + b"a", NOW) is Refusal.OVERSIZED


@pytest.mark.parametrize(
    "text",
    ["", "p", "q6b49d200", "p6B49D200", "p06b49d200", "p6b49d200.", "p6b49d200.1.1", "p1.1.1.1.1",
     "p1.0.1.1", "p 1", "p1\n", "p1234567890123"],
)  # fmt: skip
def test_what_is_no_text_of_a_token(text: str) -> None:
    with pytest.raises(ValueError, match="not the text of a"):
        Token.parse(text)


def test_what_a_later_version_has_signed_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def text(_: Token) -> str:
        return "z-1.2.3"

    with monkeypatch.context() as patch:
        patch.setattr(Token, "__str__", text)
        later = SIGNER.sign(TOKEN).encode()
    assert SIGNER.read(later, NOW) is Refusal.MALFORMED


def test_each_refusal_has_a_count() -> None:
    assert {each.value for each in Refusal} <= {f.name for f in dataclasses.fields(Counts)}


def test_the_secret_stands_in_no_repr() -> None:
    assert "2222" not in repr(SIGNER)
    assert "2222" not in repr([getattr(SIGNER, name) for name in Signer.__slots__])
