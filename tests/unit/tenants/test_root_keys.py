"""The root pair is replaced as any other pair is, and never gone."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import pytest

from edgestore.clock import SystemClock
from edgestore.config import Config
from edgestore.core import Core
from edgestore.disk import SystemFiles
from edgestore.errors import BadRequest


async def opened(folder: Path) -> Core:
    return await Core.open(SystemFiles(str(folder)), Config(), clock=SystemClock())


def written(folder: Path) -> str:
    """The access key that the folder names."""
    return str(tomllib.loads((folder / "credentials.toml").read_text())["access_key"])


async def test_a_stolen_root_pair_is_replaced_on_a_node_that_runs(tmp_path: Path) -> None:
    core = await opened(tmp_path)
    old = written(tmp_path)
    with pytest.raises(BadRequest, match="last root key pair"):
        await core.tenants.delete_key(old)
    made = await core.tenants.create_key(name="root")
    await core.tenants.delete_key(old)
    await asyncio.sleep(0)
    assert written(tmp_path) == made.access_key
    assert core.tenants.principal_for(old) is None
    found = core.tenants.principal_for(made.access_key)
    assert found is not None
    assert found[0].is_root
    with pytest.raises(BadRequest, match="last root key pair"):
        await core.tenants.delete_key(made.access_key)
    await core.close()


async def test_a_node_that_was_away_takes_the_new_pair_at_its_start(tmp_path: Path) -> None:
    core = await opened(tmp_path)
    old, stale = written(tmp_path), (tmp_path / "credentials.toml").read_bytes()
    made = await core.tenants.create_key(name="root")
    await core.tenants.delete_key(old)
    await core.close()
    (tmp_path / "credentials.toml").write_bytes(stale)
    core = await opened(tmp_path)
    assert written(tmp_path) == made.access_key
    assert core.tenants.principal_for(old) is None
    await core.close()
