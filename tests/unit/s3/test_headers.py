"""System headers, metadata, overrides, and the headers that are refused by name."""

from __future__ import annotations

import pytest

from edgestore.errors import NotSupported
from edgestore.protocols.s3 import headers
from edgestore.protocols.s3.faults import Fault, code_of
from edgestore.protocols.s3.names import header_names
from edgestore.protocols.s3.unsupported import (
    BUCKET_SUBRESOURCES,
    OBJECT_SUBRESOURCES,
    refuse_unsupported_headers,
    refuse_unsupported_query,
)
from edgestore.records import Checksum, VersionKind, VersionRecord


def system_headers(given: dict[str, str]) -> dict[str, str]:
    return headers.system_headers(given, header_names(tuple(given)))


def user_metadata(given: dict[str, str]) -> dict[str, str]:
    return headers.user_metadata(given, header_names(tuple(given)))


def refuse_headers(given: dict[str, str]) -> None:
    refuse_unsupported_headers(given, header_names(tuple(given)))


def version(**fields: object) -> VersionRecord:
    given = {
        "kind": VersionKind.OBJECT, "size_bytes": 5, "etag": "e", "modified_ms": 1_764_000_000_000, "log_index": 7,
        "position": 0, "site_incarnation": 1, "is_null": True, "owner": 1, "storage_class": "STANDARD", "checksums": (),
        **fields,
    }  # fmt: skip
    return VersionRecord(**given)  # type: ignore[arg-type]


def shown(record: VersionRecord, **overridden: str) -> dict[str, str]:
    names = {name.replace("_", "-"): value for name, value in overridden.items()}
    return dict(headers.version_headers(record, version_id=None, checksums=True, overridden=names))


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("aws-chunked", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("gzip", "gzip"),
        ("AWS-Chunked", None),
    ],
)
def test_aws_chunked_is_framing_and_not_stored(given: str, stored: str | None) -> None:
    assert system_headers({"content-encoding": given}).get("Content-Encoding") == stored


def test_system_headers_and_metadata_come_back() -> None:
    given = {
        "content-type": "text/plain",
        "cache-control": "no-cache",
        "content-disposition": "attachment",
        "content-language": "de",
        "expires": "Thu, 01 Dec 2026 16:00:00 GMT",
        "content-encoding": "gzip",
        "x-amz-meta-camera": "7",
        "x-amz-date": "x",
        "host": "h",
    }
    record = version(headers=system_headers(given), metadata=user_metadata(given))
    answer = {name.lower(): value for name, value in shown(record).items()}
    for name, value in given.items():
        if name not in ("x-amz-date", "host"):
            assert answer[name] == value
    assert "x-amz-date" not in answer


def test_metadata_over_2_kb_is_refused() -> None:
    user_metadata({"x-amz-meta-a": "b" * 2047})
    with pytest.raises(Fault) as refused:
        user_metadata({"x-amz-meta-a": "b" * 2048})
    assert refused.value.code == "MetadataTooLarge"


def test_latin_1_metadata_is_returned_byte_for_byte_and_other_text_as_words() -> None:
    assert headers.safe_value("gr\xfc\xdfe") == "gr\xfc\xdfe"
    assert headers.safe_value("東京") == "=?UTF-8?B?5p2x5Lqs?="


def test_no_stored_value_can_carry_a_line_break_out() -> None:
    record = version(headers={"Content-Type": "a\r\nSet-Cookie: b"}, metadata={"x": "a\nb: c"})
    assert not any("\n" in value or "\r" in value for value in shown(record).values())


def test_response_overrides_with_line_breaks_are_refused() -> None:
    assert headers.overrides({"response-content-type": "text/html"}) == {"Content-Type": "text/html"}
    for value in ("a\r\nX: y", "a\nb", "a\x00"):
        with pytest.raises(Fault) as refused:
            headers.overrides({"response-content-disposition": value})
        assert refused.value.code == "InvalidArgument"


def test_response_overrides_replace_stored_headers() -> None:
    record = version(headers={"Content-Type": "text/plain"})
    assert shown(record, Content_Type="text/html", Cache_Control="no-store") | {} == shown(record) | {
        "Content-Type": "text/html",
        "Cache-Control": "no-store",
    }


def test_checksums_are_shown_only_when_asked_for() -> None:
    record = version(checksums=(Checksum("CRC32", b"\0\0\0\1"),))
    assert shown(record)["x-amz-checksum-crc32"] == "AAAAAQ=="
    without = headers.version_headers(record, version_id="v", checksums=False, overridden={})
    assert "x-amz-checksum-crc32" not in dict(without)
    assert dict(without)["x-amz-version-id"] == "v"


def test_null_version_id_is_shown_only_in_versioned_buckets() -> None:
    assert headers.shown_version_id(version(), versioned=False) is None
    assert headers.shown_version_id(version(), versioned=True) == "null"
    assert headers.shown_version_id(version(is_null=False), versioned=True) == "00000001000000000000000700000000"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "k"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-copy-source-server-side-encryption-customer-key", "k"),
        ("x-amz-tagging", "a=b"),
        ("x-amz-tagging-directive", "REPLACE"),
        ("x-amz-object-lock-mode", "GOVERNANCE"),
        ("x-amz-object-lock-retain-until-date", "2030-01-01"),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-bucket-object-lock-enabled", "true"),
        ("x-amz-website-redirect-location", "/x"),
        ("x-amz-grant-read", "id=1"),
        ("x-amz-grant-full-control", "id=1"),
        ("x-amz-acl", "public-read"),
        ("x-amz-acl", "authenticated-read"),
        ("x-amz-write-offset-bytes", "5"),
        ("x-amz-object-ownership", "ObjectWriter"),
    ],
)
def test_header_that_changes_meaning_is_never_ignored(name: str, value: str) -> None:
    with pytest.raises(NotSupported) as refused:
        refuse_headers({name: value})
    assert code_of(refused.value) == "NotImplemented"


def test_header_values_that_ask_for_nothing_are_taken() -> None:
    refuse_headers(
        {
            "x-amz-acl": "private",
            "x-amz-storage-class": "STANDARD",
            "x-amz-tagging-directive": "COPY",
            "x-amz-meta-acl": "public-read",
            "x-amz-date": "d",
        }
    )


@pytest.mark.parametrize("storage_class", ["GLACIER", "STANDARD_IA", "standard", ""])
def test_other_storage_classes_are_refused(storage_class: str) -> None:
    with pytest.raises(Fault) as refused:
        refuse_headers({"x-amz-storage-class": storage_class})
    assert refused.value.code == "InvalidStorageClass"


@pytest.mark.parametrize(
    ("level", "name"),
    [("bucket", name) for name in sorted(BUCKET_SUBRESOURCES)]
    + [("object", name) for name in sorted(OBJECT_SUBRESOURCES)],
)
def test_missing_sub_resource_is_not_implemented(level: str, name: str) -> None:
    with pytest.raises(NotSupported):
        refuse_unsupported_query(level, {name: ""})


def test_hoisted_encryption_parameter_is_refused() -> None:
    with pytest.raises(NotSupported):
        refuse_unsupported_query("object", {"X-Amz-Server-Side-Encryption": "AES256"})
