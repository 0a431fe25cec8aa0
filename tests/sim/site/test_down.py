"""Who dies is down soon, by a command of the layout, whoever it was; on the clock of the simulator."""

from __future__ import annotations

import pytest

from edgestore.records import NodeState
from tests.sim.site.core_world import BACK_WITHIN_S, CoreAim, CoreWorld
from tests.sim.site.machines import Machine

DOWN_WITHIN_S = 3.0


class OneDies(CoreWorld):
    """A machine loses power, and is back later. `dies_leading`: it is the leader."""

    dies_leading = False
    down_after_s = BACK_WITHIN_S

    async def _main(self) -> None:
        await self._gather()
        site = self.site
        leader = site.leaders()[0]
        victim = leader if self.dies_leading else next(one for one in site.machines if one is not leader)
        number, others = site.number_of(victim.member), [one for one in site.machines if one is not victim]

        def sees(machine: Machine, state: NodeState) -> bool:
            rows = machine.service.core.meta.state.nodes() if machine.service is not None else ()
            return any(row.number == number and row.state is state for row in rows)

        died_s, victim.stays_down = site.loop.now_s, True
        victim.kill(power=True)
        await self._until(lambda: all(sees(machine, NodeState.DOWN) for machine in others), BACK_WITHIN_S)
        self.down_after_s = site.loop.now_s - died_s
        victim.stays_down = False
        victim.start()
        await self._until(lambda: all(sees(machine, NodeState.UP) for machine in site.machines), BACK_WITHIN_S)


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("dies_leading", [False, True], ids=["follower", "leader"])
@pytest.mark.parametrize("seed", range(5))
def test_who_dies_is_down_within_three_seconds_and_comes_back_by_itself(
    seed: int, nodes: int, dies_leading: bool
) -> None:
    world = OneDies(seed, CoreAim(nodes=nodes))
    world.dies_leading = dies_leading
    world.run()
    assert world.down_after_s <= DOWN_WITHIN_S
