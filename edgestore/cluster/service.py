"""What operators see and do of a site: tokens, nodes, and how far from losing data it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from edgestore.catalog import commands
from edgestore.clock import Entropy
from edgestore.cluster.tokens import new_token, secret_digest
from edgestore.config import ClusterConfig
from edgestore.errors import BadRequest, Conflict, NotFound, Unavailable
from edgestore.meta import Meta
from edgestore.placement import default_scheme, scheme_for
from edgestore.records import SITE_TENANT, BucketRecord, NodeRecord, NodeState

DEGRADED_SHOWN_MAX = 10_000
LOOKS_MAX = 4
"""At what a removal would cost, where the layout changes meanwhile."""
NONE_LEFT = -1
"""The margin of content that cannot be read."""


class Progress(Protocol):
    """How far the site is from whole (`chunks.Progress`)."""

    @property
    def extents_left(self) -> int: ...
    @property
    def bytes_left(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def margin(self) -> int: ...
    @property
    def is_current(self) -> bool: ...


class Loss(Protocol):
    """What the removal of a node would cost (`chunks.Loss`)."""

    @property
    def epoch(self) -> int: ...
    @property
    def extents(self) -> int: ...


class Suspicion(Protocol):
    """Who does not answer just now."""

    def is_suspected(self, member: str) -> bool:
        """Whether others avoid it."""
        ...


@dataclass(slots=True)
class Site:
    """For `/-/admin/v1` and the command line. `authority_digest`: what tokens begin with."""

    meta: Meta
    config: ClusterConfig
    entropy: Entropy
    authority_digest: bytes
    suspicion: Suspicion | None = None
    repair: Callable[[], Progress] | None = None
    loss_without: Callable[[int], Awaitable[Loss]] | None = None

    async def create_token(self, ttl_ms: int) -> dict[str, Any]:
        """A token that lets one machine join. The site keeps a digest of it."""
        if not 0 < ttl_ms <= self.config.token_ttl_max_ms:
            raise BadRequest(f"a token lives from 1 to {self.config.token_ttl_max_ms} ms")
        token = new_token(self.authority_digest, self.entropy)
        row = await self.meta.propose(
            SITE_TENANT, commands.CreateToken(token.token_id, secret_digest(token.secret), ttl_ms)
        )
        return {"token": str(token), "id": token.token_id.hex(), "expires_ms": row.expires_ms}

    async def nodes(self) -> list[dict[str, Any]]:
        """Every node that was ever part of the site, removed ones too."""
        await self.meta.read_barrier()
        return self._rows()

    def _rows(self) -> list[dict[str, Any]]:
        status = self.meta.status()
        return [self._row(node, status.leader, status.voters) for node in self.meta.state.nodes()]

    def _row(self, node: NodeRecord, leader: str, voters: tuple[str, ...]) -> dict[str, Any]:
        return {
            "number": node.number,
            "member": node.member,
            "state": node.state.name.lower(),
            "zone": node.zone,
            "weight": node.weight,
            "quality": node.quality,
            "address": node.address,
            "s3": node.s3_address,
            "capacity_bytes": node.capacity_bytes,
            "witness": node.witness,
            "leader": node.member == leader,
            "voter": node.member in voters,
            "suspected": self.suspicion is not None and self.suspicion.is_suspected(node.member),
            "joined_ms": node.joined_ms,
        }

    async def set_state(self, number: int, state: str, *, force: bool = False) -> dict[str, Any]:
        """Drains or removes a node. `force`: also one without which content could not be read any more."""
        wanted = {"draining": NodeState.DRAINING, "removed": NodeState.REMOVED}[state]
        for looks_left in reversed(range(LOOKS_MAX)):
            node, epoch = await self._node(number), 0
            if wanted not in (node.state, NodeState.DRAINING) and not force and not node.witness:
                epoch = await self._check_loss(number)
            try:
                await self.meta.propose(SITE_TENANT, commands.SetNodeState(number, wanted, node.state, epoch))
                break
            except Conflict:
                if not looks_left or epoch in (0, self.meta.state.layout().epoch):
                    raise
        return await self._shown(number)

    async def _check_loss(self, number: int) -> int:
        """The layout epoch for which it is true that nothing needs the node. Raises Conflict."""
        if self.loss_without is None:
            return 0
        loss = await self.loss_without(number)
        if loss.extents:
            raise Conflict(
                f"{loss.extents} extents cannot be read without node {number}: drain it and wait for repair_left=0, or "
                "bring back the nodes that are down; --force removes it nevertheless, and what only it has is lost",
                extents=loss.extents,
            )
        return loss.epoch

    async def set_weight(self, number: int, weight: int) -> dict[str, Any]:
        """In GiB of capacity: its share of new data, and of what moves."""
        await self._node(number)
        await self.meta.propose(SITE_TENANT, commands.SetNodeWeight(number, weight))
        return await self._shown(number)

    async def _node(self, number: int) -> NodeRecord:
        await self.meta.read_barrier()
        for node in self.meta.state.nodes():
            if node.number == number:
                return node
        raise NotFound(f"the site has no node {number}: see `edgestore node list`")

    async def _shown(self, number: int) -> dict[str, Any]:
        return next(row for row in await self.nodes() if row["number"] == number)

    def redundancy(self, bucket: BucketRecord) -> str:
        """What a new object of the bucket gets now: `k+m` and how many losses it survives; or why it gets none."""
        state = self.meta.state
        try:
            scheme = scheme_for(bucket, state.layout(), state.settings())
        except Unavailable as error:
            return f"no writes: {error}"
        votes = (len(self.meta.status().voters) - 1) // 2
        return f"{scheme.k}+{scheme.m} t={min(scheme.t, votes)}"

    async def status(self) -> dict[str, Any]:
        """Of the site, as this node knows it: no barrier, so that it is told without a quorum too."""
        state, status = self.meta.state, self.meta.status()
        rows = self._rows()
        layout = state.layout()
        repair = self.repair() if self.repair is not None else None
        is_known = repair is not None and repair.is_current
        left = repair.extents_left if repair is not None else 0
        if not is_known:
            # A site that has not been looked at since something happened is not told to be whole.
            unseen = int(repair is not None and len(layout.nodes) > 1)
            left = max(left, unseen, len(state.degraded(DEGRADED_SHOWN_MAX)))
        leader = next((row["number"] for row in rows if row["leader"]), 0)
        zones = sorted({row["zone"] for row in rows if row["zone"] and row["state"] != "removed"})
        return {
            "site_id": state.site().site_id.hex(),
            "authority": self.authority_digest.hex(),
            "epoch": layout.epoch,
            "leader": leader,
            "zones": zones,
            "incarnation": status.incarnation,
            "feature_level": state.site().feature_level,
            "repair_left": left,
            "repair_left_bytes": repair.bytes_left if repair is not None else 0,
            "unreadable": repair.lost if repair is not None else 0,
            "distance": distance(rows, left, repair if is_known else None),
            "nodes": rows,
        }


def distance(rows: list[dict[str, Any]], left: int, repair: Progress | None) -> str:
    """How many more nodes may be lost, in one line: for the content by what repair has found (while that is not known,
    by the scheme of the site's size), for the catalog by its voters."""
    storage = [row for row in rows if row["state"] in ("up", "draining", "down") and not row["witness"]]
    if repair is not None and repair.margin >= NONE_LEFT:
        content = repair.margin - sum(row["state"] != "down" and row["suspected"] for row in storage)
    else:
        away = sum(row["state"] == "down" or row["suspected"] for row in storage)
        content = default_scheme(max(1, len(storage))).m - away - (1 if left and not away else 0)
    content = max(0, content)
    voters = [row for row in rows if row["voter"]]
    lost = sum(row["state"] == "down" or row["suspected"] for row in voters)
    catalog = max(0, (len(voters) - 1) // 2 - lost)
    least = min(content, catalog) if len(storage) > 1 else 0
    names = "no more node" if not least else f"any {least} more node{'s' if least > 1 else ''}"
    rest = f"; {left} extents are being repaired" if left else ""
    if repair is not None and repair.lost:
        rest += f"; {repair.lost} cannot be read until a node comes back"
    return f"survives the loss of {names} (content {content}, catalog {catalog}){rest}"
