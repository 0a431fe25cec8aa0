"""XML in without entities, XML out that reads back."""

from __future__ import annotations

from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgestore.protocols.s3 import xml
from edgestore.protocols.s3.faults import code_of

BOMB = b"""<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><Delete><Object><Key>&c;</Key></Object></Delete>"""
XXE = b"""<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<Delete><Object><Key>&x;</Key></Object></Delete>"""
DTD = b"""<!DOCTYPE Delete SYSTEM "http://example.org/evil.dtd"><Delete/>"""
PARAMETER = b"""<!DOCTYPE d [<!ENTITY % x SYSTEM "http://example.org/x"> %x;]><Delete/>"""


@pytest.mark.parametrize("document", [BOMB, XXE, DTD, PARAMETER], ids=["bomb", "xxe", "dtd", "parameter"])
def test_entities_and_doctypes_are_refused(document: bytes) -> None:
    with pytest.raises(xml.MalformedXML) as refused:
        xml.parse(document, "Delete")
    assert code_of(refused.value) == "MalformedXML"
    assert "passwd" not in str(refused.value)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"x",
        b"<Delete>",
        b"<Delete></delete>",
        b"<Other/>",
        b"\xff\xfe",
        b"<Delete>&undefined;</Delete>",
        b"<?xml version='1.0' encoding='nonsense'?><Delete/>",
        b"<a>" * 5000,
    ],
)
def test_what_is_not_the_document_asked_for_is_malformed(document: bytes) -> None:
    with pytest.raises(xml.MalformedXML):
        xml.parse(document, "Delete")


def test_deep_documents_are_refused() -> None:
    with pytest.raises(xml.MalformedXML):
        xml.parse(b"<Delete>" + b"<a>" * 50 + b"</a>" * 50 + b"</Delete>", "Delete")


def test_namespace_is_optional_and_unknown_elements_are_refused() -> None:
    for document in (
        b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet></Delete>',
        b"<Delete><Quiet> true </Quiet></Delete>",
    ):
        root = xml.parse(document, "Delete")
        assert xml.text(root, "Quiet") == "true"
        xml.require_names(root, "Quiet")
        with pytest.raises(xml.MalformedXML):
            xml.require_names(root, "Object")


def test_element_given_twice_is_malformed() -> None:
    with pytest.raises(xml.MalformedXML):
        xml.text(xml.parse(b"<A><B>1</B><B>2</B></A>", "A"), "B")


XML_TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\ufffe\uffff", min_codepoint=32))


@given(XML_TEXT)
def test_escaped_text_reads_back(text: str) -> None:
    document = xml.document("A", xml.element("B", text))
    root = ElementTree.fromstring(document)
    assert (root[0].text or "") == text


@given(st.text(st.characters(blacklist_categories=("Cs",))))
def test_url_encoded_text_reads_back_and_needs_no_escaping(text: str) -> None:
    encoded = xml.url_encode(text)
    assert unquote(encoded) == text
    assert xml.escape(encoded) == encoded


def test_control_characters_become_references() -> None:
    assert xml.escape("a\x01\n\r\t\x7f") == "a&#x1;&#xa;&#xd;&#x9;&#x7f;"
    assert xml.escape("\ufffe") == "&#xfffe;"


def test_url_encoding_is_that_of_s3() -> None:
    assert [xml.url_encode(key) for key in ("asdf+b", "foo+1/", "quux ab/", "a%b", "ü")] == [
        "asdf%2Bb",
        "foo%2B1/",
        "quux%20ab/",
        "a%25b",
        "%C3%BC",
    ]


def test_times() -> None:
    assert xml.http_time(1_764_000_000_999) == "Mon, 24 Nov 2025 16:00:00 GMT"
    assert xml.iso_time(1_764_000_000_999) == "2025-11-24T16:00:00.000Z"
