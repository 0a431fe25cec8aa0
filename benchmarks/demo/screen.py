"""What the demo shows: the nodes and the site, live, the bar of the step under way, and the table at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tests.faults.site import Site, SiteNode

POLL_S = 0.4
STYLES = {"up": "green", "draining": "yellow", "down": "red", "quarantined": "red", "removed": "dim"}


def ask(node: SiteNode) -> dict[str, Any] | None:
    """The node's status; None where it does not answer."""
    try:
        return node.status()
    except (OSError, RuntimeError, KeyError, ValueError):
        return None


class Screen:
    """A live display on stderr (plain lines where that is no terminal), and rows for the table on stdout."""

    def __init__(self, site: Site) -> None:
        self.console = Console(stderr=True)
        self._site, self._status = site, {"nodes": []}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self.console,
        )
        self._rows: list[tuple[str, ...]] = []
        self._stop = threading.Event()
        self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=5, transient=True)
        self._poller = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._live.start()
            self._poller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.console.is_terminal:
            self._poller.join()
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False)

    @contextmanager
    def step(self, text: str, total: int | None) -> Iterator[Any]:
        """A bar that is there for as long as the step takes; gives what to call with what is done."""
        self.say(text)
        task = self._progress.add_task(text, total=total)
        try:
            yield lambda done: self._progress.advance(task, done)
        finally:
            self._progress.remove_task(task)

    def row(self, step: str, seconds: float, result: str, *, objects: int = 0, size: int = 0) -> None:
        """One row of the table at the end."""
        per_s = f"{objects / seconds:,.0f}" if objects > 1 else ""
        mb_per_s = f"{size / seconds / 1e6:,.0f}" if size else ""
        self._rows.append((step, f"{objects:,}" if objects else "", mb_per_s, per_s, f"{seconds:.1f}", result))

    def table(self, title: str) -> Table:
        """All rows."""
        table = Table(title=title)
        for column in ("step", "objects", "MB/s", "objects/s", "seconds", "result"):
            table.add_column(column, justify="left" if column in ("step", "result") else "right")
        for row in self._rows:
            table.add_row(*row)
        return table

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            found = (ask(node) for node in self._site.running())
            self._status = next((status for status in found if status is not None), self._status)

    def _render(self) -> Group:
        nodes = Table.grid(padding=(0, 2))
        for row in self._status["nodes"]:
            state = "suspected" if row["suspected"] and row["state"] == "up" else row["state"]
            roles = ", ".join(name for name in ("leader", "voter") if row[name])
            nodes.add_row(f"node {row['number']}", Text(state, STYLES.get(state, "yellow")), f"s3 {row['s3']}", roles)
        line = f"{self._status['distance']}; repair left: {self._status['repair_left']}" if nodes.row_count else ""
        return Group(nodes, Text(line, "bold"), self._progress)


def seconds_of(started: float) -> float:
    """Since then, and never 0."""
    return max(time.monotonic() - started, 1e-6)
