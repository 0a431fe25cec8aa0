"""Both lanes answer every request alike: status, headers, body, and what is stored afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.s3 import corpus
from tests.unit.s3.corpus import CORPUS
from tests.unit.s3.lanes import OTHER, ROOT, STREAMING, Case, Lanes
from tests.unit.s3.stored import fill


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    lanes = Lanes(tmp_path_factory.mktemp("lanes") / "data")
    fill(lanes)
    yield lanes
    lanes.close()


@pytest.mark.parametrize("name", CORPUS)
def test_both_lanes_answer_alike(lanes: Lanes, name: str) -> None:
    in_fast, in_slow = lanes.outcomes(CORPUS[name])
    assert in_fast == in_slow


def test_most_of_the_corpus_takes_the_fast_lane(lanes: Lanes) -> None:
    taken = {name: lanes.took_fast_lane(case) for name, case in CORPUS.items()}
    for name in ("GET small plain", "HEAD small plain", "GET medium plain", "put 131072", "put 131072 expecting"):
        assert taken[name], name
    assert taken["chunked signed in pieces"]
    assert taken["presigned put"]
    assert sum(taken.values()) > 0.75 * len(taken)


EVERY_HEADER = [
    *corpus.CONDITIONS.values(),
    *corpus.RANGES.values(),
    *corpus.MODES.values(),
    *corpus.ASKED.values(),
    *corpus.PUT_HEADERS.values(),
]
READ_TARGETS = sorted({case.target for case in corpus.READS.values()})
WRITE_TARGETS = sorted({case.target for case in corpus.PUTS.values() if "key" not in case.path})
TAMPERS = [
    bytes,
    bytes,
    bytes,
    corpus.flipped,
    *(row["tamper"] for row in corpus.REFUSED_PROOFS.values() if "tamper" in row),
]


@st.composite
def made_cases(draw: st.DrawFn) -> Case:
    """A method, a target, up to three sets of headers, a framing and a signature that need not fit each other."""
    method = draw(st.sampled_from(["GET", "GET", "HEAD", "PUT", "PUT", "DELETE"]))
    headers = {n: v for given in draw(st.lists(st.sampled_from(EVERY_HEADER), max_size=3)) for n, v in given.items()}
    sign = draw(st.sampled_from(["header", "header", "header", "query"]))
    payload = draw(st.sampled_from(["sha256", "sha256", "unsigned", *STREAMING])) if sign == "header" else "unsigned"
    body = None
    if method == "PUT":
        body = draw(st.binary(max_size=40) | st.sampled_from(corpus.SIZES).map(lambda size: corpus.PIECES[:size]))
    return Case(
        method,
        draw(st.sampled_from(READ_TARGETS if method in ("GET", "HEAD") else WRITE_TARGETS)),
        headers,
        body,
        payload if method == "PUT" else "sha256",
        sign,
        draw(st.sampled_from([ROOT, ROOT, ROOT, OTHER])),
        draw(st.sampled_from([0, 0, 0, 1000])),
        before=draw(st.sampled_from([None, b"before"])),
        chunks=() if not body else (body[:9000], body[9000:]) if len(body) > 9000 else (body,),
        trailers=draw(st.sampled_from([None, corpus.VALUE, corpus.WRONG])),
        tamper=draw(st.sampled_from(TAMPERS)),
        cuts=tuple(draw(st.lists(st.integers(-300, 200), max_size=2))),
        expects=method == "PUT" and draw(st.booleans()),
    )


@settings(
    deadline=None, max_examples=600, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=made_cases())
def test_made_requests_are_answered_alike(lanes: Lanes, case: Case) -> None:
    in_fast, in_slow = lanes.outcomes(case)
    assert in_fast == in_slow
