"""Paths, hosts, copy sources and queries become addresses, decoded once and then literal."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgestore.protocols.s3.addressing import (
    parse_query,
    require_bucket_name,
    resolve,
    resolve_copy_source,
)
from edgestore.protocols.s3.faults import Fault


@pytest.mark.parametrize(
    ("path", "bucket", "key"),
    [
        ("/", "", ""),
        ("/b", "b", ""),
        ("/b/", "b", ""),
        ("/b/k", "b", "k"),
        ("/b//k", "b", "/k"),
        ("/b/k/", "b", "k/"),
        ("/b/a%20b+c", "b", "a b+c"),
        ("/b/%C3%BC", "b", "ü"),
        ("/b/%2525", "b", "%25"),
        ("/b/a%3Fb%23c", "b", "a?b#c"),
    ],
)
def test_path_style_addresses(path: str, bucket: str, key: str) -> None:
    assert resolve(path, "localhost:9000", "") == (bucket, key)


@pytest.mark.parametrize("path", ["/A/../B/key", "/A/%2E%2E/B/key", "/A/..%2FB/key", "/A//../../B/key", "/A/./B"])
def test_dot_segments_stay_in_the_bucket_that_was_signed(path: str) -> None:
    address = resolve(path, "h", "")
    assert address.bucket == "A"
    assert address.key


def test_encoded_slash_is_decoded_once_and_never_again() -> None:
    assert resolve("/b/a%2Fb", "h", "").key == "a/b"
    assert resolve("/b/a%252Fb", "h", "").key == "a%2Fb"
    assert resolve("/b%2Fc/d", "h", "") == ("b/c", "d")


def test_copy_source_dot_segments_stay_in_the_bucket_they_name() -> None:
    assert resolve_copy_source("/A/../B/key")[0] == ("A", "../B/key")
    assert resolve_copy_source("A/%2E%2E/B/key")[0] == ("A", "../B/key")


@pytest.mark.parametrize(
    "value", ["", "/", "bucket", "/bucket", "/bucket/", "//key", "?versionId=1", "b/k?other=1", "b/k?versionId="]
)
def test_empty_or_null_copy_source_is_refused_and_never_crashes(value: str) -> None:
    with pytest.raises(Fault) as refused:
        resolve_copy_source(value)
    assert refused.value.code == "InvalidArgument"


def test_copy_source_takes_a_version_and_an_encoded_question_mark() -> None:
    assert resolve_copy_source("b/a%3Fb?versionId=null") == (("b", "a?b"), "null")


@pytest.mark.parametrize(
    "path", ["", "*", "b/k", "http://h/b/k", "/b/%", "/b/%zz", "/b/%f", "/b/%ff", "/b/%C3", "/b/ü"]
)
def test_targets_that_are_no_percent_encoded_path_are_refused(path: str) -> None:
    with pytest.raises(Fault) as refused:
        resolve(path, "h", "")
    assert refused.value.code == "InvalidURI"


def test_virtual_host_names_the_bucket_only_under_the_domain() -> None:
    assert resolve("/k", "b.s3.example.org", "s3.example.org") == ("b", "k")
    assert resolve("/", "B.s3.example.org:9000", "s3.example.org") == ("b", "")
    assert resolve("/k", "a.b.s3.example.org", "s3.example.org") == ("a.b", "k")
    assert resolve("/b/k", "s3.example.org", "s3.example.org") == ("b", "k")
    assert resolve("/b/k", "b.s3.example.org.evil.net", "s3.example.org") == ("b", "k")
    assert resolve("/b/k", "[::1]:9000", "s3.example.org") == ("b", "k")
    assert resolve("/b/k", "c.s3.example.org", "") == ("b", "k")


def test_key_of_more_than_1024_bytes_is_refused() -> None:
    assert resolve("/b/" + "k" * 1024, "h", "").key == "k" * 1024
    assert resolve("/b/" + "%C3%BC" * 512, "h", "").key == "ü" * 512
    for path in ("/b/" + "k" * 1025, "/b/" + "%C3%BC" * 513):
        with pytest.raises(Fault) as refused:
            resolve(path, "h", "")
        assert refused.value.code == "KeyTooLongError"


def test_query_given_twice_is_refused() -> None:
    with pytest.raises(Fault) as refused:
        parse_query("versionId=a&versionId=b")
    assert refused.value.code == "InvalidArgument"
    with pytest.raises(Fault):
        parse_query("acl&%61cl")


def test_query_is_decoded_once() -> None:
    assert parse_query("acl&prefix=a%2525+b&&marker=") == {"acl": "", "prefix": "a%25+b", "marker": ""}


@given(st.text(min_size=1, max_size=200).filter(lambda key: 0 < len(key.encode("utf-8", "replace")) <= 1024))
def test_every_key_survives_the_path(key: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in key):
        return
    assert resolve("/bucket/" + quote(key, safe="/"), "h", "") == ("bucket", key)


@pytest.mark.parametrize("name", ["abc", "a-b.c", "0ab", "a" * 63, "my.bucket-1"])
def test_valid_bucket_names(name: str) -> None:
    require_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "a" * 64,
        "Abc",
        "a_b",
        "-abc",
        "abc-",
        ".abc",
        "abc.",
        "a..b",
        "a.-b",
        "a-.b",
        "192.168.0.1",
        "xn--abc",
        "abc-s3alias",
        "a b",
        "a/b",
        "ünd",
        "-",
        "/-",
    ],
)
def test_invalid_bucket_names(name: str) -> None:
    with pytest.raises(Fault) as refused:
        require_bucket_name(name)
    assert refused.value.code == "InvalidBucketName"
