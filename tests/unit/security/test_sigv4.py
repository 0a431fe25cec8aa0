"""Signature Version 4: what botocore signs is accepted, what was changed later is not, each refusal has its code."""

from __future__ import annotations

import datetime

import pytest

from edgestore import errors
from edgestore.security import SignedRequest, sigv4
from tests.unit.security.signing import (
    ACCESS_KEY,
    HOST,
    NOW,
    NOW_MS,
    REGION,
    presigned,
    signed,
    verify,
    with_header,
)

DAY = datetime.timedelta(days=1)
TARGETS = (
    "/",
    "/bucket",
    "/bucket/key",
    "/bucket/a/../b",
    "/bucket//double",
    "/bucket/./dot",
    "/bucket/%2F",
    "/bucket/%252F",
    "/bucket/a%20b%2Bc",
    "/bucket/%E2%82%AC/%C3%BC",
    "/bucket/~tilde_under-dash.dot",
    "/bucket?list-type=2&prefix=a%2Fb&delimiter=%2F",
    "/bucket/key?uploads=",
    "/bucket/key?partNumber=1&uploadId=abc",
    "/bucket/key?response-content-disposition=attachment%3B%20filename%3D%22a.txt%22",
    "/bucket?b=2&a=1&a-b=3",
)
PAYLOADS = (
    "UNSIGNED-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
)


def code_of(error: errors.EdgeStoreError) -> str:
    """S3's code as the error carries it."""
    return str(error.fields.get("reason") or error.fields.get("code") or type(error).__name__)


def refusal(request: SignedRequest, *, now_ms: int = NOW_MS, region: str = REGION) -> str:
    """The code that a request is refused with."""
    with pytest.raises(errors.EdgeStoreError) as caught:
        verify(request, now_ms=now_ms, region=region)
    return code_of(caught.value)


# --- what is accepted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE", "POST"])
def test_header_signatures_of_botocore_hold(method: str, target: str) -> None:
    assert verify(signed(method, target)).access_key == ACCESS_KEY


@pytest.mark.parametrize("target", TARGETS)
def test_presigned_urls_of_botocore_hold(target: str) -> None:
    assert verify(presigned("GET", target)).payload == "UNSIGNED-PAYLOAD"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-meta-spaces": "  a   b  "},
        {"x-amz-meta-tab": "a\tb"},
        {"x-amz-meta-utf8": "\u00fcber \u20ac \u00e0"},
        {"x-amz-meta-ends-like-a-space": "voil\u00e0"},
        {"content-type": "text/plain; charset=utf-8", "x-amz-acl": "private"},
        {"x-amz-meta-empty": ""},
    ],
)
def test_header_values_are_canonical_as_botocore_has_them(headers: dict[str, str]) -> None:
    verify(signed("PUT", "/bucket/key", headers))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_every_kind_of_payload_needs_the_signature_of_the_request(payload: str) -> None:
    """CVE-2025-31489, CVE-2026-40344: an unsigned payload is not an unsigned request."""
    request = signed("PUT", "/bucket/key", payload=payload)
    assert verify(request).payload == payload
    assert verify(request).is_chunked is payload.startswith("STREAMING")
    changed = with_header(request, "authorization", request.headers["authorization"][:-4] + "0000")
    assert refusal(changed) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_credentials_in_the_query_take_the_same_path(payload: str) -> None:
    """CVE-2026-41145: the check must not hang on the Authorization header."""
    request = presigned("PUT", "/bucket/key", {"x-amz-content-sha256": payload})
    forged = request._replace(raw_query=request.raw_query[:-4] + "0000")
    assert refusal(forged) == "SignatureDoesNotMatch"


def test_signed_digest_of_the_body_is_handed_on() -> None:
    verified = verify(signed("PUT", body=b"content"))
    assert verified.payload_sha256 is not None
    assert verified.payload_sha256.hex() == verified.payload
    assert verify(presigned()).payload_sha256 is None


def test_date_header_stands_in_for_x_amz_date() -> None:
    request = signed("GET", headers={"date": "Tue, 24 Nov 2026 09:15:00 GMT"})
    assert "x-amz-date" not in request.headers
    assert verify(request).timestamp == "20261124T091500Z"
    assert refusal(with_header(request, "date", "Tue, 24 Nov 2026 09:15:01 GMT")) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    "form",
    [
        "{a} Credential={c},SignedHeaders={h},Signature={s}",
        "{a} Credential={c}, SignedHeaders={h}, Signature={s}",
        "{a}  Signature={s},  Credential={c} , SignedHeaders={h}",
    ],
)
def test_fields_of_authorization_may_be_spaced_and_ordered_freely(form: str) -> None:
    request = signed()
    algorithm, _, rest = request.headers["authorization"].partition(" ")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    text = form.format(a=algorithm, c=fields["Credential"], h=fields["SignedHeaders"], s=fields["Signature"])
    verify(with_header(request, "authorization", text))


@pytest.mark.parametrize(
    ("was_signed", "arrives"),
    [
        ("/bucket/a/../b", "/bucket/b"),
        ("/bucket/b", "/bucket/a/../b"),
        ("/bucket//k", "/bucket/k"),
        ("/bucket/%2F", "/bucket//"),
        ("/bucket/a%2Fb", "/bucket/a/b"),
        ("/bucket/%252F", "/bucket/%2F"),
        ("/bucket/k", "/other/k"),
        ("/bucket/k?a=1", "/bucket/k?a=2"),
        ("/bucket/k?a=1", "/bucket/k?a=1&b=2"),
        ("/bucket/k?a=1&b=2", "/bucket/k?a=1"),
        ("/bucket/k", "/bucket/k?acl="),
        ("/bucket/k?a=b%3Dc", "/bucket/k?a%3Db=c"),
        ("/bucket/k?a=%2B", "/bucket/k?a=%20"),
    ],
)
def test_raw_path_and_query_are_what_was_signed_without_cleaning(was_signed: str, arrives: str) -> None:
    """CVE-2026-54917, CVE-2026-42882: what is authorised is what is read."""
    path, _, query = arrives.partition("?")
    assert refusal(signed("GET", was_signed)._replace(raw_path=path, raw_query=query)) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("was_signed", "arrives"),
    [
        ("/bucket/a%2Bb", "/bucket/a+b"),
        ("/bucket/a%2Fb", "/bucket/a%2fb"),
        ("/bucket/a~b", "/bucket/a%7Eb"),
        ("/bucket/k?p=a%2Bb", "/bucket/k?p=a+b"),
        ("/bucket/k?acl=", "/bucket/k?acl"),
        ("/bucket/k?p=%E2%82%AC", "/bucket/k?p=%e2%82%ac"),
        ("/bucket/k?p=b%3Dc", "/bucket/k?p=b=c"),
    ],
)
def test_another_spelling_of_the_same_bytes_is_encoded_again(was_signed: str, arrives: str) -> None:
    path, _, query = arrives.partition("?")
    verify(signed("GET", was_signed)._replace(raw_path=path, raw_query=query))


@pytest.mark.parametrize(
    "name", ["x-amz-copy-source", "x-amz-acl", "x-amz-meta-added", "x-amz-content-sha256", "x-amz-tagging"]
)
def test_presigned_put_refuses_amz_headers_that_were_not_signed(name: str) -> None:
    """CVE-2026-97731, CVE-2026-115374: anybody who holds the URL could add them."""
    value = "UNSIGNED-PAYLOAD" if name == "x-amz-content-sha256" else "/other/secret"
    assert refusal(with_header(presigned("PUT"), name, value)) == "AccessDenied"


def test_header_form_refuses_amz_headers_that_were_not_signed() -> None:
    assert refusal(with_header(signed("PUT"), "x-amz-copy-source", "/other/secret")) == "AccessDenied"


def test_host_must_be_signed() -> None:
    request = signed()
    text = request.headers["authorization"].replace("SignedHeaders=host;", "SignedHeaders=")
    assert refusal(with_header(request, "authorization", text)) == "Denied"


def test_signed_header_that_is_missing_or_changed_is_refused() -> None:
    request = signed("PUT", headers={"x-amz-meta-a": "1"})
    assert refusal(with_header(request, "x-amz-meta-a", None)) == "SignatureDoesNotMatch"
    assert refusal(with_header(request, "x-amz-meta-a", "2")) == "SignatureDoesNotMatch"
    assert refusal(with_header(request, "host", "elsewhere.example")) == "SignatureDoesNotMatch"


def test_a_header_signed_twice_is_refused() -> None:
    request = signed()
    text = request.headers["authorization"].replace("SignedHeaders=host", "SignedHeaders=host;host")
    assert refusal(with_header(request, "authorization", text)) == "Denied"


def test_another_method_is_refused() -> None:
    assert refusal(presigned("GET")._replace(method="DELETE")) == "SignatureDoesNotMatch"


# --- who, where, when -------------------------------------------------------------------------------------


def test_unknown_access_key_has_its_code() -> None:
    assert refusal(signed(credentials=("AKUNKNOWN", "x"))) == "InvalidAccessKeyId"


def test_known_access_key_without_its_secret_is_refused() -> None:
    """CVE-2020-11012."""
    assert refusal(signed(credentials=(ACCESS_KEY, "wrong"))) == "SignatureDoesNotMatch"


def test_other_region_and_service_are_refused() -> None:
    assert refusal(signed(region="eu-west-1")) == "AuthorizationHeaderMalformed"
    assert refusal(presigned(region="eu-west-1")) == "AuthorizationQueryParametersError"
    assert refusal(signed(service="iam")) == "AuthorizationHeaderMalformed"


def test_scope_of_another_day_is_refused() -> None:
    request = signed()
    text = request.headers["authorization"].replace("/20261124/", "/20261123/")
    assert refusal(with_header(request, "authorization", text)) == "AuthorizationHeaderMalformed"


@pytest.mark.parametrize(("skew_s", "holds"), [(0, True), (899, True), (-899, True), (901, False), (-901, False)])
def test_clock_skew_of_fifteen_minutes_is_borne(skew_s: int, holds: bool) -> None:
    if holds:
        verify(signed(), now_ms=NOW_MS + skew_s * 1000)
    else:
        assert refusal(signed(), now_ms=NOW_MS + skew_s * 1000) == "RequestTimeTooSkewed"


def test_request_without_a_date_is_refused() -> None:
    """CVE-2015-8466: without a date it could be replayed for ever."""
    assert refusal(with_header(signed(), "x-amz-date", None)) == "Denied"
    query = presigned().raw_query.replace("X-Amz-Date=20261124T091500Z&", "")
    assert refusal(presigned()._replace(raw_query=query)) == "AuthorizationQueryParametersError"


@pytest.mark.parametrize("date", ["20261324T000000Z", "20261124T250000Z", "", "now", "20261124T091500", "2026-11-24"])
def test_date_that_is_none_is_refused(date: str) -> None:
    assert refusal(with_header(signed(), "x-amz-date", date)) == "Denied"


@pytest.mark.parametrize("expires_s", [0, -1, 604_801, 10**9, 10**12])
def test_presign_over_a_week_or_under_a_second_is_refused(expires_s: int) -> None:
    assert refusal(presigned(expires_s=expires_s)) == "AuthorizationQueryParametersError"


@pytest.mark.parametrize("text", ["", "abc", "1.5", "+60", "\u0666", "0x10", "1e3"])
def test_presign_expiry_must_be_plain_digits(text: str) -> None:
    request = presigned()
    changed = request.raw_query.replace("X-Amz-Expires=3600", f"X-Amz-Expires={text}")
    assert refusal(request._replace(raw_query=changed)) == "AuthorizationQueryParametersError"


def test_presign_holds_until_its_second_and_not_longer() -> None:
    request = presigned(expires_s=604_800)
    verify(request, now_ms=NOW_MS + 604_800_000)
    assert refusal(request, now_ms=NOW_MS + 604_800_001) == "Denied"
    verify(request, now_ms=NOW_MS - 899_000)
    assert refusal(request, now_ms=NOW_MS - 901_000) == "Denied"


def test_presign_of_yesterday_keeps_its_own_day_in_the_scope() -> None:
    verify(presigned(moment=NOW - DAY, expires_s=2 * 86_400))


@pytest.mark.parametrize("name", [*sigv4.PRESIGN_NAMES, "X-Amz-Signature"])
def test_presign_without_a_parameter_is_refused(name: str) -> None:
    request = presigned()
    kept = "&".join(part for part in request.raw_query.split("&") if not part.startswith(name + "="))
    assert refusal(request._replace(raw_query=kept)) == "AuthorizationQueryParametersError"


@pytest.mark.parametrize("part", ["X-Amz-Signature=00", "X-Amz-Expires=604800", "X-Amz-D%61te=x", "versionId=2"])
def test_presign_with_a_parameter_twice_is_refused(part: str) -> None:
    request = presigned("GET", "/bucket/key?versionId=1")
    assert refusal(request._replace(raw_query=f"{request.raw_query}&{part}")) == "InvalidArgument"
    assert refusal(request._replace(raw_query=f"{part}&{request.raw_query}")) == "InvalidArgument"


def test_two_ways_of_signing_at_once_are_refused() -> None:
    request = presigned()
    both = with_header(request, "authorization", signed().headers["authorization"])
    assert refusal(both) == "InvalidArgument"


@pytest.mark.parametrize(
    "payload", ["", "e3b0", "E" * 64, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "STREAMING-OTHER", "unsigned-payload"]
)
def test_unknown_payload_is_refused(payload: str) -> None:
    request = with_header(signed(), "x-amz-content-sha256", payload)
    assert refusal(request) == "InvalidArgument"


def test_header_form_needs_the_payload_header() -> None:
    assert refusal(with_header(signed(), "x-amz-content-sha256", None)) == "InvalidRequest"


@pytest.mark.parametrize("text", ["AWS AKID:signature", "Basic abc", "Bearer x", "aws4-hmac-sha256 x"])
def test_other_algorithms_are_refused(text: str) -> None:
    assert refusal(with_header(signed(), "authorization", text)) == "InvalidRequest"


def test_caches_stay_bounded() -> None:
    request = signed()
    for second in range(2 * 1024):
        moment = f"20261124T{second // 3600:02}{second // 60 % 60:02}{second % 60:02}Z"
        with pytest.raises(errors.EdgeStoreError):
            verify(with_header(request, "x-amz-date", moment))
    assert len(sigv4._times) <= sigv4._CACHED_MAX


def test_what_a_pre_signed_request_taught_does_not_judge_a_header() -> None:
    """Only a pre-signed credential is decoded: an escaped one in a header is malformed before and after."""
    genuine = presigned()
    credential = "AKIDEXAMPLE0000000001%2F20261124%2Fus-east-1%2Fs3%2Faws4_request"
    assert credential in genuine.raw_query
    authorization = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature={'0' * 64}"
    header = SignedRequest(
        "GET",
        "/bucket/key",
        "",
        {
            "host": HOST,
            "authorization": authorization,
            "x-amz-date": "20261124T091500Z",
            "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        },
    )
    for _ in range(2):
        with pytest.raises(errors.InvalidCredentials) as refused:
            verify(header)
        assert refused.value.fields["reason"] == "AuthorizationHeaderMalformed"
        verify(genuine)
