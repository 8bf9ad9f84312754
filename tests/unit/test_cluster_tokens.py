"""Tokens to join by: what they say, and that nobody but a manager can make or change one."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netlib.cluster.model import Role
from netlib.cluster.tokens import MARK, Token, new_key, read, verify
from netlib.errors import ExpiredToken, NetError, WrongToken

KEY = b"k" * 32
NOW = 1_800_000_000.0
ALPHABET = string.ascii_letters + string.digits + "-_+/= "

roles = st.sampled_from(["worker", "manager"])
pins = st.binary(min_size=32, max_size=32)


def made(role: Role = "worker", generation: int = 0, expires: float = NOW + 60) -> Token:
    """A token with nothing special about it."""
    return Token(role=role, generation=generation, expires=expires, pin=b"p" * 32, salt=b"s" * 10)


@given(roles, st.integers(0, 2**32 - 1), st.integers(int(NOW) + 1, 2**40), pins)
def test_a_token_says_what_it_was_made_with(
    role: Role, generation: int, expires: int, pin: bytes
) -> None:
    """Writing and reading are each other's inverse, and its maker knows it again."""
    token = Token(role=role, generation=generation, expires=expires, pin=pin, salt=b"s" * 10)
    text = token.signed(KEY)

    assert read(text) == token
    assert verify(text, KEY, generation, NOW) == token


@given(st.data())
def test_an_altered_token_is_refused(data: st.DataObject) -> None:
    """Whatever letter is changed, left out or added, and to what."""
    text = made().signed(KEY)
    at = data.draw(st.integers(0, len(text) - 1))
    letters = data.draw(st.text(ALPHABET, max_size=2))
    altered = text[:at] + letters + text[at + 1 :]

    if altered != text:
        with pytest.raises(WrongToken):
            verify(altered, KEY, 0, NOW)


@given(st.text())
@example("join-tok")  # which the hint says of its own accord
def test_any_text_is_a_token_or_refused(text: str) -> None:
    """Nothing else is raised, and the text is never repeated: it may be nearly right."""

    def refusal(candidate: str) -> str:
        with pytest.raises(NetError) as refused:
            verify(candidate, KEY, 0, NOW)
        return str(refused.value)

    always = refusal("") + refusal(MARK)
    for candidate in (text, MARK + text):
        assert len(text) < 8 or text in always or text not in refusal(candidate)


@given(st.binary(min_size=72, max_size=72))
def test_who_has_no_key_makes_no_token(packed: bytes) -> None:
    """Bytes of the right number are not enough."""
    import base64

    with pytest.raises(WrongToken):
        verify(MARK + base64.urlsafe_b64encode(packed).decode(), KEY, 0, NOW)


def test_another_cluster_s_token_is_refused() -> None:
    """Its key is another."""
    with pytest.raises(WrongToken, match="not of this cluster"):
        verify(made().signed(new_key()), KEY, 0, NOW)


@pytest.mark.parametrize("generation", [0, 2])
def test_a_token_of_another_generation_is_refused(generation: int) -> None:
    """Rotation ends those before; none comes from the future."""
    with pytest.raises(WrongToken, match="rotated"):
        verify(made(generation=1).signed(KEY), KEY, generation, NOW)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 seconds"), (90, "90 seconds"), (7200, "2 hours"), (1e6, "11 days")]
)
def test_an_expired_token_says_since_when(seconds: float, told: str) -> None:
    """People who kept it in a note learn why it is refused."""
    with pytest.raises(ExpiredToken, match=f"{told} ago"):
        verify(made(expires=NOW).signed(KEY), KEY, 0, NOW + seconds)


def test_two_tokens_differ() -> None:
    """Also those made in the same second for the same role."""
    one = Token(role="worker", generation=0, expires=NOW, pin=b"p" * 32)

    assert one.signed(KEY) != one.signed(KEY)
