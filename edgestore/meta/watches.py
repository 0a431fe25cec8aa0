"""Who is told when tables of the catalog change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from edgestore.catalog import WATCHED, Table
from edgestore.errors import BadRequest

log = logging.getLogger("edgestore.meta")

WATCHES_MAX = 64


class Watches:
    """Of one catalog."""

    def __init__(self) -> None:
        self._watches: list[tuple[frozenset[Table], Callable[[int], None]]] = []

    def watch(self, tables: Iterable[Table], changed: Callable[[int], None]) -> Callable[[], None]:
        """Calls `changed(applied index)` after each entry that changed one of the tables, before its proposer hears.

        So a cache that reads anew there is never behind what was acknowledged. Nothing is queued: a watcher that falls
        behind reads the newest state. Only `catalog.WATCHED` can be watched. Returns what ends the watch.
        """
        watched = frozenset(tables)
        if not watched <= WATCHED or len(self._watches) >= WATCHES_MAX:
            raise BadRequest(f"at most {WATCHES_MAX} watches, of {', '.join(sorted(table.name for table in WATCHED))}")
        watch = (watched, changed)
        self._watches.append(watch)
        return partial(self._watches.remove, watch)

    def changed(self, index: int, tables: frozenset[Table]) -> None:
        """An entry changed them, or a snapshot all."""
        for watched, changed in tuple(self._watches):
            if watched & tables:
                try:
                    changed(index)
                except Exception:
                    log.exception("watcher-failed index=%d", index)
