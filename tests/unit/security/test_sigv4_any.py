"""Signatures on whatever may come: what we sign we verify, and nothing breaks the verifier."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgestore import errors
from edgestore.security import presign_url, read_plain_presign, sign_headers, sigv4
from tests.unit.security.signing import (
    ACCESS_KEY,
    HOST,
    NOW_MS,
    REGION,
    SECRET_KEY,
    as_received,
    presigned,
    signed,
    verify,
    with_header,
)

PATH_CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Cs",))


@settings(deadline=None)
@given(key=st.text(PATH_CHARACTERS, min_size=1, max_size=40), meta=st.text("ab \u00e9\u20ac\t", max_size=20))
def test_our_signer_and_our_verifier_agree(key: str, meta: str) -> None:
    url = f"http://{HOST}/bucket/{quote(key, safe='/-_.~')}?prefix={quote(key, safe='')}"
    headers = sign_headers(
        "PUT",
        url,
        {"x-amz-meta-m": meta},
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        region=REGION,
        now_ms=NOW_MS,
    )
    verify(as_received("PUT", url.removeprefix(f"http://{HOST}"), headers))
    made = presign_url(
        "GET", url, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, now_ms=NOW_MS, expires_s=60
    )
    verify(as_received("GET", made.removeprefix(f"http://{HOST}"), {"host": HOST}))


def test_our_presigned_url_is_the_one_of_botocore() -> None:
    url = f"http://{HOST}/bucket/a%20key?versionId=x"
    ours = presign_url(
        "GET", url, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, now_ms=NOW_MS, expires_s=3600
    )
    theirs = presigned("GET", "/bucket/a%20key?versionId=x")
    assert ours.rpartition("X-Amz-Signature=")[2] == theirs.raw_query.rpartition("X-Amz-Signature=")[2]


# --- raw path and query -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(path=st.text(max_size=30), query=st.text(max_size=30))
def test_no_path_or_query_breaks_the_verifier(path: str, query: str) -> None:
    request = signed("GET", "/bucket/k")
    with pytest.raises(errors.EdgeStoreError):
        verify(request._replace(raw_path="/" + path, raw_query=query + "&x=1"))


@settings(deadline=None)
@given(value=st.text(max_size=120))
def test_no_authorization_breaks_the_verifier(value: str) -> None:
    with pytest.raises(errors.EdgeStoreError):
        verify(with_header(signed(), "authorization", value))


@settings(deadline=None)
@given(date=st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d{1,3}:\d\d:\d\d \S+"))
def test_no_date_breaks_the_verifier(date: str) -> None:
    request = with_header(with_header(signed(), "x-amz-date", None), "date", date)
    with pytest.raises(errors.EdgeStoreError):
        verify(request)


# --- headers ----------------------------------------------------------------------------------------------


PRESIGN_PIECES = st.lists(
    st.sampled_from(
        [
            "X-Amz-Algorithm=AWS4-HMAC-SHA256",
            "X-Amz-Credential=AK%2F20261124%2Fus-east-1%2Fs3%2Faws4_request",
            "X-Amz-Credential=AK%2f20261124",
            "X-Amz-Date=20261124T100000Z",
            "X-Amz-Expires=60",
            "X-Amz-Expires=+60",
            "X-Amz-SignedHeaders=host%3Bx-amz-date",
            "X-Amz-SignedHeaders=host;range",
            "X-Amz-Signature=" + "a" * 64,
            "X-Amz-Signature=" + "A" * 64,
            "x=1",
            "",
        ]
    ),
    max_size=9,
)


@given(pieces=PRESIGN_PIECES)
def test_a_plain_query_reads_as_any_other(pieces: list[str]) -> None:
    plain = read_plain_presign("&".join(pieces))
    if plain is not None:
        assert plain == sigv4._read_presign("&".join(pieces))


@pytest.mark.parametrize("spoiled", ["", "&x=1", "&X-Amz-Expires=9", "%20", "\n"])
def test_only_a_query_with_nothing_else_is_plain(spoiled: str) -> None:
    query = presigned().raw_query
    found = read_plain_presign(query + spoiled)
    assert found == (None if spoiled else sigv4._read_presign(query))
