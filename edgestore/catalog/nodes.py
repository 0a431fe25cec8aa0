"""Commands on nodes and layouts. Who may take new data, and how much, changes with a new epoch in the same command.

Rule: a member that was removed or put in quarantine never counts again; its row stays, and says so.
"""

from __future__ import annotations

from itertools import islice

from msgspec.structs import replace

from edgestore.catalog import commands, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import PREFIX_BYTES, Table, number, read_number, row
from edgestore.catalog.tokens import use_token
from edgestore.catalog.writers import close_writers
from edgestore.errors import BadRequest, Conflict, MemberRemoved, NoSuchNode, NotSupported
from edgestore.records import SHUT_OUT, SITE_TENANT, LayoutNode, LayoutRecord, NodeRecord, NodeState

NODES_MAX = 64
"""Of one site, those that were removed not counted."""
REMOVED_IN_LAYOUT_MAX = 64
"""So many of those that were removed last still shape the layout: their going moved their own fragments only."""
LAYOUTS_RETIRED_AT_ONCE_MAX = 256
WEIGHT_MAX = 1 << 32
_GIB_BITS = 30
_MEMBER_HEX = 32
_CLOSES_WRITERS = (NodeState.DOWN, *SHUT_OUT)

_NEXT: dict[NodeState, frozenset[NodeState]] = {
    NodeState.UP: frozenset((NodeState.DOWN, NodeState.DRAINING, *SHUT_OUT)),
    NodeState.DOWN: frozenset((NodeState.UP, NodeState.DRAINING, *SHUT_OUT)),
    NodeState.DRAINING: frozenset((NodeState.UP, NodeState.DOWN, *SHUT_OUT)),
    NodeState.QUARANTINED: frozenset((NodeState.REMOVED,)),
    NodeState.REMOVED: frozenset(),
}


def found_node(context: Context, command: commands.FoundNode) -> NodeRecord:
    """The lone member is node 1 of epoch 1: what it wrote before lies where that epoch says."""
    known = context.state.node_of(command.node.member)
    if known is not None:
        return known
    if context.state.nodes():
        raise Conflict("the site has nodes already: join it with a token")
    record = _new_node(context, command.node, context.state.layout().epoch)
    _put_node(context, record)
    _put_layout(context, LayoutRecord(1, (_in_layout(record),), 1))
    return record


def add_node(context: Context, command: commands.AddNode) -> NodeRecord:
    """A member joins with a token, and data moves to it."""
    known = context.state.node_of(command.node.member)
    if known is not None:
        return _known_node(context, command, known)
    live = [node for node in context.state.nodes() if node.state is not NodeState.REMOVED]
    if not live:
        raise Conflict("the site is not founded as one of nodes yet: start its first node with an address for others")
    if len(live) >= NODES_MAX:
        raise Conflict("the site has its maximum of nodes", nodes_max=NODES_MAX)
    _check_level(context, command.node.feature_level)
    use_token(context, command.token_id, command.secret_digest, command.node.member)
    record = _new_node(context, command.node, context.state.layout().epoch + 1)
    _change(context, None, record, balances=not record.witness)
    return record


def _known_node(context: Context, command: commands.AddNode, known: NodeRecord) -> NodeRecord:
    """Who lost the answer gets it again; who pretends to be another does not."""
    _check_stays(known)
    if known.key_digest != command.node.key_digest:
        raise Conflict("the member id belongs to a node with another key: join with an empty data folder")
    use_token(context, command.token_id, command.secret_digest, command.node.member)
    return known


def _new_node(context: Context, new: commands.NewNode, epoch: int) -> NodeRecord:
    weight = new.weight or max(1, new.capacity_bytes >> _GIB_BITS)
    if len(new.member) != _MEMBER_HEX or not 0 < weight <= WEIGHT_MAX or new.capacity_bytes < 0:
        raise BadRequest("a node has a member id of 32 hex digits and a positive weight")
    taken = context.site.next_node
    context.site = replace(context.site, next_node=taken + 1)
    return NodeRecord(
        number=taken,
        member=new.member,
        address=new.address,
        s3_address=new.s3_address,
        zone=new.zone,
        capacity_bytes=new.capacity_bytes,
        weight=weight,
        witness=new.witness,
        feature_level=new.feature_level,
        key_digest=new.key_digest,
        joined_ms=context.log_time_ms,
        start_nonce=new.start_nonce,
        joined_epoch=epoch,
        state_epoch=epoch,
    )


def _check_level(context: Context, level: int) -> None:
    if level < context.site.feature_level:
        raise NotSupported(
            f"the site needs feature level {context.site.feature_level} and the node knows {level}: upgrade it first",
            feature_level=context.site.feature_level,
        )


def _check_stays(record: NodeRecord) -> None:
    if record.state in SHUT_OUT:
        is_copied = record.state is NodeState.QUARANTINED
        why = "runs twice and is in quarantine: its folder was copied" if is_copied else "was removed"
        raise MemberRemoved(f"node {record.number} {why}: join again with an empty data folder", node=record.number)


def update_node(context: Context, command: commands.UpdateNode) -> NodeRecord:
    """What a start of a member says."""
    record = context.state.node_of(command.member)
    if record is None:
        raise NoSuchNode("the member never joined this site", member=command.member)
    _check_stays(record)
    if command.feature_level is not None:
        _check_level(context, command.feature_level)
    names = ("address", "s3_address", "capacity_bytes", "feature_level", "start_nonce", "zone")
    given = {name: value for name in names if (value := getattr(command, name)) is not None}
    return _change(context, record, replace(record, **given), balances=not record.witness)


def set_node_state(context: Context, command: commands.SetNodeState) -> NodeRecord:
    """See commands.SetNodeState."""
    record = context.state.node(command.number)
    if record.state is not command.expected:
        raise Conflict(f"node {record.number} is {record.state.name} by now: look again", node=record.number)
    if command.state is record.state:
        return record
    if command.layout_epoch not in (0, context.state.layout().epoch):
        raise Conflict("the site has changed since it was looked at: look again", node=record.number)
    if command.state not in _NEXT[record.state]:
        raise Conflict(f"a node that is {record.state.name} cannot become {command.state.name}", node=record.number)
    if command.state is NodeState.REMOVED:
        _check_others_stay(context, record)
    return _move_to(context, record, command.state)


def _move_to(context: Context, record: NodeRecord, state: NodeState) -> NodeRecord:
    drains = record.drains
    if state is NodeState.DRAINING:
        drains = True
        state = NodeState.DOWN if record.state is NodeState.DOWN else state
    elif state is NodeState.UP and record.state is NodeState.DRAINING:
        drains = False
    elif state is NodeState.UP and drains:
        state = NodeState.DRAINING
    down_since_ms = record.down_since_ms if state is record.state else 0
    if state is NodeState.DOWN and not down_since_ms:
        down_since_ms = context.log_time_ms
    moved = replace(record, state=state, drains=drains, down_since_ms=down_since_ms)
    if state in _CLOSES_WRITERS:
        close_writers(context, record.member)
    leaves_or_stays = state is NodeState.REMOVED or drains != record.drains
    balances = leaves_or_stays and not record.witness
    return _change(context, record, moved, balances=balances)


def _check_others_stay(context: Context, record: NodeRecord) -> None:
    others = (node for node in context.state.nodes() if node.number != record.number and node.state not in SHUT_OUT)
    if not record.witness and all(node.witness for node in others):
        raise Conflict("the last storage node of a site cannot be removed", node=record.number)


def quarantine_member(context: Context, command: commands.QuarantineMember) -> NodeRecord:
    """Whatever state it was in."""
    record = context.state.node_of(command.member)
    if record is None:
        raise NoSuchNode("the member never joined this site", member=command.member)
    if record.state in SHUT_OUT:
        return record
    return _move_to(context, record, NodeState.QUARANTINED)


def set_node_weight(context: Context, command: commands.SetNodeWeight) -> NodeRecord:
    """Data moves to the new shares."""
    if not 0 < command.weight <= WEIGHT_MAX:
        raise BadRequest("a weight is a positive number of 32 bits", weight=command.weight)
    record = context.state.node(command.number)
    if record.state in SHUT_OUT:
        raise Conflict(f"node {record.number} is {record.state.name}, and has no share any more", node=record.number)
    return _change(context, record, replace(record, weight=command.weight), balances=not record.witness)


def set_node_quality(context: Context, command: commands.SetNodeQuality) -> NodeRecord:
    """Quality shapes new data only."""
    if not 1 <= command.quality <= 100:
        raise BadRequest("a quality is 1 to 100", quality=command.quality)
    record = context.state.node(command.number)
    return _change(context, record, replace(record, quality=command.quality), balances=False)


def _in_layout(record: NodeRecord) -> LayoutNode:
    return LayoutNode(
        record.number,
        record.weight,
        record.zone,
        record.state,
        record.quality,
        record.witness,
        record.joined_epoch,
        record.state_epoch,
    )


def _put_node(context: Context, record: NodeRecord) -> None:
    context.put(Table.NODES, SITE_TENANT, number(record.number), rows.encode(record))
    context.put(Table.MEMBERS, SITE_TENANT, record.member.encode(), number(record.number))
    context.changed_tables.add(Table.NODES)


def _change(context: Context, before: NodeRecord | None, after: NodeRecord, *, balances: bool) -> NodeRecord:
    """Writes a node, and a new layout where it differs in what placement knows."""
    newest = context.state.layout()
    if before is not None and before.state is not after.state:
        after = replace(after, state_epoch=newest.epoch + 1)
    if before != after:
        _put_node(context, after)
    if before is not None and _in_layout(before) == _in_layout(after) and before.drains == after.drains:
        return after
    epoch = newest.epoch + 1
    nodes = context.state.nodes()
    gone = sorted((node.state_epoch, node.number) for node in nodes if node.state is NodeState.REMOVED)
    faded = {one for _, one in gone[:-REMOVED_IN_LAYOUT_MAX]}
    listed = tuple(_in_layout(node) for node in nodes if node.number not in faded)
    _put_layout(context, LayoutRecord(epoch, listed, epoch if balances else newest.balance_epoch))
    return after


def _put_layout(context: Context, layout: LayoutRecord) -> None:
    context.put(Table.LAYOUTS, SITE_TENANT, number(layout.epoch), rows.encode(layout))
    context.put(Table.LAYOUT_EPOCH, SITE_TENANT, b"", number(layout.epoch))
    context.change_layout(Table.LAYOUTS)


def retire_layouts(context: Context, command: commands.RetireLayouts) -> list[int]:
    """Those that no extent needs. The newest stays, and epoch 1, whose extents are not counted."""
    newest = context.state.layout()
    prefix = row(context.group, Table.LAYOUTS, SITE_TENANT)
    stop = prefix + number(max(min(command.before_epoch, newest.epoch), 2))
    epochs = [read_number(key[PREFIX_BYTES:]) for key, _ in context.transaction.scan(prefix + number(2), stop)]
    retired = list(islice((e for e in epochs if not context.state.extents_under(e)), LAYOUTS_RETIRED_AT_ONCE_MAX))
    for epoch in retired:
        context.delete(Table.LAYOUTS, SITE_TENANT, number(epoch))
    if retired:
        context.change_layout(Table.LAYOUTS)
    return retired


def raise_feature_level(context: Context, command: commands.RaiseFeatureLevel) -> int:
    """Only when every node knows it, those that are down too."""
    if command.level > context.site.feature_level:
        nodes = [node for node in context.state.nodes() if node.state not in SHUT_OUT]
        behind = [node.number for node in nodes if node.feature_level < command.level]
        if behind or not nodes:
            raise Conflict(f"not every node knows feature level {command.level}: upgrade {behind}")
        context.site = replace(context.site, feature_level=command.level)
    return context.site.feature_level
