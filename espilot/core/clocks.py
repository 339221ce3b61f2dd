"""What the clocks tell of a loop that looks once a period: how late it is, and jumps of the time.

A jump is a difference between the two clocks: somebody set the time of the day, or the machine
slept, which the monotonic clock does not count.
"""

from __future__ import annotations

LEAST_JUMP_S = 0.5
"""Less is how the time of the day is kept right."""


class Clocks:
    """Looks at both clocks, once a period."""

    def __init__(self, period_s: float) -> None:
        self.jumped_s = self.lag_s = 0.0
        self._period_s = period_s
        self._last: tuple[float, float] | None = None

    def observe(self, now_mono: float, now_unix: float) -> None:
        """One look."""
        if self._last is not None:
            passed_s = now_mono - self._last[0]
            jump_s = abs(now_unix - self._last[1] - passed_s)
            self.jumped_s += jump_s if jump_s >= LEAST_JUMP_S else 0.0
            self.lag_s = max(0.0, passed_s - self._period_s)
        self._last = now_mono, now_unix
