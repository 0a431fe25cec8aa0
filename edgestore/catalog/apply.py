"""Applies log entries: every operation in order, one atomic batch an entry, the applied index in it (rule 2).

Rule: the outcome depends on the rows and the entry only: same entries, same rows, on every replica.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec

from edgestore.catalog import commands, extents, nodes, owners, places, rows, tokens, uploads, versions, writers
from edgestore.catalog.context import Context
from edgestore.catalog.keys import Table, row
from edgestore.catalog.memory import OperationMemory
from edgestore.catalog.row_cache import RowCache
from edgestore.catalog.state import State
from edgestore.catalog.view import OrderedStore, Transaction
from edgestore.errors import (
    AlreadyApplied,
    BadRequest,
    Closing,
    Corrupt,
    DiskFailed,
    EdgeStoreError,
    NotSupported,
    RetryOperation,
    StorageFull,
)
from edgestore.records import SITE_TENANT

HANDLERS: dict[type, Callable[[Context, Any], object]] = {
    commands.CreateBucket: owners.create_bucket,
    commands.DeleteBucket: owners.delete_bucket,
    commands.SetVersioning: owners.set_versioning,
    commands.PutObject: versions.put_object,
    commands.CopyObject: versions.copy_object,
    commands.DeleteObject: versions.delete_object,
    commands.CreateUpload: uploads.create_upload,
    commands.PutPart: uploads.put_part,
    commands.CompleteUpload: uploads.complete_upload,
    commands.AbortUpload: uploads.abort_upload,
    commands.RegisterWriter: writers.register_writer,
    commands.AdvanceWriter: writers.advance_writer,
    commands.CloseWriter: writers.close_writer,
    commands.CondemnChunks: extents.condemn_chunks,
    commands.ReclaimedChunks: extents.reclaimed_chunks,
    commands.ContinueDrop: extents.continue_drop,
    commands.PutTenant: owners.put_tenant,
    commands.PutKey: owners.put_key,
    commands.DeleteKey: owners.delete_key,
    commands.Tick: owners.tick,
    commands.FoundSite: owners.found_site,
    commands.FoundNode: nodes.found_node,
    commands.AddNode: nodes.add_node,
    commands.UpdateNode: nodes.update_node,
    commands.SetNodeState: nodes.set_node_state,
    commands.SetNodeWeight: nodes.set_node_weight,
    commands.SetNodeQuality: nodes.set_node_quality,
    commands.QuarantineMember: nodes.quarantine_member,
    commands.CreateToken: tokens.create_token,
    commands.DropToken: tokens.drop_token,
    commands.SetAuthority: tokens.set_authority,
    commands.SetSiteSettings: tokens.set_site_settings,
    commands.SetBucketPolicy: owners.set_bucket_policy,
    commands.RaiseFeatureLevel: nodes.raise_feature_level,
    commands.RetireLayouts: nodes.retire_layouts,
    commands.PlaceExtent: places.place_extent,
    commands.SwapExtent: extents.swap_extent,
    commands.Unusable: owners.refuse_unusable,
}

OF_THIS_REPLICA = (Corrupt, DiskFailed, StorageFull, Closing)
"""What says nothing about the operation: the others apply it, so this one stops rather than differ."""

WATCHED = frozenset(
    (
        Table.BUCKET_NAMES,
        Table.TENANTS,
        Table.ACCESS_KEYS,
        Table.NODES,
        Table.LAYOUTS,
        Table.AUTHORITY,
        Table.SETTINGS,
    )
)


class Applier:
    """The one writer of the catalog."""

    def __init__(self, store: OrderedStore, group: int = 0, *, cache_bytes: int = 0) -> None:
        self._row_cache = RowCache(cache_bytes)
        self.state = State(store, group, row_cache=self._row_cache)
        self._store, self._group = store, group
        self._memory = OperationMemory(store, group)
        self.site = self.state.site()
        self.on_changed: Callable[[int, frozenset[Table]], None] = lambda index, tables: None
        """Called with the index of an entry that changed watched tables (`WATCHED`), before its outcomes are given."""
        self.own_session = 0
        self.on_own_outcome: Callable[[int, object], None] = lambda sequence, outcome: None
        """Called with the sequence and the outcome of each operation of `own_session`, wherever it was proposed."""
        self.judges_fragments = True
        """Off where the layouts may be lost (salvage): rule 1 was judged when the entry was applied first."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry that the rows contain."""
        return self.site.index

    def apply(self, index: int, term: int, payload: bytes | memoryview) -> list[object]:
        """Applies one entry and returns an outcome for each operation: a value or an EdgeStoreError.

        An entry that was applied before changes nothing and returns an empty list. Raises Corrupt for bytes that are
        no entry, and for a gap in the indices.
        """
        if index <= self.site.index:
            return []
        if index != self.site.index + 1:
            raise Corrupt(f"entry {index} follows {self.site.index}: entries between are missing", index=index)
        if not payload:
            self._advance(index, term)
            return []
        try:
            entry = commands.decode_entry(payload)
        except (ValueError, msgspec.MsgspecError) as error:
            raise Corrupt(f"log entry {index} does not decode: {error}", index=index) from error
        if entry.feature_level > commands.FEATURE_LEVEL:
            raise NotSupported(
                f"log entry {index} needs feature level {entry.feature_level}: upgrade this node",
                index=index,
                feature_level=commands.FEATURE_LEVEL,
            )
        if entry.group != self._group:
            raise Corrupt(f"log entry {index} belongs to group {entry.group}, not {self._group}", index=index)
        if entry.incarnation < self.site.incarnation:
            return self._send_back(index, term, entry)
        if entry.feature_level > self.site.feature_level:
            raise Corrupt(f"log entry {index} has a feature level that the site has not reached", index=index)
        if entry.incarnation != self.site.incarnation:
            raise Corrupt(
                f"log entry {index} belongs to incarnation {entry.incarnation} of the group, not to "
                f"{self.site.incarnation}",
                index=index,
            )
        return self._apply_entry(index, term, entry)

    def begin_incarnation(self, index: int, term: int, incarnation: int) -> None:
        """Applies a stop-sign (rule 4): entries of older incarnations behind it change nothing. Again: no effect."""
        if index <= self.site.index:
            return
        if index != self.site.index + 1 or incarnation <= self.site.incarnation:
            raise Corrupt(
                f"a stop-sign at {index} to incarnation {incarnation} follows {self.site.index} of incarnation "
                f"{self.site.incarnation}",
                index=index,
            )
        self.site = msgspec.structs.replace(self.site, incarnation=incarnation)
        self._advance(index, term)

    def _send_back(self, index: int, term: int, entry: commands.Entry) -> list[object]:
        """An entry behind a stop-sign (rule 4). Nothing is remembered: the same ids come again."""
        self._advance(index, term)
        outcomes: list[object] = [RetryOperation() for _ in entry.operations]
        self._tell(entry, outcomes)
        return outcomes

    def _tell(self, entry: commands.Entry, outcomes: list[object]) -> None:
        """`on_own_outcome`."""
        if not self.own_session:
            return
        for operation, outcome in zip(entry.operations, outcomes, strict=True):
            if operation.session == self.own_session:
                self.on_own_outcome(operation.sequence, outcome)

    def _advance(self, index: int, term: int) -> None:
        """An entry without operations (a leader's first)."""
        self.site = msgspec.structs.replace(self.site, index=index, term=term)
        self._store.write([(row(self._group, Table.SITE, SITE_TENANT), rows.encode(self.site))])

    def _apply_entry(self, index: int, term: int, entry: commands.Entry) -> list[object]:
        transaction = Transaction(self._store)
        log_time_ms = max(entry.log_time_ms, self.site.log_time_ms)
        site = msgspec.structs.replace(self.site, index=index, term=term, log_time_ms=log_time_ms)
        state = State(transaction, self._group, self.state.bucket_cache, layout_cache=self.state.layout_cache)
        context = Context(transaction, state, self._group, index, log_time_ms, site)
        context.judges_fragments = self.judges_fragments
        self._memory.begin(entry.operations)
        outcomes: list[object] = []
        for position, operation in enumerate(entry.operations):
            context.begin(position)
            outcomes.append(self._apply_operation(context, operation))
        context.write_usage()
        self._memory.write(context, entry.operations)
        context.put(Table.SITE, SITE_TENANT, b"", rows.encode(context.site))
        context.keep()
        self._store.write(list(transaction.changes.items()))
        self._row_cache.forget(transaction.changes)
        self.site = context.site
        if context.buckets_changed:
            self.state.forget_buckets()
        if context.layout_changed:
            self.state.layout_cache.forget()
        if context.changed_tables:
            self.on_changed(index, frozenset(context.changed_tables))
        self._tell(entry, outcomes)
        return outcomes

    def _apply_operation(self, context: Context, operation: commands.Operation) -> object:
        site = context.site
        try:
            if self._memory.is_known(context, operation):
                return self._memory.outcome(context, operation)
        except AlreadyApplied as error:
            return error
        outcome: object
        try:
            outcome = HANDLERS[type(operation.command)](context, operation.command)
            context.keep()
        except OF_THIS_REPLICA:
            raise
        except EdgeStoreError as error:
            context.forget(site)
            outcome = error
        except (OverflowError, struct.error):
            context.forget(site)
            outcome = BadRequest("a number of the operation is out of range")
        self._memory.remember(operation, outcome)
        return outcome
