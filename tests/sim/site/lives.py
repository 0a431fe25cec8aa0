"""The loop of a site: every callback belongs to a life of a node, or to the world around the nodes.

Rule: a life owns what was begun in it, by a context variable that each handle carries. A dead life runs nothing more,
not even a `finally`: its handles are dropped, and what they hold is kept until the run is over, so that no collector
closes a coroutine of the dead inside the step of another node.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.sim.loop import Crash, SimLoop, Stuck, silence

T = TypeVar("T")

LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)
ROUNDING_S = 1e-9
"""Added to what a node's clock is turned back by: a timer never fires before its node's clock shows the time."""


class NodeDied(Exception):
    """The life that was asked is over: what became of the question is unknown."""


class Life:
    """One life of a node, from a start to its death. `rate`: how fast its clocks run."""

    def __init__(
        self, loop: SiteLoop, name: str, number: int, *, rate: float = 1.0, boot_s: float | None = None
    ) -> None:
        self.loop, self.name, self.number, self.rate = loop, name, number, rate
        self.boot_s = loop.now_s if boot_s is None else boot_s
        self.crashed = self.is_buried = False
        self.steps = 0
        self.crash_at: int | None = None
        self.held_until_s = 0.0
        self.held: deque[asyncio.Handle] = deque()
        self.watch: Callable[[], None] | None = None
        """Called after each of its steps."""
        self.on_death: Callable[[], None] = lambda: None
        self._context = contextvars.Context()
        self._context.run(LIFE.set, self)
        self._asked: dict[asyncio.Future[Any], None] = {}

    def local_s(self, now_s: float) -> float:
        """What its monotonic clock shows."""
        return (now_s - self.boot_s) * self.rate

    def global_s(self, local_s: float) -> float:
        """When its monotonic clock shows that."""
        return local_s / self.rate + self.boot_s + ROUNDING_S

    def context(self) -> contextvars.Context:
        """A new one: what runs in it belongs to this life."""
        return self._context.copy()

    def power_off(self) -> None:
        """From here on it runs nothing: called by the disk when the crash falls inside one of its operations."""
        self.crashed = True

    def kill(self) -> None:
        """It ends now, between two steps."""
        self.crashed = True
        self.loop.bury(self)

    def hold(self, for_s: float) -> None:
        """Stops it for a while, as SIGSTOP does: nothing runs, clocks go on, and then everything comes at once."""
        self.held_until_s = max(self.held_until_s, self.loop.now_s + for_s)
        self.loop.later(for_s, self._release)

    def _release(self) -> None:
        if self.loop.now_s >= self.held_until_s and not self.crashed:
            self.loop._ready.extend(self.held)  # type: ignore[attr-defined]
            self.held.clear()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of this life."""
        return self.loop.create_task(work, context=self.context())

    async def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` inside this life, for somebody outside of it. Raises NodeDied when the life ends first.

        Who gives up waiting leaves the work running, as a client that goes away does.
        """
        if self.crashed:
            work.close()
            raise NodeDied(self.name)
        outcome: asyncio.Future[T] = self.loop.create_future()
        self._asked[outcome] = None
        self.start(work).add_done_callback(lambda task: _copy(task, outcome, self), context=contextvars.Context())
        try:
            return await outcome
        finally:
            self._asked.pop(outcome, None)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Calls a plain function inside this life."""
        return self.context().run(function, *arguments)

    def fail_asked(self) -> None:
        """Whoever waits for it hears of its death."""
        for outcome in list(self._asked):
            if not outcome.done():
                outcome.set_exception(NodeDied(self.name))


def _copy(task: asyncio.Task[T], outcome: asyncio.Future[T], life: Life) -> None:
    if outcome.done():
        if not task.cancelled():
            task.exception()  # somebody gave up waiting for it
    elif life.crashed:
        outcome.set_exception(NodeDied(life.name))
    elif task.cancelled():
        outcome.cancel()
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


class SiteLoop(SimLoop):
    """One callback a step, each in the life that it belongs to; `trace` is the digest of who ran when."""

    def __init__(self, *, start_s: float = 1000.0, steps_max: int = 8_000_000) -> None:
        super().__init__(start_s=start_s, steps_max=steps_max)
        self.trace = 0
        self.graveyard: list[object] = []
        self.blamed: BaseException | None = None
        self.running: Life | None = None
        self.set_exception_handler(self._failed)

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        life = self.running
        if isinstance(context.get("exception"), Crash):
            return  # raised in a life by its end
        if life is None or not life.crashed:
            self.failures.append({**context, "life": life.name if life is not None else None})

    def time(self) -> float:
        """Virtual seconds, by the clock of the node that asks."""
        life = LIFE.get()
        return self.now_s if life is None else life.local_s(self.now_s)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """`when` is by the clock of the node that calls."""
        life = LIFE.get()
        return super().call_at(when if life is None else life.global_s(when), callback, *args, context=context)

    def later(self, delay_s: float, callback: Callable[..., object], *args: Any, life: Life | None = None) -> None:
        """Whoever asks: after so many true seconds, inside `life`, or in the world around the nodes."""
        context = contextvars.Context() if life is None else life.context()
        super().call_at(self.now_s + delay_s, callback, *args, context=context)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """See asyncio. What an ending `finally` begins when the run is over is closed: nobody else would do it."""
        if self.is_closed():
            coro.close()
        return super().create_task(coro, **options)

    def blame(self, violation: BaseException) -> None:
        """Ends the run with it after this step, whoever catches what."""
        if self.blamed is None:
            self.blamed = violation

    def _run_once(self) -> None:
        self._step()
        if self.blamed is not None:
            raise self.blamed

    def _step(self) -> None:
        handle = self._take()
        self.steps += 1
        if self.steps > self.steps_max:
            raise Stuck(f"still running after {self.steps_max} steps, at {self.now_s:.3f} s")
        if handle._cancelled:
            return
        life: Life | None = handle._context.get(LIFE)
        if life is None:
            handle._run()
            return
        if life.crashed:
            self.graveyard.append(handle)
            return
        if self.now_s < life.held_until_s or life.held:
            life.held.append(handle)
            return
        life.steps += 1
        if life.steps == life.crash_at:
            self.graveyard.append(handle)
            life.kill()
            return
        self.trace = hash((self.trace, life.number, self.now_s))
        self.running = life
        handle._run()
        self.running = None
        if life.crashed:
            self.bury(life)
        elif life.watch is not None:
            life.watch()

    def bury(self, life: Life) -> None:
        """Keeps what belonged to a life that has ended, and tells who waits for it."""
        if life.is_buried:
            return
        life.is_buried = True
        self.graveyard += [life, *asyncio.all_tasks(self), *life.held]
        life.held.clear()
        life.fail_asked()
        life.on_death()

    def abandon(self) -> None:
        """The run is over: whatever still waits is closed here, silently, and not by a collector some time later."""
        asyncio.events._set_running_loop(self)
        try:
            super().abandon()
            with silence():
                self.graveyard.clear()
                gc.collect()
        finally:
            asyncio.events._set_running_loop(None)

    def _unfinished(self) -> list[asyncio.Task[Any]]:
        return [*super()._unfinished(), *(one for one in self.graveyard if isinstance(one, asyncio.Task))]


class NodeClock:
    """edgestore.clock.Clock of one life: its boot clock runs at the node's rate, its wall clock is what somebody
    set."""

    FIRST_WALL_MS = 1_760_000_000_000

    def __init__(self, life: Life, wall_offset_ms: int = 0) -> None:
        self.life, self.wall_offset_ms = life, wall_offset_ms

    def wall_ms(self) -> int:
        """Milliseconds since 1970 as the node believes."""
        return self.FIRST_WALL_MS + self.wall_offset_ms + int(self.life.loop.now_s * 1000)

    def boot_ms(self) -> int:
        """Milliseconds of boot time."""
        return int(self.life.local_s(self.life.loop.now_s) * 1000)
