"""No operation that decodes stops whoever applies it: it has an outcome, and the log goes on behind it."""

from __future__ import annotations

import typing
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgestore.catalog import commands
from edgestore.errors import BadRequest, Corrupt, DiskFailed, EdgeStoreError, NotSupported, StoreDamaged
from edgestore.records import Versioning
from tests.unit.catalog.nodes import SECRET, NodeSite, member
from tests.unit.catalog.site import OWNER, Site, inline, put

EDGES = [0, 1, 2, 3, 5, 24, 100, 1000, 10_000, 1 << 16, (1 << 31) - 1, 1 << 32, 1 << 53, (1 << 63) - 1, 1 << 63]
NUMBERS = st.sampled_from([*EDGES, (1 << 64) - 1, -1, -2, -(1 << 31), -(1 << 63)]) | st.integers(
    -(1 << 63), (1 << 64) - 1
)
UPLOAD = "ab" * 16
WORDS = st.sampled_from(
    ["", "bucket", "key", "other", "\0", "ü" * 600, "x" * 2000, UPLOAD, "4+2", "99+99", "*", member(1), member(2)]
)
BYTES = st.sampled_from(
    [
        b"",
        b"t",
        b"token001",
        SECRET,
        bytes(16),
        (1).to_bytes(8, "big") + bytes(8),
        b"\xff" * 16,
        b"\xff" * 64,
        b"y" * 200,
    ]
)
COMMANDS: tuple[type[msgspec.Struct], ...] = typing.get_args(commands.Command)


def _values(kind: Any) -> st.SearchStrategy[Any]:
    """Of a field: what it means mostly, and beyond its bounds now and then."""
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if arguments and origin is not tuple and origin is not dict:
        return st.one_of(*(st.none() if one is type(None) else _values(one) for one in arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(_values(arguments[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*(_values(one) for one in arguments))
    if origin is dict:
        return st.dictionaries(WORDS, WORDS, max_size=2)
    return _plain(kind)


def _plain(kind: type) -> st.SearchStrategy[Any]:
    if issubclass(kind, msgspec.Struct):
        return _structs(kind)
    if issubclass(kind, bool):
        return st.booleans()
    if issubclass(kind, int):
        return NUMBERS if kind is int else st.sampled_from(list(kind))  # type: ignore[attr-defined]
    return WORDS if kind is str else BYTES


def _structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, *(_values(hints[name]) for name in kind.__struct_fields__))


def _site() -> NodeSite:
    """Something of everything, so that commands find what they name."""
    site = NodeSite(3)
    bucket = site.bucket("bucket", Versioning.ENABLED)
    site.do(put(bucket, "key", inline(b"first")))
    site.do(commands.DeleteObject(bucket.bucket_id, "key", OWNER, 0))
    site.upload(bucket, "key", UPLOAD)
    site.token()
    return site


OPERATIONS = st.builds(
    commands.Operation, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.one_of(*map(_structs, COMMANDS))
)


@settings(max_examples=300, deadline=None)
@given(st.lists(OPERATIONS, min_size=1, max_size=3))
def test_whatever_an_operation_says_it_has_an_outcome(operations: list[commands.Operation]) -> None:
    assert _goes_on(_site(), operations)


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
def test_every_command_has_an_outcome_with_extreme_values(kind: type[msgspec.Struct]) -> None:
    site = _site()

    @settings(max_examples=40, deadline=None)
    @given(st.lists(_structs(kind), min_size=1, max_size=3))
    def check(several: list[Any]) -> None:
        assert _goes_on(site, [site.operation(command) for command in several])

    check()


def _goes_on(site: NodeSite, operations: list[commands.Operation]) -> bool:
    """As a lone node takes them, and as a leader does, which refuses what breaks its bounds. Whether the catalog,
    opened anew, still takes operations."""
    own = [one for one in operations if not isinstance(one.command, commands.RaiseFeatureLevel)]
    for entry in (own, [one for one in operations if _is_proposed(one)]):
        assert len(site.apply(*entry)) == len(entry)
        assert site.do(commands.Tick()) is None
    site.reopen()
    return site.do(commands.Tick()) is None


def _is_proposed(operation: commands.Operation) -> bool:
    try:
        commands.check_operation(msgspec.msgpack.encode(operation))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "ids",
    [(-1, 1, 0, 0, 0), (1 << 63, 1, 0, 0, 0), (7, -1, 0, 0, 0), (7, 1, 1 << 63, 0, 0), (7, 1, 0, -(1 << 62), 0)],
)
def test_an_operation_whose_id_is_out_of_range_is_not_proposed(ids: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="int"):
        commands.check_operation(msgspec.msgpack.encode(commands.Operation(*ids, commands.Tick())))


def test_a_feature_level_that_this_version_does_not_know_is_not_proposed() -> None:
    """Were it raised, every member would refuse the next entry."""
    raising = commands.Operation(7, 1, 0, 0, 0, commands.RaiseFeatureLevel(commands.FEATURE_LEVEL + 1))
    with pytest.raises(ValueError, match="feature level"):
        commands.check_operation(msgspec.msgpack.encode(raising))


def test_an_entry_of_a_higher_feature_level_says_so_whatever_commands_it_has() -> None:
    site = Site()
    unknown = msgspec.Raw(msgspec.msgpack.encode((7, 1, 0, site.time_ms, 0, (99, "new"))))
    entry = commands.splice_entry(commands.FEATURE_LEVEL + 1, 0, 0, site.time_ms, [unknown])
    with pytest.raises(NotSupported, match="upgrade"):
        site.applier.apply(site.applier.applied_index + 1, 1, entry)


def test_bytes_beyond_a_count_do_not_stop_the_log() -> None:
    site = Site()
    bucket = site.bucket("bucket", Versioning.ENABLED)
    huge = commands.Content(1 << 53, "")
    for _ in range(3):
        site.all(*(put(bucket, "key", huge) for _ in range(1024)))
    assert site.state.usage(bucket).size_bytes == (1 << 64) - 1


@pytest.mark.parametrize("failure", [StoreDamaged("a block"), DiskFailed("the disk"), Corrupt("a row")])
def test_what_fails_on_this_replica_alone_is_no_outcome(failure: EdgeStoreError) -> None:
    """The others apply the operation: a replica that takes its own disk's failure for the outcome differs from them."""
    site = Site()
    bucket = site.bucket()
    before, get = site.applier.applied_index, site.store.get

    def failing(key: bytes, /) -> bytes | None:
        raise failure

    operation = site.operation(put(bucket, "key", inline(b"body")))
    site.store.get = failing  # type: ignore[method-assign]
    with pytest.raises(type(failure)):
        site.apply(operation)
    site.store.get = get  # type: ignore[method-assign]
    site.entries.pop()
    assert site.applier.applied_index == before
    (outcome,) = site.apply(operation)
    assert not isinstance(outcome, EdgeStoreError)


def test_a_lone_node_hears_which_operation_was_out_of_range() -> None:
    site = Site()
    bucket = site.bucket()
    good, bad = put(bucket, "key", inline(b"body")), commands.DeleteBucket(-1)
    first, second = site.all(bad, good)
    assert isinstance(first, BadRequest)
    assert not isinstance(second, EdgeStoreError)
