"""A site of several nodes on a sorted dict: short ways to its commands."""

from __future__ import annotations

from hashlib import sha256

from edgestore.catalog import commands
from edgestore.placement import Scheme
from edgestore.records import ExtentRecord, NodeRecord, NodeState
from tests.unit.catalog.site import OWNER, Site

SECRET = sha256(b"secret").digest()
HOUR_MS = 3_600_000
PARITY = Scheme(2, 1, 1)


def member(number: int) -> str:
    """The member id of a node."""
    return f"{number:032x}"


def new_node(
    number: int, *, zone: str = "", capacity_gib: int = 100, level: int = 1, witness: bool = False
) -> commands.NewNode:
    """What node `number` says of itself."""
    digest = sha256(b"key %d" % number).digest()
    return commands.NewNode(
        member(number),
        f"10.0.0.{number}:7000",
        f"10.0.0.{number}:9000",
        zone,
        capacity_gib << 30,
        digest,
        b"start",
        level,
        0,
        witness,
    )


class NodeSite(Site):
    """`Site` with nodes 1 to `nodes`; writer `writer` belongs to node 1."""

    def __init__(self, nodes: int = 3, *, zones: str = "") -> None:
        super().__init__()
        self.tokens = 0
        self.do(commands.FoundNode(new_node(1, zone=zones[:1])))
        for number in range(2, nodes + 1):
            self.join(new_node(number, zone=zones[number - 1 : number]))
        self.writer = self.do(commands.RegisterWriter(member(1))).writer

    def token(self, ttl_ms: int = HOUR_MS) -> bytes:
        self.tokens += 1
        token_id = b"token%03d" % self.tokens
        self.do(commands.CreateToken(token_id, SECRET, ttl_ms))
        return token_id

    def join(self, node: commands.NewNode) -> NodeRecord:
        made: NodeRecord = self.do(commands.AddNode(node, self.token(), SECRET))
        return made

    def turn(self, number: int, state: NodeState) -> NodeRecord:
        made: NodeRecord = self.do(commands.SetNodeState(number, state, self.state.node(number).state))
        return made

    def spread(
        self,
        scheme: Scheme = PARITY,
        *,
        chunks: int = 1,
        epoch: int | None = None,
        exceptions: tuple[tuple[int, int, int], ...] = (),
        missing: tuple[tuple[int, int], ...] = (),
    ) -> commands.NewExtent:
        """A new extent with its fragments at their owners under an epoch, but for what is said otherwise."""
        plain = self.extent(chunks)
        epoch = self.state.layout().epoch if epoch is None else epoch
        return commands.NewExtent(
            plain.extent_id, plain.chunks, plain.size_bytes, scheme.k, scheme.m, epoch, scheme.t, exceptions, missing
        )

    def owners(self, extent: commands.NewExtent | ExtentRecord, position: int = 0) -> tuple[int, ...]:
        """Of one of its chunks, under its epoch."""
        placement = self.state.placement(extent.layout_epoch)
        return placement.owners(extent.chunks[position].chunk_id, extent.k + extent.m)

    def record(self, extent: commands.NewExtent) -> ExtentRecord:
        return self.record_of(extent.extent_id)

    def record_of(self, extent_id: bytes) -> ExtentRecord:
        found = self.state.extent(OWNER, extent_id)
        assert found is not None
        return found
