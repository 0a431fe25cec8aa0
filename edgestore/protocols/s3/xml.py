"""XML in and out. In: defusedxml, no DTD, no entities, bounded. Out: text joined from f-strings, escaped here.

Rule: whatever a key holds, the document stays well formed where XML 1.0 allows it; control characters become numeric
references as in S3 (readers that refuse those ask for `encoding-type=url`).
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from edgestore.errors import BadRequest

XML_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
XML_TYPE = "application/xml"
DEPTH_MAX = 8

_UNSAFE = re.compile("[&<>\"'\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_URL_UNSAFE = re.compile(r"[^A-Za-z0-9._~/-]")
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
_EPOCH = datetime(1970, 1, 1)


class MalformedXML(BadRequest):
    """The document is not well formed, too deep, declares a DTD or entities, or is not what the operation takes."""

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message
            or "The XML that you provided was not well formed or did not validate against our published schema.",
            code="MalformedXML",
        )


def parse(data: bytes, root: str) -> Element:
    """The document's root element, which must be called `root`. Raises MalformedXML."""
    try:
        element: Element = fromstring(data, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise MalformedXML from error
    if local_name(element) != root:
        raise MalformedXML(f"The document must be a {root}.")
    _require_depth(element)
    return element


def local_name(element: Element) -> str:
    """The name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def children(element: Element, name: str) -> list[Element]:
    """The direct children of that name."""
    return [child for child in element if local_name(child) == name]


def text(element: Element, name: str) -> str | None:
    """The text of the one child of that name; None where there is none. Raises MalformedXML for several."""
    found = children(element, name)
    if len(found) > 1:
        raise MalformedXML(f"{name} is given more than once.")
    return (found[0].text or "").strip() if found else None


def key_text(element: Element) -> str:
    """The text of `Key`, spaces and all: a key may begin or end with them."""
    found = children(element, "Key")
    if len(found) != 1 or not found[0].text:
        raise MalformedXML("Each object needs one Key.")
    return found[0].text


def require_names(element: Element, *names: str) -> None:
    """Raises MalformedXML when a child is none of these: an element that is not understood is never ignored."""
    for child in element:
        if local_name(child) not in names:
            raise MalformedXML(f"{local_name(child)} is not known here.")


def escape(value: str) -> str:
    """Text for an element."""
    return _UNSAFE.sub(_reference, value) if _UNSAFE.search(value) else value


def escape_strictly(value: str) -> str:
    """Text for an element of an error: what XML 1.0 does not allow becomes U+FFFD, so that every reader can read it."""
    return escape(_FORBIDDEN.sub("\ufffd", value))


def url_encode(value: str) -> str:
    """Text for an element under `encoding-type=url`; slashes stay. What comes out needs no escaping."""
    return quote(value, safe="/", errors="surrogatepass") if _URL_UNSAFE.search(value) else value


def iso_time(moment_ms: int) -> str:
    """`2026-11-24T10:00:00.000Z`. Whole seconds, so that listings and Last-Modified agree."""
    return _iso_second(moment_ms // 1000)


def http_time(moment_ms: int) -> str:
    """`Tue, 24 Nov 2026 10:00:00 GMT`."""
    return _http_second(moment_ms // 1000)


def document(name: str, *parts: str) -> bytes:
    """A whole document in S3's namespace."""
    return f'{XML_HEAD}<{name} xmlns="{NAMESPACE}">{"".join(parts)}</{name}>'.encode()


def element(name: str, value: object) -> str:
    """One element with escaped text; nothing for None. Booleans are written as S3 does."""
    if value is None:
        return ""
    if isinstance(value, bool):
        value = "true" if value else "false"
    return f"<{name}>{escape(str(value))}</{name}>"


@lru_cache(maxsize=8192)
def _iso_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=8192)
def _http_second(second: int) -> str:
    # Not strftime: its names of days and months follow the locale.
    moment = _EPOCH + timedelta(seconds=second)
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month]} {moment.year:04} "
        f"{moment.hour:02}:{moment.minute:02}:{moment.second:02} GMT"
    )


def _reference(match: re.Match[str]) -> str:
    character = match[0]
    return _NAMED.get(character) or f"&#x{ord(character):x};"


def _require_depth(root: Element) -> None:
    level, depth = [root], 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise MalformedXML("The document is nested too deeply.")
        level = [child for parent in level for child in parent]
