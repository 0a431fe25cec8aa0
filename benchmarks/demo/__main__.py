"""`python -m benchmarks.demo [--nodes N]`: exit code 1 where anything differs."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks.demo.screen import Screen, seconds_of
from benchmarks.demo.story import Story
from tests.faults.site import Site

NODES_MIN, NODES_MAX, WRONG_SHOWN_MAX = 3, 9, 20


def main() -> int:
    """Runs the whole story, then says what it came to."""
    parser = argparse.ArgumentParser(description="A site of several nodes outlives one of them, under load.")
    parser.add_argument("--nodes", type=int, default=NODES_MIN, choices=range(NODES_MIN, NODES_MAX + 1), metavar="N")
    count = parser.parse_args().nodes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgestore-demo-") as temporary:
        folder = Path(temporary)
        with Site(folder, count) as site, Screen(site) as screen:
            story = Story(site, screen, folder)
            try:
                story.run()
            except BaseException:
                for node in site.nodes:
                    screen.say(f"the end of {node.log}:\n{node.log.read_text()[-2000:]}")
                raise
    Console().print(screen.table(f"edgestore demo, {count} nodes"))
    for wrong in story.failed[:WRONG_SHOWN_MAX]:
        print(f"BAD {wrong}")
    retries = ", ".join(f"{name} {times}" for name, times in sorted(story.clients.reasons.items())) or "none"
    print(f"What clients sent again: {retries}.")
    print(f"Lost, wrong or refused: {len(story.failed)}. All of it took {seconds_of(started):.0f} s.")
    return 1 if story.failed else 0


if __name__ == "__main__":
    sys.exit(main())
