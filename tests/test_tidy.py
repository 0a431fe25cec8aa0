"""The tree keeps its own rules: sizes, names, first sentences, links, and what the documentation must name."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from edgestore.config import Config
from edgestore.observe import METRICS

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "edgestore").rglob("*.py"))
TESTS = [
    path
    for path in sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)  # environments of the wire tests
]
C_SOURCES = sorted((ROOT / "cext").glob("*.[ch]"))
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
BANNED_NAMES = {"utils", "helpers", "common", "manager", "misc"}
UNFINISHED = re.compile(r"#\s*(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError|except Exception:\s*pass")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(work|root|home)/")


def test_files_and_functions_stay_small() -> None:
    lengths = [(path, path.read_text().count("\n")) for path in SOURCES + TESTS + C_SOURCES]
    large = [f"{path.name}: {length} lines" for path, length in lengths if length > FILE_LINES_MAX]
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    large.append(f"{path.name}:{node.lineno} {node.name}: {length} lines")
    assert not large


def test_every_file_says_what_it_is_for() -> None:
    silent = [
        str(path)
        for path in SOURCES + TESTS
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    silent += [str(path) for path in C_SOURCES if not path.read_text().startswith("/*")]
    assert not silent


def test_no_room_is_a_drawer() -> None:
    drawers = [str(path) for path in SOURCES if path.stem in BANNED_NAMES or path.parent.name in BANNED_NAMES]
    assert not drawers


@pytest.mark.parametrize("pattern", [UNFINISHED, MACHINE_PATHS], ids=["unfinished", "machine paths"])
def test_nothing_is_left_lying_about(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES + TESTS + C_SOURCES
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_metric_names_follow_the_pattern() -> None:
    units = ("_total", "_bytes", "_seconds", "_connections", "_waiting", "_shut")
    wrong = [spec.name for spec in METRICS if not spec.name.endswith(units) or not spec.name.split("_")[0].islower()]
    assert not wrong
    assert len({spec.name for spec in METRICS}) == len(METRICS)


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs/reference/config.md").read_text()
    missing = []
    for room in fields(Config):
        section = text.split(f"## [{room.name}]", 1)
        assert len(section) == 2, room.name
        body = section[1].split("\n## ", 1)[0]
        for setting in fields(getattr(Config(), room.name)):
            default = getattr(getattr(Config(), room.name), setting.name)
            if f"| `{setting.name}` | `{default!r}` |" not in body:
                missing.append(f"{room.name}.{setting.name}")
    assert not missing


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.name}: {target}")
    assert not broken
