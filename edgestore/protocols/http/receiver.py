"""Large bodies: a BufferedProtocol whose buffer is the free part of a unit, so the kernel copies straight into the
pool.

Rule 13: no unit, no reading; and never a byte beyond the body, so the connection's framing stays whole. A unit is for
who sends: none is taken before the bytes, and who sends too little loses it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from edgestore.chunks import UNIT_WORTH_BYTES, Unit, UnitPool
from edgestore.errors import IncompleteBody
from edgestore.protocols.http.pace import Pace
from edgestore.records import UNIT_BYTES, Checksum

READY_UNITS_MAX = 4
LINGER_S = 5.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SCRATCH = memoryview(bytearray(65_536))
"""What nobody will read is received here, and the few bytes for which there is no unit yet."""


class Receiver(asyncio.BufferedProtocol):
    """The protocol of a connection while one body comes in; also that body (`chunks.Body`).

    The first bytes are kept aside: a unit is taken when there is something to put into it, so a client that only
    announces a body costs none.
    """

    def __init__(
        self,
        owner: asyncio.Protocol,
        transport: asyncio.Transport,
        pool: UnitPool,
        size_bytes: int,
        *,
        pace: Pace,
        expects_continue: bool,
    ) -> None:
        self.size_bytes: int | None = size_bytes
        self.trailer_checksums: tuple[Checksum, ...] = ()
        self._owner, self._transport, self._pool = owner, transport, pool
        self._left, self._pace, self._expects = size_bytes, pace, expects_continue
        self._aside = b""
        self._has_begun = False
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
        self._aside = data
        self._left -= len(data)
        self._use_aside()
        self._go_on()

    def _hold_unit(self) -> bool:
        if self._unit is None:
            self._unit = self._pool.try_acquire()
        return self._unit is not None

    def _use_aside(self) -> None:
        """Puts what is kept aside into units, where it is worth one; the rest waits in line."""
        if self._left and len(self._aside) < UNIT_WORTH_BYTES and self._unit is None:
            return
        rest = memoryview(self._aside)
        while len(rest) and self._hold_unit():
            assert self._unit is not None
            taken = min(len(rest), UNIT_BYTES - self._unit.filled)
            self._unit.buffer[self._unit.filled : self._unit.filled + taken] = rest[:taken]
            rest = rest[taken:]
            self._filled(taken, is_end=not self._left and not len(rest))
        self._aside = bytes(rest)
        if self._aside and self._acquiring is None:
            self._acquiring = asyncio.get_running_loop().create_task(self._acquire())

    async def _acquire(self) -> None:
        unit = await self._pool.acquire()
        self._acquiring = None
        if self._lost or self._discarding:
            unit.release()
        else:
            self._unit = unit
            self._use_aside()
        self._go_on()

    def _go_on(self) -> None:
        """Reads on where there is something to read, and neither a unit nor the service is waited for."""
        if self._lost or self._left == 0:
            return
        if self._discarding or (self._acquiring is None and len(self._ready) < READY_UNITS_MAX):
            self._transport.resume_reading()

    # --- the transport's side ----------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """The free part of a unit, never more than the body still has. Loops ask when there is something to read."""
        if self._discarding:
            return _SCRATCH[: min(len(_SCRATCH), max(1, self._left))]
        if self._unit is None and not (self._has_begun and self._hold_unit()):
            return _SCRATCH[: min(UNIT_WORTH_BYTES, max(1, self._left))]
        assert self._unit is not None
        filled = self._unit.filled
        return self._unit.buffer[filled : filled + min(UNIT_BYTES - filled, self._left)]

    def buffer_updated(self, nbytes: int) -> None:
        """The kernel has filled a part."""
        self._left -= nbytes
        if self._discarding:
            if self._left == 0 and self._finished is not None:
                self._finish(whole=True)
            return
        if self._unit is None:
            self._aside += _SCRATCH[:nbytes]
            self._use_aside()
        else:
            self._filled(nbytes, is_end=not self._left)
        if not self._may_read():
            self._transport.pause_reading()

    def _may_read(self) -> bool:
        if self._left == 0 or self._acquiring is not None:
            return False
        return self._unit is not None or len(self._ready) < READY_UNITS_MAX

    def _filled(self, count: int, *, is_end: bool) -> None:
        assert self._unit is not None
        self._has_begun = True
        self._unit.filled += count
        if self._unit.filled == UNIT_BYTES or is_end:
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
        while not self._ready:
            if self._lost:
                raise IncompleteBody(f"the connection ended {self._left} bytes before the end of the body")
            if self._left == 0 and not self._aside and self._unit is None:
                return None
            await self._wait()
        unit = self._ready.popleft()
        self._go_on()
        return unit

    async def _wait(self) -> None:
        """For the next unit, as long as the client keeps its pace; the wait for a unit of the pool is not its fault."""
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        left, was_acquiring, since_s = self._left, self._acquiring is not None, loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.left_s):
                await self._wake
        if was_acquiring or self._acquiring is not None or self._left == 0:
            return
        try:
            self._pace.waited(loop.time() - since_s, left - self._left, holds_unit=self._unit is not None)
        except IncompleteBody:
            self._lost = True
            raise

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
        self._unit, self._aside = None, b""
