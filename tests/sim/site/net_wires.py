"""The wires of a site with the real `net.Peers` on them: frames, calls, dialling and certificates are the product's.

Rule: whatever `wires.Wires` does to messages, this does to frames, with the same words; a cut drops frames, and
connections end when the product notices, not before.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

from edgestore.config import NetConfig
from edgestore.net import Credentials, Peers, Rights
from edgestore.security import issue, load_key, new_authority, new_key
from tests.sim.network import SimNetwork, Weather
from tests.sim.site.lives import Life, NodeClock, SiteLoop

CONFIG = NetConfig(ping_interval_ms=200, silence_max_s=2.0, dial_timeout_s=0.5, dial_backoff_max_ms=300)
SITE_ID = bytes(range(16))
PORT = 7000
LIFE_MS = 90 * 86_400_000
BYTES_PER_SLOW_S = 200.0
"""A frame of so many bytes takes as long as a slow wire is said to be slow."""


class SlowWires(MutableMapping[tuple[str, str], float]):
    """Extra seconds by pair of members, as bytes a second by pair of machines."""

    def __init__(self, wires: NetWires) -> None:
        self._wires = wires

    def __setitem__(self, pair: tuple[str, str], seconds: float) -> None:
        self._wires.network.bytes_per_s[self._wires.machines_of(pair)] = BYTES_PER_SLOW_S / seconds

    def __delitem__(self, pair: tuple[str, str]) -> None:
        del self._wires.network.bytes_per_s[self._wires.machines_of(pair)]

    def __getitem__(self, pair: tuple[str, str]) -> float:
        return BYTES_PER_SLOW_S / self._wires.network.bytes_per_s[self._wires.machines_of(pair)]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(list(self._wires.network.bytes_per_s))

    def __len__(self) -> int:
        return len(self._wires.network.bytes_per_s)

    def clear(self) -> None:
        """None is slow."""
        self._wires.network.bytes_per_s.clear()


class NetWires:
    """See `wires.Wires`."""

    def __init__(self, loop: SiteLoop, rng: random.Random) -> None:
        self.loop, self.rng = loop, rng
        self.network = SimNetwork(rng)
        self.usual = Weather()
        self.slow = SlowWires(self)
        self.ends: dict[str, Peers] = {}
        self._lives: dict[str, Life] = {}
        self._names: dict[str, str] = {}
        self._authority = new_authority(rng.randbytes, SITE_ID, NodeClock.FIRST_WALL_MS)

    @property
    def weather(self) -> Any:
        """What the wires do just now."""
        return self.network.weather

    @weather.setter
    def weather(self, weather: Any) -> None:
        self.network.weather = weather

    def machines_of(self, pair: tuple[str, str]) -> tuple[str, str]:
        """Names of the machines of two members."""
        return self._names.get(pair[0], pair[0]), self._names.get(pair[1], pair[1])

    def peers(self, life: Life, member: str, clock: NodeClock) -> Peers:
        """Of a new life, with a certificate of its own."""
        self._names[member] = life.name
        self._lives[member] = life
        key = new_key(self.rng.randbytes)
        public = load_key(key).public_key()
        certificate = issue(self._authority, member, SITE_ID, public, NodeClock.FIRST_WALL_MS, LIFE_MS)
        credentials = Credentials(lambda facts: Rights.MEMBER)
        credentials.load(key, certificate, self._authority.certificate_der)
        machine = self.network.machine(life.name)
        return Peers(machine, CONFIG, credentials, member=member, clock=clock, entropy=self.rng.randbytes)

    async def begin(self, peers: Peers) -> None:
        """A life begins: everybody learns where it is."""
        life = self._lives[peers.member]
        await peers.start(f"10.0.0.{life.number}", PORT)
        for member, other in list(self.ends.items()):
            peers.know(member, f"10.0.0.{self._lives[member].number}:{PORT}")
            self.loop.later(0, self._introduce, other, peers.member, life, life=self._lives[member])
        self.ends[peers.member] = peers

    @staticmethod
    def _introduce(peers: Peers, member: str, life: Life) -> None:
        peers.know(member, f"10.0.0.{life.number}:{PORT}")

    def unplug(self, member: str, *, told: bool = False) -> None:
        """A life has ended. `told`: the kernel of its machine goes on, and closes what the process had open."""
        if member in self.ends:
            del self.ends[member]
            self.network.kill(self._names[member], told=told)

    def sever(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Nothing passes there from now on."""
        self.network.cut |= {self.machines_of(pair) for pair in pairs}

    def mend(self, pairs: Iterable[tuple[str, str]] | None = None) -> None:
        """All of them, or those."""
        if pairs is None:
            self.network.cut.clear()
        else:
            self.network.cut -= {self.machines_of(pair) for pair in pairs}
