"""Front doors that load what stands behind them when it is first asked for (PEP 562): a lone node has no use for
certificates, connections and fragments of other nodes, and they cost most of a start."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def later(room: str, modules: dict[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The `__getattr__` of a room: `modules` names what each of its modules exports."""
    places = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(f"{room}.{places[name]}"), name)

    return load
