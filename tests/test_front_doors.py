"""Rooms use each other through their front doors: what `__init__` exports, and nothing behind it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "edgestore"
ROOMS = {
    ".".join(path.parent.relative_to(ROOT.parent).parts)
    for path in ROOT.rglob("__init__.py")
    if path.parent not in (ROOT, ROOT / "protocols")
}


def room_of(module: str) -> str | None:
    """The room that a module lies in, the innermost."""
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        if (name := ".".join(parts[:length])) in ROOMS:
            return name
    return None


def test_no_room_reaches_behind_another_room_s_door() -> None:
    reached = []
    for path in ROOT.rglob("*.py"):
        own = room_of(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("edgestore."):
                other = room_of(node.module)
                if other and other != own and node.module != other:
                    reached.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.module}")
    assert not reached


def test_every_front_door_names_what_it_exports() -> None:
    silent = []
    for room in sorted(ROOMS):
        path = ROOT.parent.joinpath(*room.split(".")) / "__init__.py"
        tree = ast.parse(path.read_text())
        names = [
            node
            for node in tree.body
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
        ]
        if not names or not ast.get_docstring(tree):
            silent.append(room)
    assert not silent


MESH = ("cryptography", "edgestore.cluster", "edgestore.core.mesh", "edgestore.net.peers", "edgestore.net.tls")


@pytest.mark.parametrize("started", ["import edgestore", "import edgestore.cli", "import edgestore.node"])
def test_what_only_a_site_of_several_needs_is_not_loaded_at_a_start(started: str) -> None:
    script = f"import sys; {started}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert not [name for name in loaded if name in MESH]


def test_a_door_refuses_what_it_does_not_export() -> None:
    import edgestore.net

    with pytest.raises(AttributeError):
        edgestore.net.nothing  # type: ignore[attr-defined]  # noqa: B018
