"""Holes that other stores had, each as a request that must be refused here."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Any

import pytest

from tests.faults.process import ACCESS_KEY, NodeProcess
from tests.wire.raw import call, presigned, send, signed_headers, tampered

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    b"]><%s><Object><Key>&b;</Key></Object></%s>"
)
XXE = b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><%s><Object><Key>&x;</Key></Object></%s>'


# A dot needs no escape: the canonical form that S3 signs has none, so a signature over one does not match.
ESCAPED_DOT = (403, "SignatureDoesNotMatch")


@pytest.fixture
def stored(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="k", Body=b"content")
    return bucket


def test_unsigned_trailer_upload_with_a_wrong_signature_is_refused(node: NodeProcess, s3: Any, bucket: str) -> None:
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    headers = signed_headers(
        node.endpoint,
        "PUT",
        f"/{bucket}/k",
        {
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "x-amz-trailer": "x-amz-checksum-crc32",
            "x-amz-decoded-content-length": "5",
            "content-encoding": "aws-chunked",
        },
    )
    assert send(node.endpoint, "PUT", f"/{bucket}/k", headers, body).status == 200
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hello"
    headers["Authorization"] = tampered(headers["Authorization"])
    assert send(node.endpoint, "PUT", f"/{bucket}/l", headers, body).code == "SignatureDoesNotMatch"
    del headers["Authorization"]
    assert send(node.endpoint, "PUT", f"/{bucket}/l", headers, body).code == "AccessDenied"
    assert len(s3.list_objects_v2(Bucket=bucket)["Contents"]) == 1


@pytest.mark.parametrize("trailer", [b"x-amz-checksum-crc32:AAAAAA==", b"", b"x-amz-checksum-sha1:AAAA"])
def test_trailer_that_does_not_match_stores_nothing(node: NodeProcess, s3: Any, bucket: str, trailer: bytes) -> None:
    body = b"5\r\nhello\r\n0\r\n" + trailer + (b"\r\n" if trailer else b"") + b"\r\n"
    for size in (len(body), None):
        headers = {
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "x-amz-trailer": "x-amz-checksum-crc32",
            "x-amz-decoded-content-length": "5",
            "content-encoding": "aws-chunked",
            **({} if size is None else {"x-amz-meta-size": str(size)}),
        }
        signed = signed_headers(node.endpoint, "PUT", f"/{bucket}/k", headers)
        assert send(node.endpoint, "PUT", f"/{bucket}/k", signed, body).status == 400
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_credentials_in_the_query_are_checked_as_in_the_header(node: NodeProcess, stored: str) -> None:
    good = presigned(node.endpoint, "GET", f"/{stored}/k")
    host = {"Host": node.endpoint.removeprefix("http://")}
    assert send(node.endpoint, "GET", good, host).body == b"content"
    assert send(node.endpoint, "GET", tampered(good), host).code == "SignatureDoesNotMatch"
    only_key = f"/{stored}/k?X-Amz-Credential={ACCESS_KEY}%2F20260101%2Fus-east-1%2Fs3%2Faws4_request"
    assert send(node.endpoint, "GET", only_key, host).status in (400, 403)


@pytest.mark.parametrize("name", ["x-amz-copy-source", "x-amz-meta-added", "x-amz-acl"])
def test_amz_header_outside_the_signature_is_refused(node: NodeProcess, s3: Any, stored: str, name: str) -> None:
    value = {"x-amz-copy-source": f"/{stored}/k", "x-amz-acl": "private"}.get(name, "1")
    host = {"Host": node.endpoint.removeprefix("http://")}
    target = presigned(node.endpoint, "PUT", f"/{stored}/new")
    assert send(node.endpoint, "PUT", target, {**host, name: value}).code == "AccessDenied"
    headers = signed_headers(node.endpoint, "PUT", f"/{stored}/new")
    assert send(node.endpoint, "PUT", f"/{stored}/new", {**headers, name: value}).code == "AccessDenied"
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=stored)["Contents"]] == ["k"]


def test_known_access_key_without_its_secret_opens_nothing(node: NodeProcess, stored: str) -> None:
    for target in ("/", f"/{stored}", f"/{stored}/k"):
        answer = call(node.endpoint, "GET", target, credentials=(ACCESS_KEY, "not the secret"))
        assert answer.code == "SignatureDoesNotMatch"


def test_request_without_a_date_is_refused(node: NodeProcess, stored: str) -> None:
    headers = signed_headers(node.endpoint, "GET", f"/{stored}/k")
    del headers["X-Amz-Date"]
    assert send(node.endpoint, "GET", f"/{stored}/k", headers).status in (400, 403)


@pytest.mark.parametrize(
    "key", ["../../../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd", "/etc/passwd", "..%2F..%2Fetc%2Fpasswd"]
)
def test_path_games_read_no_file_and_show_none(node: NodeProcess, stored: str, key: str) -> None:
    answer = call(node.endpoint, "GET", f"/{stored}/{key}")
    assert (answer.status, answer.code) in ((404, "NoSuchKey"), ESCAPED_DOT)
    assert b"root:" not in answer.body


def test_dot_segments_do_not_lead_into_another_bucket(node: NodeProcess, s3: Any, stored: str) -> None:
    other = stored + "-other"
    s3.create_bucket(Bucket=other)
    for target in (f"/{other}/../{stored}/k", f"/{other}/%2E%2E/{stored}/k", f"/{other}/..%2F{stored}%2Fk"):
        answer = call(node.endpoint, "GET", target)
        assert (answer.status, answer.code) in ((404, "NoSuchKey"), ESCAPED_DOT), target
    for source in (f"/{other}/../{stored}/k", f"{other}/%2E%2E/{stored}/k"):
        answer = call(node.endpoint, "PUT", f"/{other}/copy", {"x-amz-copy-source": source})
        assert answer.code == "NoSuchKey", source


@pytest.mark.parametrize("source", ["", "/", "?", "/b", "//", "%00", "%", "b/k?versionId=", "a" * 3000])
def test_broken_copy_source_is_refused_and_never_a_put(node: NodeProcess, s3: Any, bucket: str, source: str) -> None:
    answer = call(node.endpoint, "PUT", f"/{bucket}/k", {"x-amz-copy-source": source})
    assert 400 <= answer.status < 500
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize(
    ("method", "target", "root"),
    [
        ("POST", "/{bucket}?delete=", b"Delete"),
        ("PUT", "/{bucket}?versioning=", b"VersioningConfiguration"),
        ("PUT", "/{bucket}-new", b"CreateBucketConfiguration"),
        ("POST", "/{bucket}/k?uploadId=" + "0" * 32, b"CompleteMultipartUpload"),
    ],
)
@pytest.mark.parametrize(
    "document", [BOMB, XXE, b"<%s>", b"\xff<%s/>", b"%s"], ids=["bomb", "xxe", "open", "bytes", "text"]
)
def test_hostile_documents_are_malformed(
    node: NodeProcess, bucket: str, method: str, target: str, root: bytes, document: bytes
) -> None:
    body = document.replace(b"%s", root)
    headers = {"content-md5": b64encode(hashlib.md5(body).digest()).decode()}
    answer = call(node.endpoint, method, target.replace("{bucket}", bucket), headers, body)
    assert (answer.status, answer.code) == (400, "MalformedXML")
    assert b"root:" not in answer.body


def test_document_over_the_limit_is_refused(node: NodeProcess, bucket: str) -> None:
    body = b"<Delete>" + b" " * (3 << 20) + b"</Delete>"
    headers = {"content-md5": b64encode(hashlib.md5(body).digest()).decode()}
    answer = call(node.endpoint, "POST", f"/{bucket}?delete=", headers, body)
    assert (answer.status, answer.code) == (400, "MaxMessageLengthExceeded")


def test_unicode_digits_in_range_are_ignored(node: NodeProcess, stored: str) -> None:
    headers = signed_headers(node.endpoint, "GET", f"/{stored}/k")
    headers["Range"] = "bytes=\u0661-\u0662".encode().decode("latin-1")
    answer = send(node.endpoint, "GET", f"/{stored}/k", headers)
    assert (answer.status, answer.body) == (200, b"content")


def test_what_is_signed_is_what_is_read(node: NodeProcess, s3: Any, bucket: str) -> None:
    for key in ("a/b", "a%2Fb", "a%252Fb"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for target, key in (("a/b", "a/b"), ("a%2Fb", "a/b"), ("a%252Fb", "a%2Fb"), ("a%25252Fb", "a%252Fb")):
        assert call(node.endpoint, "GET", f"/{bucket}/{target}").body == key.encode()


def test_query_parameter_given_twice_is_refused(node: NodeProcess, stored: str) -> None:
    assert call(node.endpoint, "GET", f"/{stored}/k?versionId=null&versionId=null").status == 400


def test_line_breaks_in_response_overrides_are_refused(node: NodeProcess, stored: str) -> None:
    answer = call(node.endpoint, "GET", f"/{stored}/k?response-content-type=a%0D%0ASet-Cookie%3A%20b")
    assert answer.status == 400
    assert "set-cookie" not in answer.headers


def test_every_answer_has_a_request_id(node: NodeProcess, stored: str) -> None:
    answers = [call(node.endpoint, "GET", f"/{stored}/{key}") for key in ("k", "missing", "k")]
    answers.append(send(node.endpoint, "GET", f"/{stored}/k", {"Host": "h"}))
    ids = [answer.headers["x-amz-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert ids[1].encode() in answers[1].body


def test_forms_and_preflights_are_not_implemented_yet(node: NodeProcess, bucket: str) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\nk\r\n--x--\r\n'
    headers = {"Host": "h", "Content-Type": "multipart/form-data; boundary=x"}
    assert send(node.endpoint, "POST", f"/{bucket}", headers, form).code == "NotImplemented"
    preflight = {"Host": "h", "Origin": "http://x", "Access-Control-Request-Method": "PUT"}
    assert send(node.endpoint, "OPTIONS", f"/{bucket}/k", preflight).code == "NotImplemented"


def test_metadata_of_any_bytes_comes_back_in_both_lanes(node: NodeProcess, bucket: str) -> None:
    for body in (b"small", b"x" * 300_000):
        for text in ("gr\u00fc\u00dfe", "\u6771\u4eac"):
            wire = text.encode().decode("latin-1")
            headers = signed_headers(node.endpoint, "PUT", f"/{bucket}/k", {"x-amz-meta-name": text}, body)
            headers["x-amz-meta-name"] = wire
            assert send(node.endpoint, "PUT", f"/{bucket}/k", headers, body).status == 200
            for target in (f"/{bucket}/k", f"/{bucket}/k?versionId=null"):
                assert call(node.endpoint, "GET", target).headers["x-amz-meta-name"] == wire
                assert (
                    call(node.endpoint, "GET", target, {"if-none-match": '"a", "b"'}).headers["x-amz-meta-name"] == wire
                )


def test_upload_without_a_length_is_refused(node: NodeProcess, s3: Any, bucket: str) -> None:
    headers = signed_headers(node.endpoint, "PUT", f"/{bucket}/k", {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    answer = send(
        node.endpoint, "PUT", f"/{bucket}/k", {**headers, "Transfer-Encoding": "chunked"}, b"1\r\nx\r\n0\r\n\r\n"
    )
    assert (answer.status, answer.code) == (411, "MissingContentLength")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
