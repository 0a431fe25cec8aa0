"""Names of headers, sorted by what they are for."""

from __future__ import annotations

from edgestore.protocols.s3.names import HeaderNames, header_names


def test_names_are_sorted_by_what_they_are_for() -> None:
    headers = (
        "host", "content-type", "expires", "if-match", "x-amz-date", "x-amz-content-sha256", "x-amz-meta-", "x-amz-acl",
        "x-amz-meta-checksum", "x-amz-checksum-crc32", "x-amz-checksum-new", "x-amz-checksum-mode", "x-amz-trailer",
        "x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-sdk-checksum-algorithm", "x-amzn-trace",
    )  # fmt: skip
    assert header_names(headers) == HeaderNames(
        stored=(("content-type", "Content-Type"), ("expires", "Expires")),
        metadata=(("x-amz-meta-", ""), ("x-amz-meta-checksum", "checksum")),
        digests=("x-amz-checksum-crc32", "x-amz-checksum-new"),
        announces=True,
        is_conditional=True,
        others=("x-amz-acl",),
    )


def test_a_request_that_says_nothing_has_no_names() -> None:
    nothing = HeaderNames((), (), (), announces=False, is_conditional=False, others=())
    assert header_names(("host", "x-amz-date", "content-md5")) == nothing
    for name in ("x-amz-trailer", "x-amz-sdk-checksum-algorithm", "x-amz-checksum-sha1"):
        assert header_names((name,)).announces
