"""A value of every struct on disk, made from its annotations: each field set, and to nothing that is its default."""

from __future__ import annotations

import itertools
import types
import typing
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import msgspec

from edgestore import records
from edgestore.catalog import commands, rows

NOT_ON_DISK = {"Principal", "ListedVersion", "SiteFormat"}
"""The last two are how the first fields of another struct are read."""
WITHOUT_SAMPLE = NOT_ON_DISK | {"Operation", "Entry"}
"""The last two are in the golden bytes of each command."""


def structs() -> dict[str, type[msgspec.Struct]]:
    """Every struct that lies on the disk, by name."""
    return {
        name: value
        for module in (records, rows, commands)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value is not msgspec.Struct
    }


def sample(kind: type[msgspec.Struct]) -> Any:
    """The same value at every call."""
    return _value(kind, itertools.count(1))


def _value(kind: Any, numbers: Iterator[int]) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _value(next(one for one in arguments if one is not type(None)), numbers)
    if origin is tuple:
        inner = arguments[:1] * 2 if arguments[-1] is Ellipsis else arguments
        return tuple(_value(one, numbers) for one in inner)
    if origin is dict:
        return {f"name-{next(numbers)}": f"value-{next(numbers)}"}
    if issubclass(kind, msgspec.Struct):
        return kind(*(_value(one, numbers) for one in typing.get_type_hints(kind).values()))
    if issubclass(kind, IntEnum):
        return list(kind)[-1]
    return _plain(kind, numbers)


def _plain(kind: Any, numbers: Iterator[int]) -> Any:
    if kind is msgspec.Raw:
        return msgspec.Raw(msgspec.msgpack.encode(f"raw-{next(numbers)}"))
    if kind is bytes:
        return next(numbers).to_bytes(16, "big")
    if kind is str:
        return f"text-{next(numbers)}"
    return True if kind is bool else next(numbers)
