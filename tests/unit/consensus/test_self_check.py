"""PySyncObj is exactly what the hooks were written for, or the node does not start; and it never pickles."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import pysyncobj.syncobj
import pytest

from edgestore.consensus import core as consensus_core
from edgestore.errors import Corrupt
from tests.unit.consensus.group import Group


@contextmanager
def without(owner: Any, name: str) -> Iterator[None]:
    """The name is not there for a while."""
    kept = vars(owner)[name]
    delattr(owner, name)
    try:
        yield
    finally:
        setattr(owner, name, kept)


@pytest.mark.parametrize("name", consensus_core.PRIVATE_METHODS)
def test_a_missing_method_is_refused(name: str) -> None:
    with without(pysyncobj.SyncObj, name), pytest.raises(Corrupt, match=name):
        consensus_core.check_core()
    consensus_core.check_core()


@pytest.mark.parametrize("name", consensus_core.MODULE_NAMES)
def test_a_missing_name_of_the_module_is_refused(name: str) -> None:
    with without(pysyncobj.syncobj, name), pytest.raises(Corrupt, match=name):
        consensus_core.check_core()
    consensus_core.check_core()


@pytest.mark.parametrize("name", consensus_core.PRIVATE_FIELDS)
async def test_a_missing_field_is_refused(tmp_path: Path, name: str) -> None:
    begin = pysyncobj.SyncObj.__init__

    def forgetful(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        delattr(self, name)

    with mock.patch.object(pysyncobj.SyncObj, "__init__", forgetful), pytest.raises(Corrupt, match=name):
        await Group(tmp_path).open()


def test_another_version_is_refused() -> None:
    with mock.patch.object(consensus_core, "version", return_value="0.3.18"):
        with pytest.raises(Corrupt, match=r"0\.3\.18"):
            consensus_core.check_core()


def test_every_private_name_that_the_source_uses_is_checked() -> None:
    source = Path(str(consensus_core.__file__)).read_text(encoding="utf-8")
    used = set(re.findall(r"self\.(_SyncObj__\w+|_isLeader|_applyCommand|_checkCommandsToApply)", source))
    assert used
    assert used <= {*consensus_core.PRIVATE_METHODS, *consensus_core.PRIVATE_FIELDS}
    assert set(re.findall(r"pysyncobj\.syncobj\.(\w+)", source)) <= set(consensus_core.MODULE_NAMES)


@pytest.mark.parametrize("name", consensus_core.PICKLERS)
def test_pickle_is_taken_away(name: str) -> None:
    consensus_core.harden()
    module = import_module(name)
    taken = [getattr(module, function) for function in ("loads", "dumps") if hasattr(module, function)]
    for function in taken:
        with pytest.raises(Corrupt, match="never pickled"):
            function(b"")


async def test_no_module_of_the_core_still_reaches_pickle(tmp_path: Path) -> None:
    """Whatever name it goes by: no function of the pickle module is left in what the core imports."""
    group = await Group(tmp_path).open()
    forbidden = {pickle.loads, pickle.dumps, pickle.load, pickle.dump}
    for name in ("syncobj", "journal", "transport", "node", "serializer", "tcp_connection"):
        module = import_module(f"pysyncobj.{name}")
        held = [value for value in vars(module).values() if callable(value) and value.__hash__ is not None]
        assert not forbidden.intersection(held), name
    group.kill()


async def test_the_paths_of_pysyncobj_that_pickle_are_never_entered(tmp_path: Path) -> None:
    group = await Group(tmp_path).open()
    assert group.consensus._voter is not None
    core = group.consensus._voter.core
    for name in ("applyLogEntries", "tryLogCompaction", "sendNextNodeIdx"):
        with pytest.raises(AssertionError):
            getattr(core, f"_SyncObj__{name}")()
    with pytest.raises(AssertionError):
        core._SyncObj__doApplyCommand(b"\x00x")
    with pytest.raises(AssertionError):
        core._SyncObj__onMessageReceived(None, {"type": "append_entries"})
    group.kill()


async def test_pysyncobj_sends_nothing(tmp_path: Path) -> None:
    group = await Group(tmp_path).open()
    assert group.consensus._voter is not None
    with pytest.raises(AssertionError):
        consensus_core.SilentTransport(group.consensus._voter.core, None, set()).send(None, {})
    group.kill()
