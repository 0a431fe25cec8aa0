"""Large bodies: a BufferedProtocol whose buffer is the free part of a unit, so the kernel copies straight into the
pool.

Rule 13: no unit, no reading; and never a byte beyond the body, so the connection's framing stays whole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from edgestore.chunks import Unit, UnitPool
from edgestore.errors import IncompleteBody
from edgestore.records import UNIT_BYTES, Checksum

READY_UNITS_MAX = 4
LINGER_S = 5.0
IDLE_WAITS_MAX = 10
"""A unit may take this many idle timeouts to fill, as long as something comes in each."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SCRATCH = memoryview(bytearray(65_536))
"""What nobody will read is received here."""


class Receiver(asyncio.BufferedProtocol):
    """The protocol of a connection while one body comes in; also that body (`chunks.Body`)."""

    def __init__(
        self,
        owner: asyncio.Protocol,
        transport: asyncio.Transport,
        pool: UnitPool,
        size_bytes: int,
        *,
        idle_timeout_s: float,
        expects_continue: bool,
    ) -> None:
        self.size_bytes: int | None = size_bytes
        self.trailer_checksums: tuple[Checksum, ...] = ()
        self._owner, self._transport, self._pool = owner, transport, pool
        self._left, self._idle_timeout_s, self._expects = size_bytes, idle_timeout_s, expects_continue
        self._unit: Unit | None = None
        self._ready: deque[Unit] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._lost = self._discarding = False
        self._acquiring: asyncio.Task[None] | None = None
        self._finished: Callable[[bool], None] | None = None

    def begin(self, data: bytes) -> None:
        """Takes over the connection. `data`: the part of the body that came with the head."""
        self._transport.pause_reading()
        self._transport.set_protocol(self)
        rest = memoryview(data)
        while len(rest) and self._hold_unit():
            assert self._unit is not None
            taken = min(len(rest), UNIT_BYTES - self._unit.filled)
            self._unit.buffer[self._unit.filled : self._unit.filled + taken] = rest[:taken]
            self._filled(taken)
            rest = rest[taken:]
        if len(rest):
            self._acquiring = asyncio.get_running_loop().create_task(self._take_rest(bytes(rest)))
        else:
            self._go_on()

    async def _take_rest(self, rest: bytes) -> None:
        """What came with the head found no unit: it waits for one like everybody else."""
        while rest:
            unit = await self._pool.acquire()
            if self._lost or self._discarding:
                unit.release()
                self._left -= len(rest) if self._discarding else 0
                break
            self._unit = unit
            part, rest = rest[:UNIT_BYTES], rest[UNIT_BYTES:]
            unit.buffer[: len(part)] = part
            self._filled(len(part))
        self._acquiring = None
        self._go_on()

    def _hold_unit(self) -> bool:
        if self._unit is None:
            self._unit = self._pool.try_acquire()
        return self._unit is not None

    def _go_on(self) -> None:
        """Reads on where there is something to read, a unit to read into, and not too much waiting."""
        if self._lost or self._left == 0:
            return
        if not self._discarding:
            if len(self._ready) >= READY_UNITS_MAX:
                return
            if not self._hold_unit():
                if self._acquiring is None:
                    self._acquiring = asyncio.get_running_loop().create_task(self._acquire())
                return
        self._transport.resume_reading()

    async def _acquire(self) -> None:
        unit = await self._pool.acquire()
        self._acquiring = None
        if self._lost or self._discarding or self._unit is not None:
            unit.release()
        else:
            self._unit = unit
        self._go_on()

    # --- the transport's side ----------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """The free part of the unit, never more than the body still has."""
        if self._discarding or self._unit is None:
            return _SCRATCH[: min(len(_SCRATCH), max(1, self._left))]
        free = UNIT_BYTES - self._unit.filled
        return self._unit.buffer[self._unit.filled : self._unit.filled + min(free, self._left)]

    def buffer_updated(self, nbytes: int) -> None:
        """The kernel has filled a part."""
        if self._discarding or self._unit is None:
            self._left -= nbytes
            if self._left == 0 and self._finished is not None:
                self._finish(whole=True)
            return
        self._filled(nbytes)
        if not self._may_read():
            self._transport.pause_reading()
            self._go_on()

    def _may_read(self) -> bool:
        if self._left == 0:
            return False
        return self._unit is not None or (len(self._ready) < READY_UNITS_MAX and self._hold_unit())

    def _filled(self, count: int) -> None:
        assert self._unit is not None
        self._unit.filled += count
        self._left -= count
        if self._unit.filled == UNIT_BYTES or self._left == 0:
            self._ready.append(self._unit)
            self._unit = None
            self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def eof_received(self) -> bool:
        """The client will send no more."""
        self._lost = self._left > 0
        self._rouse()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for its owner too."""
        self._lost = True
        self._rouse()
        self.release()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._owner.resume_writing()

    # --- the body's side ---------------------------------------------------------------------------------

    async def next_unit(self) -> Unit | None:
        """See `chunks.Body.next_unit`."""
        if self._expects:
            self._expects = False
            self._transport.write(CONTINUE)
        waits = 0
        while not self._ready:
            if self._lost:
                raise IncompleteBody(f"the connection ended {self._left} bytes before the end of the body")
            if self._left == 0:
                return None
            self._wake = asyncio.get_running_loop().create_future()
            before = self._left
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    await self._wake
            except TimeoutError as error:
                waits += 1
                if self._acquiring is None and (self._left == before or waits >= IDLE_WAITS_MAX):
                    self._lost = True
                    raise IncompleteBody("the client sent nothing for too long") from error
        unit = self._ready.popleft()
        self._go_on()
        return unit

    @property
    def is_whole(self) -> bool:
        """Whether the body has come to its end."""
        return self._left == 0 and not self._lost

    def end(self, finished: Callable[[bool], None]) -> None:
        """The answer is written: `finished(True)` when the connection can take the next request, False to close it."""
        self._finished = finished
        if self._lost or self._expects:
            self._finish(whole=False)
        elif self._left == 0:
            self._finish(whole=True)
        else:  # an early answer: what the client still sends is thrown away for a while, so that it can read the answer
            self.release()
            self._discarding = True
            asyncio.get_running_loop().call_later(LINGER_S, self._finish)
            self._go_on()

    def _finish(self, *, whole: bool = False) -> None:
        finished, self._finished = self._finished, None
        self.release()
        if finished is not None:
            self._transport.pause_reading()
            self._transport.set_protocol(self._owner)
            finished(whole and not self._discarding)

    def release(self) -> None:
        """Gives back every unit that nobody has taken."""
        for unit in (*self._ready, *([self._unit] if self._unit else [])):
            unit.release()
        self._ready.clear()
        self._unit = None
