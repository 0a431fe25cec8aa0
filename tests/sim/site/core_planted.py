"""Bugs planted on purpose in a whole site: each breaks one safety rule, and the simulator must catch each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import msgspec

from edgestore.catalog import apply, commands, places
from edgestore.catalog.memory import OperationMemory
from edgestore.chunks.reclaim import Pins
from edgestore.chunks.repair import Repair
from edgestore.chunks.spread import Spread
from edgestore.meta.service import Meta
from edgestore.placement import Placement, Scheme
from tests.sim.model import Diverged, Lost, Miscounted, NotLinearizable, Refused, Stalled, Thin, Violation
from tests.sim.site import faults
from tests.sim.site.core_world import ANYTHING, CoreAim

Plant = Callable[[], AbstractContextManager[None]]

LATE_NODES = CoreAim((faults.slow_wire, faults.cut_one_pair, faults.stop_for_a_while, faults.kill_one), 3, ("replace",))
"""Fragments that come late or never, and a disk that is lost."""
NODES_COME_BACK = CoreAim((faults.stop_for_a_while, faults.cut_off_one, faults.crash_again_and_again), 4, ("replace",))
QUIET = CoreAim((faults.set_a_clock,), 3, ())
BAD_WIRES = CoreAim((faults.bad_weather, faults.cut_one_pair, faults.hunt_leaders), 3, ())
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
    )
}
