"""Rooms use each other through their front doors: what `__init__` exports, and nothing behind it."""

from __future__ import annotations

import ast
from pathlib import Path

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
