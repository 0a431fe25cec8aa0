"""Log time (rule 9): advances with CLOCK_BOOTTIME, never goes back, goes on after a restart where the log left it."""

from __future__ import annotations

from edgestore.clock import Clock


class LogTime:
    """The leader's stamp. A new site begins at the wall clock, and never looks at it again."""

    def __init__(self, clock: Clock, last_ms: int) -> None:
        self._clock = clock
        self._start_ms = last_ms or clock.wall_ms()
        self._boot_ms = clock.boot_ms()
        self._last_ms = self._start_ms

    def now_ms(self) -> int:
        """Milliseconds of log time."""
        self._last_ms = max(self._last_ms, self._start_ms + self._clock.boot_ms() - self._boot_ms)
        return self._last_ms
