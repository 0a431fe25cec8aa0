"""The network of simulated machines: the product's Network, Listening and Connection on virtual time.

Rule: frames are the unit, encoded and decoded as on a real wire; certificates are real. Any frame but a hello may be
lost, late, doubled or overtaken, one way or both, as the seed has it; nothing is delivered to a machine that is dead.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from edgestore.config import NetConfig
from edgestore.errors import Corrupt, Denied, Unavailable
from edgestore.net import Connection, Credentials, Frame
from edgestore.net.frames import HEADER_BYTES, Kind, decode_header, encode_header
from edgestore.net.tls import check_authority
from edgestore.security import authority_digest

FIRST_PORT = 40_000


@dataclass
class Weather:
    """What the wires do to what they carry. Shares are of 1; `delay_s` is the mean of an exponential distribution."""

    delay_s: float = 0.0003
    lost: float = 0.0
    resent_s: float = 0.0
    """Where it is set, only messages are lost for good: calls are sent again after so long, then twice as long."""
    doubled: float = 0.0
    overtaken: float = 0.0


@dataclass
class SimNetwork:
    """All wires. `cut`: (from, to) pairs of machines; `bytes_per_s`: of slow (from, to) pairs."""

    rng: random.Random
    weather: Weather = field(default_factory=Weather)
    cut: set[tuple[str, str]] = field(default_factory=set)
    bytes_per_s: dict[tuple[str, str], float] = field(default_factory=dict)
    carried: int = 0
    _listening: dict[tuple[str, int], SimListening] = field(default_factory=dict)
    _ends: dict[SimConnection, None] = field(default_factory=dict)
    _ports: int = FIRST_PORT

    def machine(self, name: str) -> SimMachine:
        """What the Peers of one machine get as their network."""
        return SimMachine(self, name)

    def partition(self, *groups: set[str]) -> None:
        """Nothing passes between the groups, either way."""
        for one in groups:
            for other in groups:
                if one is not other:
                    self.cut |= {(source, target) for source in one for target in other}

    def heal(self) -> None:
        """Everything passes again."""
        self.cut.clear()

    def kill(self, name: str, *, told: bool = True) -> None:
        """The process of a machine ends. `told`: its kernel lives and says so; a power cut says nothing."""
        for place in [place for place, one in self._listening.items() if one.machine == name]:
            del self._listening[place]
        for end in [end for end in self._ends if end.machine == name]:
            end.is_dead = True
            if told:
                end.other.hear_close()
            self._ends.pop(end, None)

    def delay_s(self) -> float:
        """Of one frame."""
        return self.rng.expovariate(1 / self.weather.delay_s)


class SimListening:
    """One listener."""

    def __init__(self, network: SimNetwork, machine: str, address: tuple[str, int]) -> None:
        self.network, self.machine, self.address = network, machine, address
        self.context = contextvars.copy_context()
        self.credentials: Credentials
        self.config: NetConfig
        self.accepted: Callable[[Connection], None]

    async def close(self) -> None:
        """See `Listening`."""
        if self.network._listening.get(self.address) is self:
            del self.network._listening[self.address]


class SimConnection:
    """One end. What happens to it runs in the context that made it, so that it belongs to that life of a node."""

    def __init__(self, network: SimNetwork, machine: str, config: NetConfig, context: contextvars.Context) -> None:
        self.on_frame: Callable[[Frame], None] = lambda frame: None
        self.on_closed: Callable[[], None] = lambda: None
        self.peer_certificate = b""
        self.address = ""
        self.frame_max_bytes = config.frame_max_bytes
        self.is_stuck = False
        self.buffered_bytes = 0
        self.machine, self.is_dead, self.is_closed = machine, False, False
        self.other: SimConnection
        self._network, self._config, self._context = network, config, context
        self._loop = asyncio.get_running_loop()
        self._last_s = self._free_s = 0.0
        self._room = asyncio.Event()
        network._ends[self] = None

    def send(self, frame: Frame) -> None:
        """See `Connection`."""
        if self.is_closed or self.is_dead:
            return
        data = b"".join((encode_header(frame), frame.head, *frame.payload))
        network, weather = self._network, self._network.weather
        network.carried += 1
        is_hello = frame.kind is Kind.HELLO
        copies = 1 + (not is_hello and network.rng.random() < weather.doubled)
        for _ in range(copies):
            if (self.machine, self.other.machine) in network.cut:
                continue
            losses = 0
            while not is_hello and network.rng.random() < weather.lost:
                losses += 1
                if frame.kind is Kind.MESSAGE or not weather.resent_s:
                    break
            if losses and (frame.kind is Kind.MESSAGE or not weather.resent_s):
                continue
            wait_s = self._wait_s(len(data), is_hello) + weather.resent_s * (2**losses - 1)
            self.buffered_bytes += len(data)
            self._loop.call_later(wait_s, self._left, data, context=self._context)

    def _wait_s(self, size_bytes: int, is_hello: bool) -> float:
        network, now_s = self._network, self._loop.time()
        rate = network.bytes_per_s.get((self.machine, self.other.machine))
        self._free_s = max(self._free_s, now_s) + (size_bytes / rate if rate else 0.0)
        arrival_s = self._free_s + network.delay_s()
        if is_hello or network.rng.random() >= network.weather.overtaken:
            arrival_s = self._last_s = max(arrival_s, self._last_s)
        else:
            arrival_s = max(arrival_s, self._last_s if not self._last_s else arrival_s) + network.delay_s()
        return arrival_s - now_s

    def _left(self, data: bytes) -> None:
        self.buffered_bytes -= len(data)
        if self.buffered_bytes <= self._config.send_buffer_high_bytes:
            self._room.set()
        other = self.other
        if (self.machine, other.machine) not in self._network.cut and not self.is_dead:
            self._loop.call_soon(other.hear, data, context=other._context)

    def hear(self, data: bytes) -> None:
        """A frame arrives."""
        if self.is_closed or self.is_dead:
            return
        try:
            header = decode_header(data[:HEADER_BYTES], self.frame_max_bytes)
        except Corrupt:
            self.close()
            return
        end = HEADER_BYTES + header.head_bytes
        payload = (memoryview(bytearray(data[end:])),) if header.payload_bytes else ()
        self.on_frame(Frame(header.kind, header.code, header.number, data[HEADER_BYTES:end], payload))

    async def drain(self) -> None:
        """See `Connection`."""
        while self.buffered_bytes > self._config.send_buffer_high_bytes and not self.is_closed:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """See `Connection`."""
        if self.is_closed or self.is_dead:
            return
        self._end()
        if (self.machine, self.other.machine) not in self._network.cut:
            self.other.hear_close()

    def hear_close(self) -> None:
        """The other end closes, some time later."""
        if not self.is_dead:
            delay_s = self._network.delay_s()
            self._loop.call_later(delay_s, self._end, context=self._context)

    def _end(self) -> None:
        if self.is_closed or self.is_dead:
            return
        self.is_closed = True
        self._room.set()
        self._network._ends.pop(self, None)
        self._loop.call_soon(self._tell, context=self._context)

    def _tell(self) -> None:
        on_closed, self.on_closed = self.on_closed, lambda: None
        on_closed()


@dataclass
class SimMachine:
    """The product's Network for one machine."""

    network: SimNetwork
    name: str

    async def listen(
        self,
        host: str,
        port: int,
        credentials: Credentials,
        config: NetConfig,
        accepted: Callable[[Connection], None],
    ) -> SimListening:
        """See `Network`."""
        if not port:
            self.network._ports += 1
            port = self.network._ports
        if (host, port) in self.network._listening:
            raise OSError(98, "Address already in use")
        listening = SimListening(self.network, self.name, (host, port))
        listening.credentials, listening.config, listening.accepted = credentials, config, accepted
        self.network._listening[host, port] = listening
        return listening

    async def dial(
        self, host: str, port: int, credentials: Credentials, config: NetConfig, local: str
    ) -> SimConnection:
        """See `Network`."""
        network = self.network
        await asyncio.sleep(2 * network.delay_s())
        listening = network._listening.get((host, port))
        if listening is not None and {(self.name, listening.machine), (listening.machine, self.name)} & network.cut:
            await asyncio.sleep(config.dial_timeout_s)
            raise Unavailable(f"{host}:{port} cannot be reached: no answer within {config.dial_timeout_s} s")
        if listening is None:
            raise Unavailable(f"{host}:{port} cannot be reached: nobody listens")
        self._check(credentials, listening.credentials.certificate)
        if credentials.is_loaded:
            self._check(listening.credentials, credentials.certificate)
        near = SimConnection(network, self.name, config, contextvars.copy_context())
        far = SimConnection(network, listening.machine, listening.config, listening.context)
        near.other, far.other = far, near
        near.peer_certificate = listening.credentials.certificate
        far.peer_certificate = credentials.certificate
        near.address, far.address = f"{host}:{port}", local or self.name
        asyncio.get_running_loop().call_soon(listening.accepted, far, context=listening.context)
        return near

    def _check(self, judge: Credentials, certificate: bytes) -> None:
        """What TLS does for real machines; a joiner checks nothing here."""
        if not judge.is_loaded:
            return
        try:
            check_authority(judge.authority, authority_digest(judge.authority), certificate)
        except Denied as error:
            raise Unavailable(f"the handshake failed: {error}") from error
