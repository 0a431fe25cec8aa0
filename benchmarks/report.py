"""What every benchmark prints: a table for people, or with `--json` one list with a row per bound.

Rule: a row is a ratio or a figure beside its bound; what falls short is printed as it is, and the exit code stays 0.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One bound. `reach` like ">= 1.8" or "<= 80"; `peer` names what was measured in the same run."""

    claim: str
    value: float
    unit: str
    reach: str
    peer: str = ""
    peer_value: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the bound is reached."""
        sign, bound = self.reach.split()
        return self.value >= float(bound) if sign == ">=" else self.value <= float(bound)


def machine() -> str:
    """One line on the machine that measured."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "?",
    )
    cores = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    return f"{model}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}"


def print_rows(rows: list[Row], *, as_json: bool) -> None:
    """Prints the rows to stdout."""
    if as_json:
        print(json.dumps([{**asdict(row), "value": round(row.value, 4), "ok": row.ok} for row in rows], indent=1))
        return
    table = Table(title=machine())
    for column in ("claim", "value", "unit", "reach", "peer", "peer value", "ok"):
        table.add_column(column)
    for row in rows:
        peer_value = "" if row.peer_value is None else f"{row.peer_value:,.4g}"
        table.add_row(
            row.claim, f"{row.value:,.4g}", row.unit, row.reach, row.peer, peer_value, "yes" if row.ok else "NO"
        )
    Console(width=160).print(table)


def run(measure: Callable[[], list[Row]], description: str) -> None:
    """The `main` of a benchmark: parses `--json`, measures, prints."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    arguments = parser.parse_args()
    print_rows(measure(), as_json=arguments.json)


def run_sized(measure: Callable[[float], list[Row]], description: str, gigabytes: float) -> None:
    """The same where the size of the site is an argument."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    parser.add_argument("--gigabytes", type=float, default=gigabytes, help="size of the site")
    arguments = parser.parse_args()
    print_rows(measure(arguments.gigabytes), as_json=arguments.json)
