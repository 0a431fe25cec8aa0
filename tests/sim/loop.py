"""An asyncio event loop whose time is virtual: it runs one callback a step, and jumps to the next timer when idle.

Rule: nothing here or above it waits for real time, so a run of simulated hours takes seconds and a seed replays
exactly.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")

CLOSINGS_MAX = 20
"""Of one coroutine: each `await` in a handler takes another."""


class Crash(BaseException):
    """The machine lost power. It is no Exception, so that no handler of the product can survive it."""


class Stuck(AssertionError):
    """Nothing is ready, no timer is due, and the main task is not done: a lost wake-up or a deadlock."""


@contextmanager
def silence() -> Iterator[None]:
    """What those complain of that are closed by force is of no interest."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook


def close_all(tasks: list[asyncio.Task[Any]]) -> None:
    """Closes their coroutines, the outermost first, while all tasks are held.

    A collector would begin anywhere: where it closes an inner coroutine whose handler drops what kept its task alive,
    the outer one is freed and closes the inner one, which runs. CPython 3.11 then takes memory for an object that is
    none (`_PyGen_yf` does not ask whether the frame runs; 3.12 does), and dies now and then.
    """
    for _ in range(CLOSINGS_MAX):
        left = [coroutine for task in tasks if getattr(coroutine := task.get_coro(), "cr_frame", None) is not None]
        if not left:
            return
        for coroutine in left:
            with suppress(BaseException):
                coroutine.close()  # type: ignore[union-attr]


class SimLoop(asyncio.BaseEventLoop):
    """One callback a step. `crash_at` is the step before which the power fails."""

    def __init__(self, *, start_s: float = 1000.0, steps_max: int = 2_000_000) -> None:
        super().__init__()
        self.now_s = start_s
        self.steps = 0
        self.steps_max = steps_max
        self.crash_at: int | None = None
        self.crashed = False
        self.failures: list[dict[str, Any]] = []
        self._timers_made = 0
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        """Virtual seconds."""
        return self.now_s

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """There are no other threads."""
        return self.call_soon(callback, *args, context=context)

    def power_off(self) -> None:
        """From here on nothing runs: called by the disk when the crash falls inside one of its operations."""
        self.crashed = True

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Timers of one instant fire in the order in which they were set. The heap holds plain tuples: a run compares
        them by the million, and most of them are deadlines that somebody cancels."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._scheduled, (when, self._timers_made, timer))  # type: ignore[attr-defined]
        return timer

    def _take(self) -> asyncio.Handle:
        """The next handle, after a jump of the clock where none is ready."""
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready:
            while scheduled and scheduled[0][2]._cancelled:
                heapq.heappop(scheduled)
            if not scheduled:
                raise Stuck(f"nothing left to run at {self.now_s:.3f} s")
            self.now_s = max(self.now_s, scheduled[0][0])
        while scheduled and scheduled[0][0] <= self.now_s:
            timer = heapq.heappop(scheduled)[2]
            if not timer._cancelled:
                ready.append(timer)
        return ready.popleft()  # type: ignore[no-any-return]

    def _run_once(self) -> None:
        handle = self._take()
        if self.crashed or self.steps == self.crash_at:
            self.crashed = True
            raise Crash
        self.steps += 1
        if self.steps > self.steps_max:
            raise Stuck(f"still running after {self.steps_max} steps")
        if not handle._cancelled:
            handle._run()
        if self.crashed:
            raise Crash

    def _write_to_self(self) -> None:
        """There is no selector to wake."""

    def _process_events(self, event_list: object) -> None:
        """There is no selector."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Runs `main` to its end. Raises Crash when the power fails first."""
        task = self.create_task(main)
        task.add_done_callback(lambda _: self.stop())
        asyncio.events._set_running_loop(None)
        self.run_forever()
        return task.result()

    def abandon(self) -> None:
        """Drops everything that was running, as a power cut does: no `finally` of the product may touch the disk
        again."""
        tasks = self._unfinished()
        self.crashed = True
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.set_exception_handler(lambda *_: None)
        self.close()
        with silence():
            close_all(tasks)

    def _unfinished(self) -> list[asyncio.Task[Any]]:
        """In the order in which they were made, whatever their places in memory."""
        return sorted(asyncio.all_tasks(self), key=lambda task: (len(task.get_name()), task.get_name()))


class SimClock:
    """The clock of the product (edgestore.clock.Clock) on the loop's virtual time. The wall clock may be set; the time
    since boot begins anew with the machine."""

    FIRST_WALL_MS = 1_760_000_000_000

    def __init__(self, loop: SimLoop, wall_offset_ms: int = FIRST_WALL_MS, boot_s: float = 0.0) -> None:
        self.loop, self.wall_offset_ms, self.boot_s = loop, wall_offset_ms, boot_s

    def wall_ms(self) -> int:
        """Milliseconds since 1970 as the node believes."""
        return self.wall_offset_ms + int(self.loop.now_s * 1000)

    def boot_ms(self) -> int:
        """Milliseconds of boot time."""
        return int((self.loop.now_s - self.boot_s) * 1000)
