"""The catalog of one group as the state machine of its consensus: what applies entries, and what a snapshot replaces.

Rule 2: the folder of the catalog is the one that the newest SNAPSHOT record names; every other one may be deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edgestore.catalog import WATCHED, Applier, State, Table
from edgestore.consensus import Snapshot
from edgestore.disk import Files, OrderedStore, Worker
from edgestore.errors import Corrupt, EdgeStoreError, Unavailable
from edgestore.meta.snapshots import SnapshotReceiver

log = logging.getLogger("edgestore.meta")

OpenFolder = Callable[[str], OrderedStore]
"""Opens the ordered store in a folder of the data folder."""


class CatalogMachine:
    """`consensus.StateMachine`. `applier`, `state` and `store` are others after a snapshot was switched to."""

    def __init__(
        self,
        files: Files,
        worker: Worker,
        store: OrderedStore,
        folder: str,
        open_folder: OpenFolder | None,
        *,
        group: int,
        cache_bytes: int,
        own_session: int = 0,
    ) -> None:
        self._files, self._worker, self._open_folder = files, worker, open_folder
        self._group, self._cache_bytes, self._own_session = group, cache_bytes, own_session
        self.folder = folder
        self.receiver: SnapshotReceiver | None = None
        self.on_own_outcome: Callable[[int, object], None] = lambda sequence, outcome: None
        self.on_changed: Callable[[int, frozenset[Table]], None] = lambda index, tables: None
        self.on_applied: Callable[[int], None] | None = None
        """Called with the number of operations of each entry."""
        self.on_switched: Callable[[], None] = lambda: None
        self._received: tuple[str, OrderedStore] | None = None
        self._begin(store)

    def _begin(self, store: OrderedStore) -> None:
        self.store = store
        self.applier = Applier(store, self._group, cache_bytes=self._cache_bytes)
        self.applier.on_changed = lambda index, tables: self.on_changed(index, tables)
        if self._own_session:
            self.applier.own_session = self._own_session
            self.applier.on_own_outcome = lambda sequence, outcome: self.on_own_outcome(sequence, outcome)

    @property
    def state(self) -> State:
        """The rows."""
        return self.applier.state

    @property
    def applied_index(self) -> int:
        """See StateMachine."""
        return self.applier.applied_index

    def apply(self, index: int, term: int, payload: bytes | memoryview) -> list[object]:
        """See StateMachine."""
        outcomes = self.applier.apply(index, term, payload)
        if self.on_applied is not None:
            self.on_applied(len(outcomes))
        return outcomes

    def begin_incarnation(self, index: int, term: int, incarnation: int) -> None:
        """See StateMachine."""
        self.applier.begin_incarnation(index, term, incarnation)

    # --- snapshots -------------------------------------------------------------------------------------

    async def receive(self, member: str) -> Snapshot:
        """See StateMachine. It is opened here: what does not check out is thrown away before it is named."""
        if self.receiver is None or self._open_folder is None:
            raise Unavailable("this node takes no snapshots")
        folder, manifest = await self.receiver.receive(member)
        if self._received is not None:
            self._drop_received()
        try:
            store = self._open_folder(folder)
            self._received = folder, store
            site = State(store, self._group).site()
            if site.incarnation != manifest.incarnation or not site.index:
                raise Unavailable(f"the snapshot of {member} is of incarnation {site.incarnation}")
        except EdgeStoreError:
            self._drop_received()
            self.receiver.drop(folder)
            raise
        return Snapshot(folder, site.index, site.term, site.incarnation, manifest.members)

    def _drop_received(self) -> None:
        if self._received is not None:
            self._received[1].close()
            self._received = None

    async def switch(self, snapshot: Snapshot) -> None:
        """See StateMachine."""
        assert self._open_folder is not None
        received, self._received = self._received, None
        if received is not None and received[0] == snapshot.folder:
            store = received[1]
        else:
            store = self._open_folder(snapshot.folder)
        old_store, old_folder, self.folder = self.store, self.folder, snapshot.folder
        self._begin(store)
        if self.applier.applied_index != snapshot.index:
            raise Corrupt(
                f"the snapshot in {snapshot.folder} is at entry {self.applier.applied_index}, not {snapshot.index}"
            )
        if self.receiver is not None:
            self.receiver.finish()
        self.on_switched()
        self.on_changed(snapshot.index, WATCHED)  # behind it: watchers read the new rows
        await self._worker.run(old_store.close)  # behind a flush of it that may be running
        try:
            await self._worker.run(lambda: self._files.remove_folder(old_folder))
        except EdgeStoreError as error:  # the next start removes it
            log.warning("old-catalog-kept folder=%s error=%s", old_folder, error)

    def close(self) -> None:
        """Without a flush."""
        self._drop_received()
        self.store.close()
