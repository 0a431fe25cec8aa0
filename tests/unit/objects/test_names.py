"""Names that S3 takes are taken, those that it refuses are refused."""

from __future__ import annotations

import pytest

from edgestore.errors import InvalidName, TooLarge
from edgestore.objects.names import check_bucket_name, check_key


@pytest.mark.parametrize("name", ["abc", "a.b-c.9", "a" * 63, "1bucket", "my-bucket", "192.168.0.1a", "999.1.1"])
def test_bucket_names_of_s3_are_taken(name: str) -> None:
    check_bucket_name(name)


SHORT_OR_LONG = ["", "ab", "a" * 64]
SIGNS = ["Bucket", "a_b", "a/b", "a b", "bücket", "bucket\n", "١٢٣"]
PLACES = ["-ab", "ab-", ".ab", "a..b", "a.-b", "a-.b"]
RESERVED = ["127.0.0.1", "xn--abc", "abc-s3alias", "abc--ol-s3"]


@pytest.mark.parametrize("name", [*SHORT_OR_LONG, *SIGNS, *PLACES, *RESERVED])
def test_other_bucket_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        check_bucket_name(name)


@pytest.mark.parametrize("key", ["a", "/", "..", "a//b", "%2F", "\x00", "k" * 1024, "ü" * 512, "\U0001f600" * 256])
def test_any_utf8_up_to_1024_bytes_is_a_key(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize("key", ["k" * 1025, "ü" * 513, "\U0001f600" * 257])
def test_a_key_is_measured_in_bytes(key: str) -> None:
    with pytest.raises(TooLarge):
        check_key(key)


@pytest.mark.parametrize("key", ["", "\ud800", "k" * 300 + "\udfff"])
def test_what_is_no_utf8_is_no_key(key: str) -> None:
    with pytest.raises(InvalidName):
        check_key(key)
