"""Rule 2 and what happens without it: a catalog ahead of its journal is refused."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest import mock

import pytest

from edgestore.consensus.recovery import Recovery
from edgestore.errors import Corrupt
from tests.unit.meta.life import Life, bucket


@pytest.mark.parametrize("broken", [False, True], ids=["with the rule", "without it"])
async def test_a_node_whose_journal_lost_entries_does_not_serve(tmp_path: Path, broken: bool) -> None:
    life = await Life(tmp_path).open()
    await life.meta.propose(1, bucket("b"))
    await life.close()
    for path in (tmp_path / "journal").iterdir():
        path.unlink()
    rule: AbstractContextManager[object] = nullcontext()
    if broken:
        rule = mock.patch.object(Recovery, "_check", lambda self, applied_index: None)
    serves = False
    with rule:
        try:
            again = await Life(tmp_path).open()
        except Corrupt:
            pass
        else:
            serves = again.meta.can_read_now()
            again.kill()
    assert serves is broken
