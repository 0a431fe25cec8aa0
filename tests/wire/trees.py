"""A small real tree to move about: names with spaces and umlauts, empty files, one that needs several parts."""

from __future__ import annotations

import os
import random
from pathlib import Path


def make_tree(folder: Path, *, large_bytes: int = 20_000_000) -> dict[str, bytes]:
    """Writes the tree; returns its files by relative name."""
    rng = random.Random(folder.name)
    files = {f"many/{number:03d}.txt": rng.randbytes(rng.randrange(3000)) for number in range(40)}
    files["empty"] = b""
    files["sp ace/ümlaut +%.bin"] = rng.randbytes(70_000)
    files["deep/er/and/deeper.bin"] = rng.randbytes(300_000)
    files["large.bin"] = rng.randbytes(large_bytes)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return files


def read_tree(folder: Path) -> dict[str, bytes]:
    """The files of a folder by relative name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
