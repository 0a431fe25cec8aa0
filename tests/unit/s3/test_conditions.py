"""Conditional requests: the order of RFC 9110 as a table."""

from __future__ import annotations

import pytest

from edgestore.errors import NotSupported, PreconditionFailed
from edgestore.protocols.s3 import conditions
from edgestore.protocols.s3.conditions import (
    Verdict,
    delete_condition,
    etag_matches,
    judge_copy_source,
    judge_read,
    named_condition,
    parse_date_ms,
)
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.names import header_names
from edgestore.protocols.s3.xml import http_time
from edgestore.records import Condition, IfAbsent, IfMatch

MODIFIED_MS = 1_764_000_000_700
BEFORE, SAME, AFTER = (http_time(MODIFIED_MS + seconds * 1000) for seconds in (-60, 0, 60))
MATCH, OTHER = '"etag"', '"other"'
SERVE, NOT_MODIFIED, FAILED = Verdict.SERVE, Verdict.NOT_MODIFIED, None


# If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since -> verdict (RFC 9110 section 13.2.2).
ORDER = [
    (None, None, None, None, SERVE),
    (MATCH, None, None, None, SERVE),
    ("*", None, None, None, SERVE),
    (OTHER, None, None, None, FAILED),
    (None, SAME, None, None, SERVE),
    (None, AFTER, None, None, SERVE),
    (None, BEFORE, None, None, FAILED),
    (MATCH, BEFORE, None, None, SERVE),
    (OTHER, AFTER, None, None, FAILED),
    (None, None, MATCH, None, NOT_MODIFIED),
    (None, None, "*", None, NOT_MODIFIED),
    (None, None, OTHER, None, SERVE),
    (None, None, None, SAME, NOT_MODIFIED),
    (None, None, None, AFTER, NOT_MODIFIED),
    (None, None, None, BEFORE, SERVE),
    (None, None, OTHER, AFTER, SERVE),
    (None, None, MATCH, BEFORE, NOT_MODIFIED),
    (MATCH, None, MATCH, None, NOT_MODIFIED),
    (OTHER, None, MATCH, None, FAILED),
    (None, "yesterday", None, "tomorrow", SERVE),
]


@pytest.mark.parametrize(("match", "unmodified", "none_match", "modified", "expected"), ORDER)
def test_read_conditions_follow_the_order_of_rfc_9110(
    match: str | None, unmodified: str | None, none_match: str | None, modified: str | None, expected: Verdict | None
) -> None:
    given = {
        "if-match": match,
        "if-unmodified-since": unmodified,
        "if-none-match": none_match,
        "if-modified-since": modified,
    }
    headers = {name: value for name, value in given.items() if value is not None}
    if expected is None:
        with pytest.raises(PreconditionFailed):
            judge_read(headers, "etag", MODIFIED_MS)
    else:
        assert judge_read(headers, "etag", MODIFIED_MS) is expected
    copied = {"x-amz-copy-source-" + name: value for name, value in headers.items()}
    if expected is SERVE:
        judge_copy_source(copied, "etag", MODIFIED_MS)
    else:
        with pytest.raises(PreconditionFailed):
            judge_copy_source(copied, "etag", MODIFIED_MS)


@pytest.mark.parametrize("header", ['"etag"', "etag", 'W/"etag"', "*", '"other", "etag"', ' "etag" '])
def test_etags_match_quoted_bare_weak_and_in_lists(header: str) -> None:
    assert etag_matches(header, "etag")


def test_all_date_forms_are_the_same_moment() -> None:
    for text in (
        "Mon, 24 Nov 2025 16:00:00 GMT",
        "Monday, 24-Nov-25 16:00:00 GMT",
        "Mon Nov 24 16:00:00 2025",
        "2025-11-24T16:00:00Z",
        "2025-11-24T17:00:00+01:00",
    ):
        assert parse_date_ms(text) == 1_764_000_000_000, text
    for text in ("", "never", "99999999999999", "2025-13-41T00:00:00Z", None):
        assert parse_date_ms(text) is None


def write_condition(headers: dict[str, str]) -> Condition:
    return conditions.write_condition(headers, header_names(tuple(headers)))


def test_write_conditions() -> None:
    assert write_condition({}) is None
    assert write_condition({"if-none-match": "*"}) == IfAbsent()
    assert write_condition({"if-match": '"abc"'}) == IfMatch("abc")
    assert write_condition({"if-match": "*"}) == IfMatch("*")


@pytest.mark.parametrize(
    "headers",
    [
        {"if-none-match": '"abc"'},
        {"if-none-match": "*", "if-match": "*"},
        {"if-match": '"a", "b"'},
        {"if-modified-since": AFTER},
        {"if-unmodified-since": AFTER},
    ],
)
def test_write_conditions_that_cannot_be_kept_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(NotSupported):
        write_condition(headers)


def test_delete_conditions() -> None:
    assert delete_condition({}) is None
    assert delete_condition({"if-match": '"abc"'}) == IfMatch("abc")
    assert delete_condition({"x-amz-if-match-size": "12"}) == IfMatch("*", size_bytes=12)
    assert named_condition(None, None, SAME) == IfMatch("*", modified_ms=1_764_000_000_000)
    with pytest.raises(NotSupported):
        delete_condition({"if-none-match": "*"})
    for size in ("-1", "+1", "x", "٣", "9" * 30):
        with pytest.raises(Fault):
            delete_condition({"x-amz-if-match-size": size})
    with pytest.raises(Fault):
        delete_condition({"x-amz-if-match-last-modified-time": "soon"})
