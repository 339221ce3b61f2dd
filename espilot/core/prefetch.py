"""How many ranges to ask for: enough to keep the payload busy, no more than can be lost cheaply.

* At first two for each core; then as many as the payload takes in `work_ahead_s`.
* Asked for when half of them are used, so that the answer comes before the last one is taken.
* Never beyond the bound on live ranges.
"""

from __future__ import annotations

LARGEST_REQUEST = 1000
"""Ranges in one request: more would only take memory on both sides, and servers time out."""
GROWTH = 8
"""The target grows at most so many times from one request to the next."""


class Prefetch:
    """Watches how fast ranges are taken and says how many to ask for. Times are monotonic."""

    def __init__(self, *, cores: int, work_ahead_s: float, bound: int) -> None:
        self._least = 2 * cores
        self._target = self._least
        self._work_ahead_s = work_ahead_s
        self._bound = bound
        self._taken_before: tuple[float, int] | None = None

    def wanted(self, *, ready: int, live: int, taken: int, now: float) -> int:
        """Ranges to ask for now; `taken` counts those that left *ready* since the start."""
        if ready > self._target // 2:
            return 0
        self._adapt(taken, now)
        room = min(self._target - ready, self._bound - live, LARGEST_REQUEST)
        return max(0, room)

    def _adapt(self, taken: int, now: float) -> None:
        before, self._taken_before = self._taken_before, (now, taken)
        if before is None or now <= before[0]:
            return
        rate = (taken - before[1]) / (now - before[0])
        target = int(rate * self._work_ahead_s)
        self._target = max(self._least, min(target, self._target * GROWTH))
