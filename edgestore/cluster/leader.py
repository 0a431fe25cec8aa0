"""Carries out what `control` decides, on whichever node leads group 0.

Rule: only a leader that may read without waiting looks at the site; each decision is under way at most once, and one
that fails is decided anew from what the site then looks like.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from edgestore.catalog import State, Table, commands
from edgestore.cluster.control import ChangeVoters, Control, Decision, HandOver, SiteView, StepLogTime
from edgestore.cluster.detector import Detector
from edgestore.cluster.members import Standing
from edgestore.config import ClusterConfig
from edgestore.errors import EdgeStoreError
from edgestore.observe import Metrics
from edgestore.records import SHUT_OUT, SITE_TENANT, Member, NodeRecord

log = logging.getLogger("edgestore.cluster")

DECISIONS_MAX = 32
"""Under way at a time."""
DECISION_TIMEOUT_S = 10.0
AWAKE_RESTS = 3
"""So many times `control_rest_ms` it goes on to look often."""
CONDEMNED_INTERVAL_MS = 1000
CONDEMNED_MAX = 1024
LAYOUTS_INTERVAL_MS = 60_000
TOLD_MAX = 16
"""Of a longer sequence the log says the length."""


class GroupStatus(Protocol):
    """What the leader reads of where its group stands (`ConsensusStatus`)."""

    @property
    def is_leader(self) -> bool:
        """Whether this member leads."""
        ...

    @property
    def term(self) -> int:
        """Of its leader."""
        ...

    @property
    def incarnation(self) -> int:
        """Of its members (rule 4)."""
        ...

    @property
    def voters(self) -> tuple[str, ...]:
        """Of this incarnation."""
        ...

    @property
    def applied_index(self) -> int:
        """What `state` contains."""
        ...


class SiteGroup(Protocol):
    """What the leader needs of the catalog's group (`Meta`)."""

    @property
    def state(self) -> State:
        """The applied state."""
        ...

    def status(self) -> GroupStatus:
        """Where the group stands."""
        ...

    def can_read_now(self) -> bool:
        """Whether this node leads and its state may be read without waiting."""
        ...

    def log_time_ms(self) -> int:
        """Log time now."""
        ...

    def watch(self, tables: Iterable[Table], changed: Callable[[int], None]) -> Callable[[], None]:
        """Calls back when rows of these tables have changed; returns what ends that."""
        ...

    def on_role_changed(self, changed: Callable[[], None]) -> None:
        """Calls back when another leads, or others vote."""
        ...

    async def propose(self, tenant: int, command: commands.Command) -> Any:
        """Applied, or an error."""
        ...

    async def step_log_time(self, to_ms: int) -> None:
        """Sets log time forward."""
        ...

    async def change_members(self, members: tuple[Member, ...]) -> None:
        """Names the next voters."""
        ...

    def yield_leadership(self, to: tuple[str, ...]) -> bool:
        """Hands the leadership to one of these that has caught up; False where none has just now."""
        ...


class Leader:
    """`run` on every node; it does nothing where the node does not lead. It looks when something has happened and for a
    while after, and else so seldom that an idle node sleeps. `margin`: see `SiteView`."""

    def __init__(
        self,
        group: SiteGroup,
        detector: Detector,
        config: ClusterConfig,
        metrics: Metrics,
        margin: Callable[[], int],
    ) -> None:
        self._margin = margin
        self._group, self._detector, self._config, self._metrics = group, detector, config, metrics
        self._control: Control | None = None
        self._term: tuple[int, int] = (0, 0)
        self._under_way: dict[object, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._awake_until_ms = 0.0
        self._nodes: list[NodeRecord] | None = None
        self._watched: tuple[str, ...] | None = None
        """Whose votes count are watched to the end: one that was removed may be needed to agree on its own going."""
        self._condemned_ms = self._layouts_ms = 0.0
        self._condemned_after = b""

    async def run(self) -> None:
        """Until cancelled. Follows the table of nodes on every node: the detector watches whom the catalog names."""
        unwatch = self._group.watch((Table.NODES, Table.LAYOUTS, Table.SETTINGS), self._changed)
        self._detector.on_changed(self._noticed)
        self._group.on_role_changed(self._happened)
        self._happened()
        try:
            while True:
                looked_ms = self._detector.now_ms()
                if self._wake.is_set():
                    self._wake.clear()
                    self._stay_awake(looked_ms)
                try:
                    self._look(looked_ms)
                except Exception:
                    log.exception("looking-failed")
                    self._metrics.count("cluster_looks_failed_total")
                is_awake = self._detector.now_ms() < self._awake_until_ms
                interval_ms = self._config.control_interval_ms if is_awake else self._config.control_rest_ms
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval_ms / 1000):
                        await self._wake.wait()
                    await asyncio.sleep(0)
                late_ms = self._detector.now_ms() - looked_ms - interval_ms
                if late_ms > self._config.stall_ms and self._control is not None:
                    self._control.was_stalled(self._detector.now_ms())
        finally:
            unwatch()
            for task in self._under_way.values():
                task.cancel()

    def _changed(self, _index: int) -> None:
        self._nodes = None
        self._happened()

    def _noticed(self, _member: str, standing: Standing) -> None:
        if standing is not Standing.SUSPECTED:
            self._happened()

    def _happened(self) -> None:
        self._wake.set()

    def _stay_awake(self, now_ms: float) -> None:
        self._awake_until_ms = now_ms + AWAKE_RESTS * self._config.control_rest_ms

    def _look(self, now_ms: float) -> None:
        if self._nodes is None:
            self._nodes = self._group.state.nodes()
            self._watched = None
        status = self._group.status()
        if self._watched != status.voters:
            self._watched = status.voters
            self._detector.set_members(
                node.member for node in self._nodes if node.state not in SHUT_OUT or node.member in status.voters
            )
        if not status.is_leader:
            self._control = None
            return
        term = (status.incarnation, status.term)
        if self._control is None or self._term != term:
            self._control, self._term = Control(self._config, now_ms), term
        if not self._group.can_read_now():
            self._stay_awake(now_ms)
            return
        for decision in self._control.decide(self._view(status, now_ms), now_ms):
            self._carry_out(decision)

    def _view(self, status: GroupStatus, now_ms: float) -> SiteView:
        state = self._group.state
        layout = state.layout()
        condemned: list[tuple[bytes, int]] = []
        if self._condemned_after or now_ms - self._condemned_ms >= CONDEMNED_INTERVAL_MS:
            # Page by page, or those that a reader still pins would hide the others.
            self._condemned_ms, condemned = now_ms, state.condemned(CONDEMNED_MAX, self._condemned_after)
            self._condemned_after = condemned[-1][0] if len(condemned) == CONDEMNED_MAX else b""
        layouts: list[tuple[int, int]] = []
        if now_ms - self._layouts_ms >= LAYOUTS_INTERVAL_MS:
            self._layouts_ms = now_ms
            layouts = [(old.epoch, state.extents_under(old.epoch)) for old in state.layouts()]
        return SiteView(
            own=self._detector.member,
            nodes=self._nodes or [],
            settings=state.settings(),
            standings=self._detector.standings(),
            statuses=self._detector.statuses(),
            voters=status.voters,
            applied_index=status.applied_index,
            feature_level=state.site().feature_level,
            log_time_ms=self._group.log_time_ms(),
            epoch=layout.epoch,
            balance_epoch=layout.balance_epoch,
            layouts=layouts,
            condemned=condemned,
            contested=self._detector.contested(),
            margin=self._margin(),
        )

    def _carry_out(self, decision: Decision) -> None:
        key = subject(decision)
        if key in self._under_way or len(self._under_way) >= DECISIONS_MAX:
            return
        self._metrics.count("cluster_decisions_total")
        self._stay_awake(self._detector.now_ms())
        task = asyncio.get_running_loop().create_task(self._do(decision))
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key, None))

    async def _do(self, decision: Decision) -> None:
        try:
            async with asyncio.timeout(DECISION_TIMEOUT_S):
                if isinstance(decision, ChangeVoters):
                    await self._group.change_members(self._members(decision.members))
                elif isinstance(decision, StepLogTime):
                    await self._group.step_log_time(decision.to_ms)
                elif isinstance(decision, HandOver):
                    if not self._group.yield_leadership(decision.to):
                        return  # the next look tries it again
                else:
                    await self._group.propose(SITE_TENANT, decision)
            log.info("decided %s", told(decision))
        except (EdgeStoreError, TimeoutError) as error:
            log.info("not-decided decision=%s error=%s", told(decision), error)

    def _members(self, voters: tuple[str, ...]) -> tuple[Member, ...]:
        addresses = {node.member: node.address for node in self._group.state.nodes()}
        return tuple(Member(member, True, addresses.get(member, "")) for member in voters)


def told(decision: Decision) -> str:
    """As the log says it: of a long sequence how much it has."""
    words = []
    names = decision.__struct_fields__ if isinstance(decision, msgspec.Struct) else decision.__match_args__
    for name in names:
        value = getattr(decision, name)
        is_long = isinstance(value, tuple | list) and len(value) > TOLD_MAX
        words.append(f"{name}: {len(value)}" if is_long else f"{name}={value!r}")
    return f"{type(decision).__name__}({', '.join(words)})"


def subject(decision: Decision) -> object:
    """Two decisions about the same thing are not under way at the same time."""
    if isinstance(decision, commands.SetNodeState | commands.SetNodeQuality):
        return type(decision), decision.number
    if isinstance(decision, commands.QuarantineMember):
        return type(decision), decision.member
    return type(decision)
