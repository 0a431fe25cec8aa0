"""How slowly a body may come in before its client is cut.

Rule: units are for those who send. A body that holds one has to bring `http.body_min_bytes_per_s` over each
`http.body_idle_timeout_s` of waiting for it, and over each ten seconds while somebody else waits for a unit.
"""

from __future__ import annotations

from collections.abc import Callable

from edgestore.errors import IncompleteBody

PRESSED_S = 10.0
"""The window while units are short: one lost packet is repeated within it, even on a bad line."""


class Pace:
    """The two windows of one body. Only the time in which the node waited for the client counts."""

    __slots__ = ("_bytes_per_s_min", "_is_pressed", "_patient", "_pressed")

    def __init__(self, idle_timeout_s: float, bytes_per_s_min: int, is_pressed: Callable[[], bool]) -> None:
        self._bytes_per_s_min, self._is_pressed = bytes_per_s_min, is_pressed
        self._patient = _Window(idle_timeout_s)
        self._pressed = _Window(min(PRESSED_S, idle_timeout_s))

    @property
    def left_s(self) -> float:
        """Until it is judged again."""
        return min(self._patient.left_s, self._pressed.left_s)

    def waited(self, seconds: float, count: int, *, holds_unit: bool) -> None:
        """So long was waited, and this came. Raises IncompleteBody where it is too little."""
        is_slow = self._pressed.is_slow(seconds, count, self._bytes_per_s_min)
        if self._patient.is_slow(seconds, count, self._bytes_per_s_min) or (
            is_slow and holds_unit and self._is_pressed()
        ):
            raise IncompleteBody("the client sent nothing, or hardly anything, for too long", code="RequestTimeout")


class _Window:
    """Time waited and bytes that came, begun anew whenever it is over."""

    __slots__ = ("_count", "_length_s", "left_s")

    def __init__(self, length_s: float) -> None:
        self._length_s = self.left_s = length_s
        self._count = 0

    def is_slow(self, seconds: float, count: int, bytes_per_s_min: int) -> bool:
        """Whether the window is over and too little came in it."""
        self.left_s -= seconds
        self._count += count
        if self.left_s > 0:
            return False
        came, self._count, self.left_s = self._count, 0, self._length_s
        return came < max(1.0, bytes_per_s_min * self._length_s)
