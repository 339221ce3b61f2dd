"""How many ranges to ask for: enough to keep the payload busy, no more than can be lost cheaply.

* At first two for each core; then as many as the payload takes in `work_ahead_s`.
* Where the answer takes long, also what is taken in three such times.
* Asked for when half of them are used, so that the answer comes before the last one is taken.
* Never beyond the bound on live ranges.
"""

from __future__ import annotations

from espilot.core.pace import Smoothed

LARGEST_REQUEST = 1000
"""Ranges in one request: more would only take memory on both sides, and servers time out."""
ROUND_TRIPS = 3.0
"""So that half of it is left for one and a half times as long as an answer takes."""
GROWTH = 8
"""The target grows at most so many times from one request to the next."""


class Prefetch:
    """Watches how fast ranges are taken and says how many to ask for. Times are monotonic."""

    def __init__(
        self, *, cores: int, work_ahead_s: float, bound: int, largest: int = LARGEST_REQUEST
    ) -> None:
        self._least = 2 * cores
        self._largest = largest
        self._target = self._least
        self._work_ahead_s = work_ahead_s
        self._bound = bound
        self._taken_before: tuple[float, int] | None = None

    def wanted(
        self, *, ready: int, live: int, taken: int, now: float, round_trip_s: float = 0.0
    ) -> int:
        """Ranges to ask for now; `taken` counts those that left *ready* since the start.

        `round_trip_s` is how long answers take.
        """
        if ready > self._target // 2:
            return 0
        self._adapt(taken, now, self._work_ahead_s + ROUND_TRIPS * round_trip_s)
        room = min(self._target - ready, self._bound - live, self._largest)
        return max(0, room)

    def _adapt(self, taken: int, now: float, ahead_s: float) -> None:
        before, self._taken_before = self._taken_before, (now, taken)
        if before is None or now <= before[0]:
            return
        rate = (taken - before[1]) / (now - before[0])
        target = int(rate * ahead_s)
        self._target = max(self._least, min(target, self._target * GROWTH))


class Request:
    """A request for ranges whose answer may take several calls: how many were asked for (0: none
    is under way), and how long answers take.
    """

    def __init__(self) -> None:
        self.n = 0
        self._began = 0.0
        self._round_trip = Smoothed()

    @property
    def round_trip_s(self) -> float:
        """Seconds from a request to its answer; 0 before the first."""
        return self._round_trip.value or 0.0

    def begin(self, n: int, now: float) -> None:
        """Ask for `n`, or once more for what was asked for."""
        if not self.n:
            self.n, self._began = n, now

    def cancel(self) -> None:
        """It is taken back."""
        self.n = 0

    def end(self, now: float) -> None:
        """It is answered."""
        self._round_trip.add(now - self._began)
        self.n = 0
