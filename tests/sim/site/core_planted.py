"""Bugs planted on purpose in a whole site: each breaks one safety rule, and the simulator must catch each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import msgspec

from edgestore.catalog import apply, commands, extents, places
from edgestore.catalog.context import Context
from edgestore.catalog.memory import OperationMemory
from edgestore.chunks.budget import ByteBudget
from edgestore.chunks.reclaim import Pins
from edgestore.chunks.repair import Repair
from edgestore.chunks.site_store import SiteStore
from edgestore.chunks.spread import Spread
from edgestore.chunks.tidy import Tidier
from edgestore.cluster.certificates import Admission
from edgestore.meta.service import Meta
from edgestore.net import Rights
from edgestore.placement import Placement, Scheme
from edgestore.security import CertificateFacts
from tests.sim.model import (
    Diverged,
    Lost,
    Miscounted,
    NotLinearizable,
    Overfull,
    Refused,
    Stalled,
    Thin,
    Violation,
)
from tests.sim.site import faults
from tests.sim.site.core_world import ANYTHING, CoreAim
from tests.sim.site.cores import CONFIG, TIGHT
from tests.sim.site.faults import DAY_MS

Plant = Callable[[], AbstractContextManager[None]]

LATE_NODES = CoreAim((faults.slow_wire, faults.cut_one_pair, faults.stop_for_a_while, faults.kill_one), 3, ("replace",))
"""Fragments that come late or never, and a disk that is lost."""
NODES_COME_BACK = CoreAim((faults.stop_for_a_while, faults.cut_off_one, faults.crash_again_and_again), 4, ("replace",))
QUIET = CoreAim((faults.set_a_clock,), 3, ())
BAD_WIRES = CoreAim((faults.bad_weather, faults.cut_one_pair, faults.hunt_leaders), 3, ())
SMALL = CoreAim((faults.set_a_clock,), 3, (), TIGHT)
DRAINS = CoreAim((faults.kill_one, faults.slow_wire), 4, ("drain",))
SHARED = replace(SMALL, config=replace(TIGHT, chunks=replace(TIGHT.chunks, intake_bytes=TIGHT.chunks.slab_bytes)))
SHORT_LIVES = CoreAim(
    (faults.set_a_clock, faults.kill_one),
    3,
    (),
    replace(CONFIG, cluster=replace(CONFIG.cluster, certificate_life_ms=20 * DAY_MS)),
)
"""Clocks that are set by more than certificates live."""
CLOCKS = CoreAim((faults.set_a_clock, faults.hunt_leaders, faults.kill_one), 3, ("yield",))


@contextmanager
def acknowledged_below_k_plus_t() -> Iterator[None]:
    """Rule 1: as many fragments as reading needs are taken for enough, by who writes and by who judges."""

    def planted(context: Any, new: Any) -> places.Places:
        return places.Places(new.exceptions, new.missing)

    with (
        mock.patch.object(Scheme, "needed", property(lambda self: 1)),
        mock.patch.object(places, "judge_named", planted),
    ):
        yield


@contextmanager
def refused_fragments_count() -> Iterator[None]:
    """Rule 1: a fragment counts although its node has not confirmed it."""
    run = Spread.run

    async def planted(self: Spread) -> tuple[int, ...]:
        with mock.patch.object(Scheme, "needed", property(lambda self: 1)):
            await run(self)
        return tuple(self._owners)

    # Bodies overlap, and some never end: what one of them put back may be what another had planted.
    with mock.patch.object(Scheme, "needed", Scheme.needed), mock.patch.object(Spread, "run", planted):
        yield


@contextmanager
def reclaimed_under_a_pin() -> Iterator[None]:
    """Rule 6: a condemned chunk goes although a reader of some node has begun with it."""
    with mock.patch.object(Pins, "lowest", lambda self, otherwise: otherwise):
        yield


@contextmanager
def repair_is_dropped() -> Iterator[None]:
    """Rule 8: an extent that lacks fragments is taken for mended."""

    async def planted(self: Repair, *_: object) -> None:
        return

    with mock.patch.object(Repair, "_mend", planted):
        yield


@contextmanager
def closed_epoch_is_accepted() -> Iterator[None]:
    """Rule 1 and 8: what was placed under an old layout is named as if every node of it still counted."""

    def planted(context: Any, new: Any) -> places.Places:
        return places.Places(new.exceptions, new.missing)

    with (
        mock.patch.object(places, "judge_named", planted),
        mock.patch.object(places, "_open_epoch", _any_epoch),
    ):
        yield


def _any_epoch(context: Any, epoch: int) -> Placement:
    return context.state.placement(epoch)  # type: ignore[no-any-return]


@contextmanager
def expired_operation_is_applied_again() -> Iterator[None]:
    """Rule 9: an operation that was applied, or is too old to tell, is applied when it comes again."""
    with mock.patch.object(OperationMemory, "is_known", lambda *_: False):
        yield


@contextmanager
def log_time_goes_back() -> Iterator[None]:
    """Rule 9: the leader's wall clock is the time of the log, whatever the log said before."""
    apply_entry = apply.Applier._apply_entry

    def planted(self: apply.Applier, index: int, term: int, entry: commands.Entry) -> list[object]:
        self.site = msgspec.structs.replace(self.site, log_time_ms=0)
        return apply_entry(self, index, term, entry)

    header = Meta._header

    def stamped(self: Meta) -> Any:
        return *header(self)[:-1], self._clock.wall_ms()

    with mock.patch.object(apply.Applier, "_apply_entry", planted), mock.patch.object(Meta, "_header", stamped):
        yield


@contextmanager
def copies_are_not_counted() -> Iterator[None]:
    """Rule 7: a copy shares an extent without a reference of its own."""
    with mock.patch.object(extents, "share_extents", lambda *_: None):
        yield


@contextmanager
def counts_stay_behind_names() -> Iterator[None]:
    """Rule 7: what goes is not counted by the command with which it goes."""
    move = Context.move

    def planted(self: Context, bucket: Any, **counts: int) -> None:
        move(self, bucket, **{name: max(0, count) for name, count in counts.items()})

    with mock.patch.object(Context, "move", planted):
        yield


@contextmanager
def slab_of_a_lost_fragment_is_kept() -> Iterator[None]:
    """Rule 13: whoever does not confirm a fragment keeps its memory from all others."""
    ended = Spread._ended

    def planted(self: Spread, task: Any) -> None:
        if task.cancelled() or task.exception() is not None:
            self._release = lambda: None
        ended(self, task)

    with mock.patch.object(Spread, "_ended", planted):
        yield


@contextmanager
def intake_waits_for_uploads() -> Iterator[None]:
    """Rule 13: what comes from other nodes is taken into the memory that uploads hold, and wait for those nodes."""
    begin = SiteStore.__init__

    def planted(self: SiteStore, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self.server._intake.budget = self.slabs.budget

    with mock.patch.object(SiteStore, "__init__", planted):
        yield


@contextmanager
def memory_has_no_bound() -> Iterator[None]:
    """Rule 13: who wants memory takes it, also where there is none left."""

    async def planted(self: ByteBudget, count: int) -> None:
        self.taken_bytes += min(count, self.limit_bytes)

    with mock.patch.object(ByteBudget, "take", planted):
        yield


@contextmanager
def certificates_end_by_the_wall_clock() -> Iterator[None]:
    """Rule 14: a node judges by the clock that somebody set."""
    judge = Admission.rights_of

    def planted(self: Admission, facts: CertificateFacts) -> Rights:
        rights = judge(self, facts)
        is_over = self._meta is not None and self._meta._clock.wall_ms() >= facts.not_after_ms
        return Rights.EXPIRED if is_over and rights is Rights.MEMBER else rights

    with mock.patch.object(Admission, "rights_of", planted):
        yield


@contextmanager
def drained_node_keeps_what_it_has() -> Iterator[None]:
    """Rule 8: a fragment that has moved stays where it was."""

    async def planted(self: Tidier) -> None:
        return

    with mock.patch.object(Tidier, "depart", planted):
        yield


@dataclass(frozen=True)
class Planted:
    """What a plant must be caught as: one that merely breaks the code is none."""

    plant: Plant
    kinds: tuple[type[Violation], ...]
    aim: CoreAim = ANYTHING


BUGS = {
    bug.plant.__name__: bug
    for bug in (
        Planted(acknowledged_below_k_plus_t, (Lost, Thin), LATE_NODES),
        Planted(refused_fragments_count, (Lost, Stalled), LATE_NODES),
        Planted(reclaimed_under_a_pin, (Lost, Refused), QUIET),
        Planted(repair_is_dropped, (Stalled, Lost), NODES_COME_BACK),
        Planted(closed_epoch_is_accepted, (Thin, Lost), NODES_COME_BACK),
        Planted(expired_operation_is_applied_again, (NotLinearizable, Lost, Miscounted, Diverged), BAD_WIRES),
        Planted(log_time_goes_back, (Miscounted,), CLOCKS),
        Planted(copies_are_not_counted, (Lost, Miscounted), QUIET),
        Planted(counts_stay_behind_names, (Miscounted,), QUIET),
        Planted(slab_of_a_lost_fragment_is_kept, (Overfull,), LATE_NODES),
        Planted(intake_waits_for_uploads, (Stalled,), SHARED),
        Planted(memory_has_no_bound, (Overfull,), SMALL),
        Planted(certificates_end_by_the_wall_clock, (Stalled, Lost), SHORT_LIVES),
        Planted(drained_node_keeps_what_it_has, (Stalled,), DRAINS),
    )
}
