"""Time and randomness as arguments: the two that the rest of the code may not take from the system by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

Entropy = Callable[[int], bytes]
"""Returns that many unpredictable bytes (`os.urandom`); the simulator hands in a seeded one."""


class Clock(Protocol):
    """What the node may know of time. Log time (rule 9) is made from `boot_ms`; people are shown `wall_ms`."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 by the wall clock; may jump."""
        ...

    def boot_ms(self) -> int:
        """Milliseconds of CLOCK_BOOTTIME; never goes back, counts suspend."""
        ...


_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""CLOCK_MONOTONIC stands in where the system has no CLOCK_BOOTTIME."""


class SystemClock:
    """The clocks of this machine."""

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return time.time_ns() // 1_000_000

    def boot_ms(self) -> int:
        """See `Clock.boot_ms`."""
        return time.clock_gettime_ns(_BOOT_CLOCK) // 1_000_000


system_entropy: Entropy = os.urandom
