"""Log time (rule 9): advances with CLOCK_BOOTTIME, never goes back, goes on after a restart where the log left it."""

from __future__ import annotations

from edgestore.clock import Clock
from edgestore.errors import BadRequest


class LogTime:
    """The leader's stamp. A new site begins at the wall clock, and looks at it again only by the operator's hand."""

    def __init__(self, clock: Clock, last_ms: int) -> None:
        self._clock = clock
        self._start_ms = last_ms or clock.wall_ms()
        self._boot_ms = clock.boot_ms()
        self._last_ms = self._start_ms
        self._followed_ms = 0

    def resume(self, last_ms: int) -> None:
        """Goes on from where the log turned out to end."""
        if last_ms:
            self._start_ms = self._last_ms = last_ms
            self._boot_ms = self._clock.boot_ms()

    def now_ms(self) -> int:
        """Milliseconds of log time."""
        self._last_ms = max(self._last_ms, self._start_ms + self._clock.boot_ms() - self._boot_ms)
        return self._last_ms

    def follow(self, log_time_ms: int) -> None:
        """Goes on from the last entry that was applied here: for who does not lead, and at the start of leading."""
        if log_time_ms != self._followed_ms and log_time_ms:
            if not self._followed_ms:
                self._last_ms = log_time_ms  # what this node's wall clock said counts for nothing
            self._followed_ms = self._start_ms = log_time_ms
            self._boot_ms = self._clock.boot_ms()

    def step(self, to_ms: int) -> None:
        """Sets it forward: a start goes on where the log left off, so it lags by the time that the node was down."""
        behind_ms = to_ms - self.now_ms()
        if behind_ms < 0:
            raise BadRequest("log time never goes back", log_time_ms=self._last_ms)
        self._start_ms += behind_ms
