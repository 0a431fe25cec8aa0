"""A node that gives its data away still serves, whatever happens to it meanwhile."""

from __future__ import annotations

import pytest

from edgestore.records import NodeState
from tests.sim.site.core_clients import CoreClient
from tests.sim.site.core_world import BACK_WITHIN_S, CoreAim, CoreWorld

DOWN_WITHIN_S = 20.0


class DrainedWhileDown(CoreWorld):
    """One node of four drains and is cut off for so long that its writer is closed."""

    async def _main(self) -> None:
        await self._gather()
        await self._prepare()
        site = self.site
        victim = next(machine for machine in site.machines if machine not in site.leaders())
        number, others = site.number_of(victim.member), [one for one in site.machines if one is not victim]

        def is_now(state: NodeState) -> bool:
            rows = others[0].service.core.meta.state.nodes()
            return any(row.number == number and row.state is state for row in rows)

        await self._insist(
            lambda: site.ask_somebody(lambda core: core.site.set_state(number, "draining"), victim), BACK_WITHIN_S
        )
        site.wires.network.partition({victim.name}, {machine.name for machine in others})
        await self._until(lambda: is_now(NodeState.DOWN), DOWN_WITHIN_S)
        site.wires.network.heal()
        await self._until(lambda: is_now(NodeState.DRAINING), BACK_WITHIN_S)
        assert await CoreClient(site, 1, self.ledger).put_large(victim)


@pytest.mark.parametrize("seed", range(3))
def test_a_node_that_drains_and_was_down_takes_uploads_again(seed: int) -> None:
    world = DrainedWhileDown(seed, CoreAim(nodes=4))
    world.run()
    assert world.acknowledged > 0
