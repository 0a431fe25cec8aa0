"""Reads of what the site is made of: nodes, layouts, tokens, settings, and extents that are not at home.

Rule: as in `state`. Layout rows never change, so what is kept of them is forgotten only when the newest one changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from edgestore.catalog import rows
from edgestore.catalog.keys import PREFIX_BYTES, TENANT_BYTES, Table, number, read_number, row, successor
from edgestore.catalog.view import OrderedView
from edgestore.errors import NoSuchLayout, NoSuchNode
from edgestore.placement import Placement, is_counted
from edgestore.records import SITE_TENANT, ExtentRecord, LayoutRecord, NodeRecord, SiteSettings

PLACEMENTS_KEPT_MAX = 16
NO_LAYOUT = LayoutRecord()


class LayoutCache:
    """Layouts and their owners in RAM; the applier and its readers share one, and empty it when the layout changes."""

    def __init__(self) -> None:
        self.newest: LayoutRecord | None = None
        self.counted: frozenset[int] = frozenset()
        """Nodes of the newest layout whose fragments count for an acknowledgement."""
        self.placements: dict[int, Placement] = {}
        self.settings: SiteSettings | None = None

    def forget(self) -> None:
        """The newest layout or the settings changed, or a change of them was taken back."""
        self.newest, self.settings = None, None
        self.placements.clear()


@dataclass(frozen=True, slots=True)
class ExtentPage:
    """A piece of a walk over all extents. `after`: where the next piece begins; empty: that was the last."""

    extents: list[tuple[int, ExtentRecord]] = field(default_factory=list)
    """(tenant, extent)"""
    after: bytes = b""


class SiteState:
    """The part of `State` that is about the site itself."""

    view: OrderedView
    group: int
    layout_cache: LayoutCache

    def nodes(self) -> list[NodeRecord]:
        """All that ever joined, by number, the removed ones too."""
        return [rows.node(value) for _, value in self._table(Table.NODES)]

    def node(self, node: int) -> NodeRecord:
        """Raises NoSuchNode."""
        data = self.view.get(row(self.group, Table.NODES, SITE_TENANT, number(node)))
        if data is None:
            raise NoSuchNode(f"there is no node {node}", node=node)
        return rows.node(data)

    def node_of(self, member: str) -> NodeRecord | None:
        """The node of a member id; None for one that never joined."""
        data = self.view.get(row(self.group, Table.MEMBERS, SITE_TENANT, member.encode()))
        return self.node(read_number(data)) if data is not None else None

    def layout(self, epoch: int | None = None) -> LayoutRecord:
        """The newest one (a site that is not yet founded as one of nodes: epoch 1 without any), or that of an epoch.

        Raises NoSuchLayout.
        """
        if epoch is not None:
            return self._layout(epoch)
        cache = self.layout_cache
        if cache.newest is None:
            last = self.view.get(row(self.group, Table.LAYOUT_EPOCH, SITE_TENANT))
            cache.newest = self._layout(read_number(last)) if last is not None else NO_LAYOUT
            cache.counted = frozenset(node.number for node in cache.newest.nodes if is_counted(node))
        return cache.newest

    def _layout(self, epoch: int) -> LayoutRecord:
        if epoch <= 0 or epoch > rows.NUMBER_MAX:
            raise NoSuchLayout("layout epochs begin at 1", epoch=epoch)
        data = self.view.get(row(self.group, Table.LAYOUTS, SITE_TENANT, number(epoch)))
        if data is None:
            raise NoSuchLayout(f"layout epoch {epoch} is unknown, or has retired", epoch=epoch)
        return rows.layout(data)

    def layouts(self) -> list[LayoutRecord]:
        """All that have not retired, oldest first."""
        return [rows.layout(value) for _, value in self._table(Table.LAYOUTS)]

    def placement(self, epoch: int | None = None) -> Placement:
        """The owners under the newest layout, or under that of an epoch. Raises NoSuchLayout."""
        if epoch is None:
            epoch = self.layout().epoch
        kept = self.layout_cache.placements
        found = kept.get(epoch)
        if found is None:
            newest = self.layout()
            found = Placement(newest if epoch == newest.epoch else self._layout(epoch))
            if len(kept) >= PLACEMENTS_KEPT_MAX:
                del kept[next(iter(kept))]
            kept[epoch] = found
        return found

    def counted_nodes(self) -> frozenset[int]:
        """The nodes whose fragments count for an acknowledgement now (rule 1)."""
        self.layout()
        return self.layout_cache.counted

    def extents_under(self, epoch: int) -> int:
        """How many extents were written or placed under an epoch; those of epoch 1 are not counted."""
        data = self.view.get(row(self.group, Table.LAYOUT_EXTENTS, SITE_TENANT, number(epoch)))
        return read_number(data) if data is not None else 0

    def settings(self) -> SiteSettings:
        """What the operator chose."""
        cache = self.layout_cache
        if cache.settings is None:
            data = self.view.get(row(self.group, Table.SETTINGS, SITE_TENANT))
            cache.settings = rows.settings(data) if data is not None else SiteSettings()
        return cache.settings

    def token(self, token_id: bytes) -> rows.TokenRecord | None:
        """A join token, whether it can still be used or not."""
        data = self.view.get(row(self.group, Table.TOKENS, SITE_TENANT, token_id))
        return rows.token(data) if data is not None else None

    def tokens(self) -> list[rows.TokenRecord]:
        """All join tokens that are remembered."""
        return [rows.token(value) for _, value in self._table(Table.TOKENS)]

    def authority(self) -> rows.AuthorityRecord | None:
        """The site's certificate authority; None: it has none yet."""
        data = self.view.get(row(self.group, Table.AUTHORITY, SITE_TENANT))
        return rows.authority(data) if data is not None else None

    def degraded(self, limit: int, after: bytes = b"") -> list[tuple[int, ExtentRecord]]:
        """(tenant, extent) of extents with missing fragments or exceptions, by id, those behind the id `after`."""
        prefix = row(self.group, Table.DEGRADED, SITE_TENANT)
        found = []
        for key, value in islice(self.view.scan(prefix + after + b"\0" * bool(after), successor(prefix)), limit):
            tenant = int.from_bytes(value, "big")
            data = self.view.get(row(self.group, Table.EXTENTS, tenant, key[PREFIX_BYTES:]))
            if data is not None:
                found.append((tenant, rows.extent(data)))
        return found

    def extents_older_than(self, epoch: int, after: bytes, limit: int) -> ExtentPage:
        """Those of the next `limit` extents behind the cursor `after` (empty: from the first) that were placed under an
        older epoch. A page may be empty and yet not the last."""
        page = self.all_extents(after, limit)
        return ExtentPage([one for one in page.extents if one[1].layout_epoch < epoch], page.after)

    def all_extents(self, after: bytes, limit: int) -> ExtentPage:
        """The next `limit` extents behind the cursor `after` (empty: from the first)."""
        start = row(self.group, Table.EXTENTS, 0)[: PREFIX_BYTES - TENANT_BYTES]
        found = list(islice(self.view.scan(start + after + b"\0" * bool(after), successor(start)), limit))
        extents = [
            (int.from_bytes(key[PREFIX_BYTES - TENANT_BYTES : PREFIX_BYTES], "big"), rows.extent(value))
            for key, value in found
        ]
        return ExtentPage(extents, found[-1][0][PREFIX_BYTES - TENANT_BYTES :] if len(found) == limit else b"")

    def _table(self, table: Table) -> Iterator[tuple[bytes, bytes]]:
        prefix = row(self.group, table, SITE_TENANT)
        return self.view.scan(prefix, successor(prefix))
