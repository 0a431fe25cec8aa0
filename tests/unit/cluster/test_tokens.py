"""A token comes back from its text as it was, and nothing else passes for one."""

from __future__ import annotations

import os

import pytest

from edgestore.cluster.tokens import Token, new_token, parse_token, secret_digest
from edgestore.errors import BadRequest


def test_a_token_comes_back_from_its_text() -> None:
    token = new_token(os.urandom(32), os.urandom)
    assert parse_token(str(token)) == token
    assert parse_token(f"  {token}\n") == token


def test_two_tokens_differ_in_id_and_secret() -> None:
    one, two = (new_token(bytes(32), os.urandom) for _ in range(2))
    assert one.token_id != two.token_id
    assert secret_digest(one.secret) != secret_digest(two.secret)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ES1",
        "ES1.." + "0" * 16 + "." + "0" * 48,
        f"ES2.{'0' * 64}.{'0' * 16}.{'0' * 48}",
        f"ES1.{'0' * 63}.{'0' * 16}.{'0' * 48}",
        f"ES1.{'0' * 64}.{'0' * 16}.{'0' * 48}0",
        f"ES1.{'0' * 64}.{'g' * 16}.{'0' * 48}",
        f"ES1.{'0' * 64}.{'0' * 16}.{chr(0x660) * 48}",
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="no join token"):
        parse_token(text)


def test_a_traceback_never_shows_the_secret() -> None:
    token = new_token(bytes(32), os.urandom)
    assert token.secret not in repr(token)
    assert isinstance(token, Token)
