"""Conditional requests. Pure: headers and a version in, a verdict out.

Reads follow RFC 9110 section 13.2.2, which is also S3's order: If-Match beats If-Unmodified-Since, If-None-Match beats
If-Modified-Since. Dates are compared in whole seconds, as Last-Modified shows them; a date that cannot be read is
ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import lru_cache

from edgestore.errors import NotSupported, PreconditionFailed
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.names import HeaderNames
from edgestore.records import Condition, IfAbsent, IfMatch

COPY_PREFIX = "x-amz-copy-source-"


class Verdict(Enum):
    """What the conditions of a read say."""

    SERVE = 0
    NOT_MODIFIED = 1


def judge_read(headers: Mapping[str, str], etag: str, modified_ms: int, *, prefix: str = "") -> Verdict:
    """Whether to serve. Raises PreconditionFailed. With a prefix (copy sources) the caller turns NOT_MODIFIED into
    412.
    """
    match = headers.get(prefix + "if-match")
    if match is not None:
        if not etag_matches(match, etag):
            raise PreconditionFailed(condition=_named(prefix, "If-Match"))
    else:
        unmodified_ms = parse_date_ms(headers.get(prefix + "if-unmodified-since"))
        if unmodified_ms is not None and modified_ms // 1000 > unmodified_ms // 1000:
            raise PreconditionFailed(condition=_named(prefix, "If-Unmodified-Since"))
    none_match = headers.get(prefix + "if-none-match")
    if none_match is not None:
        return Verdict.NOT_MODIFIED if etag_matches(none_match, etag) else Verdict.SERVE
    since_ms = parse_date_ms(headers.get(prefix + "if-modified-since"))
    if since_ms is not None and modified_ms // 1000 <= since_ms // 1000:
        return Verdict.NOT_MODIFIED
    return Verdict.SERVE


def judge_copy_source(headers: Mapping[str, str], etag: str, modified_ms: int) -> None:
    """Raises PreconditionFailed unless the source of a copy is what `x-amz-copy-source-if-*` ask for."""
    if judge_read(headers, etag, modified_ms, prefix=COPY_PREFIX) is Verdict.NOT_MODIFIED:
        failed = "none-match" if COPY_PREFIX + "if-none-match" in headers else "modified-since"
        raise PreconditionFailed(condition=f"{COPY_PREFIX}if-{failed}")


def write_condition(headers: Mapping[str, str], names: HeaderNames) -> Condition:
    """What a PUT, copy or completion is bound to. A condition that cannot be kept is refused, never ignored."""
    if not names.is_conditional:
        return None
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if "if-modified-since" in headers or "if-unmodified-since" in headers:
        raise NotSupported(
            "Writes can be conditional by If-Match and If-None-Match only.", Header="If-Unmodified-Since"
        )
    if none_match is not None:
        if none_match.strip() != "*" or match is not None:
            raise NotSupported("A write takes If-None-Match: * alone.", Header="If-None-Match")
        return IfAbsent()
    return None if match is None else IfMatch(_single_etag(match))


def delete_condition(headers: Mapping[str, str]) -> Condition:
    """What a DELETE is bound to: If-Match, x-amz-if-match-size, x-amz-if-match-last-modified-time."""
    if "if-none-match" in headers or "if-modified-since" in headers or "if-unmodified-since" in headers:
        raise NotSupported("A delete can be conditional by If-Match only.", Header="If-None-Match")
    return named_condition(
        headers.get("if-match"), headers.get("x-amz-if-match-size"), headers.get("x-amz-if-match-last-modified-time")
    )


def named_condition(etag: str | None, size: str | None, modified: str | None) -> Condition:
    """The condition of one delete, from text; None where nothing is asked."""
    if etag is None and size is None and modified is None:
        return None
    if size is not None and not (size.isascii() and size.isdigit() and len(size) < 20):
        raise Fault("InvalidArgument", "The size to match is not a number.", ArgumentName="x-amz-if-match-size")
    modified_ms = parse_date_ms(modified)
    if modified is not None and modified_ms is None:
        raise Fault(
            "InvalidArgument", "The time to match is no date.", ArgumentName="x-amz-if-match-last-modified-time"
        )
    return IfMatch(
        "*" if etag is None else _single_etag(etag),
        size_bytes=None if size is None else int(size),
        modified_ms=modified_ms,
    )


def etag_matches(header: str, etag: str) -> bool:
    """Whether a list of ETags (quoted or bare, weak or not, or `*`) names this one."""
    if "," not in header:
        return _bare(header) in (etag, "*")
    return any(_bare(item) in (etag, "*") for item in header.split(","))


@lru_cache(maxsize=256)
def parse_date_ms(text: str | None) -> int | None:
    """Milliseconds since 1970 of an HTTP date (any of its three forms) or an ISO 8601 one; None for anything else."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text) if text[:4].isdigit() else parsedate_to_datetime(text)
        return int(moment.timestamp()) * 1000 if moment.tzinfo else _utc_ms(moment)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _utc_ms(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1)).total_seconds()) * 1000


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def _single_etag(header: str) -> str:
    if "," in header:
        raise NotSupported("A write takes one ETag.", Header="If-Match")
    return _bare(header)


def _named(prefix: str, condition: str) -> str:
    return prefix + condition.lower() if prefix else condition
