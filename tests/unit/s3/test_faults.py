"""Every error of the tree has an S3 code, a status and a well-formed document."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgestore import errors
from edgestore.protocols.s3 import faults
from edgestore.protocols.s3.faults import Fault, code_of, fault_headers, fault_xml, status_of
from tests.unit.s3.door import opened


def every_error() -> list[type[errors.EdgeStoreError]]:
    return [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EdgeStoreError)
    ]


def answer(error: errors.EdgeStoreError) -> dict[str, str]:
    root = ElementTree.fromstring(fault_xml(error, resource="/b/k&<\x85", request_id="R", host_id="H"))
    assert root.tag == "Error"
    return {child.tag: child.text or "" for child in root}


@pytest.mark.parametrize("kind", every_error())
def test_every_error_of_the_tree_has_a_code_a_status_and_a_document(kind: type[errors.EdgeStoreError]) -> None:
    fields = answer(kind())
    assert fields["Code"] in faults.CODES
    assert fields["Message"]
    assert (fields["RequestId"], fields["HostId"], fields["Resource"]) == ("R", "H", "/b/k&<\x85")


@pytest.mark.parametrize("code", sorted(faults.CODES))
def test_every_code_has_words_and_a_status(code: str) -> None:
    error = Fault(code)
    assert code_of(error) == code
    assert 300 < status_of(error) < 600
    assert answer(error)["Message"]


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.NoSuchKey(), "NoSuchKey", 404),
        (errors.NoSuchBucket(), "NoSuchBucket", 404),
        (errors.NoSuchUpload(), "NoSuchUpload", 404),
        (errors.NoSuchVersion(), "NoSuchVersion", 404),
        (errors.PreconditionFailed(), "PreconditionFailed", 412),
        (errors.BucketExists(owned=True), "BucketAlreadyOwnedByYou", 409),
        (errors.BucketExists(owned=False), "BucketAlreadyExists", 409),
        (errors.BucketNotEmpty(), "BucketNotEmpty", 409),
        (errors.DeleteMarkerMethod(), "MethodNotAllowed", 405),
        (errors.StorageFull(), "InsufficientStorage", 507),
        (errors.TooBusy(), "SlowDown", 503),
        (errors.Closing(), "ServiceUnavailable", 503),
        (errors.StaleChunk(), "ServiceUnavailable", 503),
        (errors.AlreadyApplied(), "ServiceUnavailable", 503),
        (errors.Corrupt(path="/data/secret"), "InternalError", 500),
        (errors.DiskFailed(), "InternalError", 500),
        (errors.InvalidRange(), "InvalidRange", 416),
        (errors.NotSupported(), "NotImplemented", 501),
        (errors.InvalidCredentials(reason="InvalidAccessKeyId"), "InvalidAccessKeyId", 403),
        (errors.InvalidCredentials(reason="RequestTimeTooSkewed"), "RequestTimeTooSkewed", 403),
        (errors.InvalidCredentials(reason="anything else"), "SignatureDoesNotMatch", 403),
        (errors.Denied(), "AccessDenied", 403),
        (errors.BadDigest(), "BadDigest", 400),
        (errors.IncompleteBody(), "IncompleteBody", 400),
        (errors.TooSmall(), "EntityTooSmall", 400),
        (errors.BadDigest(code="XAmzContentSHA256Mismatch"), "XAmzContentSHA256Mismatch", 400),
    ],
)
def test_error_tree_maps_to_s3(error: errors.EdgeStoreError, code: str, status: int) -> None:
    assert (code_of(error), status_of(error)) == (code, status)


def test_what_broke_inside_stays_inside() -> None:
    document = fault_xml(
        errors.Corrupt("page at /srv/data/x", path="/srv/data/x", key="k"), resource="/", request_id="R", host_id="H"
    )
    assert b"/srv/data" not in document
    assert b"<Key>" not in document


def test_fields_that_are_not_for_clients_are_not_shown() -> None:
    fields = answer(
        errors.InvalidCredentials(
            reason="SignatureDoesNotMatch", access_key="AK", secret="s", expected="sig", StringToSign="x"
        )
    )
    assert fields["AWSAccessKeyId"] == "AK"
    assert fields["StringToSign"] == "x"
    assert "s" not in fields.values()
    assert "sig" not in fields.values()


def test_error_headers() -> None:
    assert fault_headers(errors.TooBusy(retry_after_s=3), "SlowDown") == [("Retry-After", "3")]
    marker = errors.NoSuchKey(delete_marker_version="v1")
    assert fault_headers(marker, "NoSuchKey") == [("x-amz-delete-marker", "true"), ("x-amz-version-id", "v1")]
    assert fault_headers(errors.InvalidRange(ActualObjectSize=5), "InvalidRange") == [("Content-Range", "bytes */5")]


def test_error_documents_are_well_formed_whatever_the_key_holds() -> None:
    assert answer(errors.NoSuchKey(key="a\x00\x1f\ufffeb\n"))["Key"] == "a\ufffd\ufffd\ufffdb\n"


async def test_what_cannot_be_done_now_is_logged_in_one_line_and_a_fault_with_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as door:
        for error, is_traced in ((errors.Unavailable("no leader is known"), False), (errors.DiskFailed("gone"), True)):
            caplog.clear()

            async def refuse(*_: object, error: Exception = error, **__: object) -> None:
                raise error

            monkeypatch.setattr(door.core.objects, "create_bucket", refuse)
            assert (await door.send("PUT", "/other")).status >= 500
            (record,) = [record for record in caplog.records if "request_refused" in record.getMessage()]
            assert str(error) in record.getMessage()
            assert (record.exc_info is not None) is is_traced
