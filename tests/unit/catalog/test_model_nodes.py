"""Random nodes that come, go and change while extents are written, placed and swapped: outcomes are those of a dumb
model, rows never contradict each other, and the same entries make the same rows again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgestore.catalog import Applier, commands
from edgestore.errors import Conflict, EdgeStoreError, MemberRemoved, NoSuchNode, StaleExtent, StaleFragments
from edgestore.placement import Placement, Scheme
from edgestore.records import ChunkRef, LayoutRecord, NodeState
from tests.unit.catalog.audit import audit
from tests.unit.catalog.nodes import SECRET, NodeSite, member, new_node
from tests.unit.catalog.site import OWNER, MemoryStore

SCHEMES = st.sampled_from([Scheme(1, 0, 0), Scheme(1, 1, 1), Scheme(2, 1, 1), Scheme(2, 2, 1), Scheme(2, 2, 2)])
PICK = st.integers(0, 1_000_000)
NODES_MAX = 7
COUNTS = (NodeState.UP, NodeState.DRAINING)
GONE = (NodeState.REMOVED, NodeState.QUARANTINED)


@dataclass
class Node:
    number: int
    state: NodeState = NodeState.UP
    drains: bool = False


@dataclass
class Extent:
    """`held`: who is known to hold a shard; one chunk each."""

    chunk: ChunkRef
    extent_id: bytes
    count: int
    held: dict[int, int]
    generation: int = 0
    revision: int = 0


@dataclass
class Model:
    nodes: dict[int, Node] = field(default_factory=dict)
    epoch: int = 1
    balance_epoch: int = 1
    layouts: dict[int, LayoutRecord] = field(default_factory=dict)
    """Taken from the catalog: what placement makes of them has tests of its own."""

    def change(self, balances: bool) -> None:
        self.epoch += 1
        if balances:
            self.balance_epoch = self.epoch

    def turn(self, number: int, state: NodeState) -> type[EdgeStoreError] | NodeState:
        node = self.nodes.get(number)
        if node is None:
            return NoSuchNode
        if state is node.state:
            return state
        if node.state is NodeState.REMOVED or (node.state is NodeState.QUARANTINED and state is not NodeState.REMOVED):
            return Conflict
        staying = [one for one in self.nodes.values() if one.state not in GONE and one is not node]
        if state is NodeState.REMOVED and not staying:
            return Conflict
        before = (node.state, node.drains)
        if state is NodeState.DRAINING:
            node.drains = True
            node.state = NodeState.DOWN if node.state is NodeState.DOWN else state
        elif state is NodeState.UP and node.state is NodeState.DRAINING:
            node.drains, node.state = False, state
        elif state is NodeState.UP and node.drains:
            node.state = NodeState.DRAINING
        else:
            node.state = state
        if (node.state, node.drains) != before:
            self.change(state is NodeState.REMOVED or node.drains != before[1])
        return node.state

    def counts(self, holder: int) -> bool:
        return holder in self.nodes and self.nodes[holder].state in COUNTS

    def may_hold(self, holder: int) -> bool:
        return holder in self.nodes and self.nodes[holder].state in {*COUNTS, NodeState.DOWN}


class NodesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.site = NodeSite(4)
        self.bucket = self.site.bucket()
        self.model = Model({number: Node(number) for number in range(1, 5)}, 4, 4)
        self.extents: list[Extent] = []
        self.keep_layout()

    def keep_layout(self) -> None:
        layout = self.site.state.layout()
        assert (layout.epoch, layout.balance_epoch) == (self.model.epoch, self.model.balance_epoch)
        assert {node.number: node.state for node in layout.nodes} == {
            node.number: node.state for node in self.model.nodes.values()
        }
        self.model.layouts[layout.epoch] = layout

    def do(self, command: commands.Command) -> Any:
        (outcome,) = self.site.all(command)
        return outcome

    @precondition(lambda self: len(self.model.nodes) < NODES_MAX)
    @rule(zone=st.sampled_from(["", "a", "b"]))
    def join(self, zone: str) -> None:
        number = len(self.model.nodes) + 1
        outcome = self.do(commands.AddNode(new_node(number, zone=zone), self.site.token(), SECRET))
        assert outcome.number == number
        self.model.nodes[number] = Node(number)
        self.model.change(balances=True)
        self.keep_layout()

    @rule(
        number=st.integers(1, NODES_MAX),
        state=st.sampled_from([NodeState.UP] * 4 + [NodeState.DOWN] * 3 + list(NodeState)),
    )
    def turn(self, number: int, state: NodeState) -> None:
        node = self.model.nodes.get(number)
        expected_state = node.state if node is not None else NodeState.UP
        if state is NodeState.QUARANTINED:
            outcome = self.do(commands.QuarantineMember(member(number)))
            told = self.model.turn(number, state) if expected_state not in GONE else expected_state
        else:
            outcome = self.do(commands.SetNodeState(number, state, expected_state))
            told = self.model.turn(number, state)
        assert (type(outcome) if isinstance(outcome, EdgeStoreError) else outcome.state) == told
        self.keep_layout()
        writer = self.do(commands.RegisterWriter(member(1)))
        self.site.writer = writer.writer

    @rule(number=st.integers(1, NODES_MAX), quality=st.sampled_from([1, 60, 100]))
    def set_quality(self, number: int, quality: int) -> None:
        before = self.site.state.nodes()
        outcome = self.do(commands.SetNodeQuality(number, quality))
        if number not in self.model.nodes:
            assert isinstance(outcome, NoSuchNode)
        elif before[number - 1].quality != quality:
            self.model.change(balances=False)
        self.keep_layout()

    @rule(number=st.integers(1, NODES_MAX))
    def start(self, number: int) -> None:
        outcome = self.do(commands.UpdateNode(member(number), address="elsewhere"))
        node = self.model.nodes.get(number)
        if node is None:
            assert isinstance(outcome, NoSuchNode)
        else:
            assert isinstance(outcome, MemberRemoved) == (node.state in GONE)
        self.keep_layout()

    def wanted(self, pick: int, chunk: ChunkRef, count: int) -> tuple[int, dict[int, int], Any, Any]:
        """(epoch, who holds which shard, exceptions, missing) as a gateway could say it."""
        epoch = max(1, self.model.epoch - pick % 4 // 3)
        layout = self.model.layouts.get(epoch, self.model.layouts[self.model.epoch])
        owners = Placement(layout).owners(chunk.chunk_id, count)
        held, exceptions, missing = {}, [], []
        for shard, owner in enumerate(owners):
            dice = (pick * 2_654_435_761 >> (5 * shard + 7)) % 24
            if dice == 0:
                missing.append((0, shard))
                continue
            holder = dice if dice <= len(self.model.nodes) and dice < 3 else owner
            held[shard] = holder
            if holder != owner:
                exceptions.append((0, shard, holder))
        return layout.epoch, held, tuple(exceptions), tuple(missing)

    def judged(self, epoch: int, held: dict[int, int], needed: int, *, holding: bool = False) -> dict[int, int] | None:
        """What the catalog should record; None: it should refuse. `holding`: what is down counts too."""
        if epoch < self.model.balance_epoch:
            return None
        good = self.model.may_hold if holding else self.model.counts
        counted = {shard: holder for shard, holder in held.items() if good(holder)}
        return counted if len(set(counted.values())) >= needed else None

    @rule(pick=PICK, scheme=SCHEMES)
    def put(self, pick: int, scheme: Scheme) -> None:
        chunk = self.site.chunk()
        epoch, held, exceptions, missing = self.wanted(pick, chunk, scheme.count)
        new = commands.NewExtent(
            chunk.chunk_id, (chunk,), chunk.size_bytes, scheme.k, scheme.m, epoch, scheme.t, exceptions, missing
        )
        content = self.site.content(new)
        outcome = self.do(commands.PutObject(self.bucket.bucket_id, chunk.chunk_id.hex(), OWNER, 0, content))
        recorded = self.judged(epoch, held, scheme.needed)
        assert isinstance(outcome, StaleFragments) == (recorded is None)
        if recorded is not None:
            self.extents.append(Extent(chunk, chunk.chunk_id, scheme.count, recorded))

    @rule(pick=PICK)
    def put_more(self, pick: int) -> None:
        for more in range(3):
            self.put(pick + more, Scheme(1, 1, 1))

    @precondition(lambda self: self.extents)
    @rule(pick=PICK, stale=st.integers(0, 5))
    def place(self, pick: int, stale: int) -> None:
        extent = self.extents[pick % len(self.extents)]
        epoch, held, exceptions, missing = self.wanted(pick, extent.chunk, extent.count)
        outcome = self.do(
            commands.PlaceExtent(
                OWNER,
                extent.extent_id,
                extent.generation + (stale == 1),
                extent.revision + (stale == 2),
                epoch,
                exceptions,
                missing,
            )
        )
        recorded = self.judged(epoch, held, 0, holding=True)
        if stale in (1, 2):
            assert isinstance(outcome, StaleExtent)
        elif recorded is None:
            assert isinstance(outcome, StaleFragments)
        else:
            extent.held, extent.revision = recorded, extent.revision + 1

    @precondition(lambda self: self.extents)
    @rule(pick=PICK, scheme=SCHEMES)
    def swap(self, pick: int, scheme: Scheme) -> None:
        extent, chunk = self.extents[pick % len(self.extents)], self.site.chunk()
        epoch, held, exceptions, missing = self.wanted(pick, chunk, scheme.count)
        outcome = self.do(
            commands.SwapExtent(
                OWNER,
                extent.extent_id,
                extent.generation,
                extent.revision,
                (chunk,),
                scheme.k,
                scheme.m,
                scheme.t,
                epoch,
                exceptions,
                missing,
            )
        )
        recorded = self.judged(epoch, held, scheme.needed)
        assert isinstance(outcome, StaleFragments) == (recorded is None)
        if recorded is not None:
            assert self.site.state.is_condemned(extent.chunk.chunk_id)
            extent.chunk, extent.count, extent.held = chunk, scheme.count, recorded
            extent.generation, extent.revision = extent.generation + 1, extent.revision + 1

    @precondition(lambda self: self.extents)
    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        extent = self.extents.pop(pick % len(self.extents))
        self.site.delete(self.bucket, extent.extent_id.hex())

    @rule(behind=st.integers(0, 3))
    def retire(self, behind: int) -> None:
        before = self.model.epoch - behind
        self.do(commands.RetireLayouts(before))
        left = {layout.epoch for layout in self.site.state.layouts()}
        needed = {self.site.record_of(extent.extent_id).layout_epoch for extent in self.extents}
        assert left >= needed | {1, self.model.epoch}
        assert not {epoch for epoch in left - needed - {1, self.model.epoch} if epoch < before}
        self.model.layouts = {epoch: layout for epoch, layout in self.model.layouts.items() if epoch in left}

    @rule()
    def restart(self) -> None:
        self.site.reopen()

    @invariant()
    def records_say_who_holds_what(self) -> None:
        audit(self.site.store)
        state = self.site.state
        for extent in self.extents:
            record = self.site.record_of(extent.extent_id)
            owners = state.placement(record.layout_epoch).owners(extent.chunk.chunk_id, extent.count)
            held = {shard: owner for shard, owner in enumerate(owners) if (0, shard) not in record.missing}
            held |= {shard: holder for _, shard, holder in record.exceptions}
            assert held == extent.held
            assert (record.generation, record.revision) == (extent.generation, extent.revision)

    def teardown(self) -> None:
        store = MemoryStore()
        applier = Applier(store)
        for index, entry in enumerate(self.site.entries, 1):
            applier.apply(index, 1, entry)
        assert dict(store.rows) == dict(self.site.store.rows)


NodesMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestNodesAreTheModel = NodesMachine.TestCase
