"""Sums over time in a fixed number of bins, which grow wider as the time grows longer.

So a run of a minute and one of a week take the same memory, and a reader always sees all of it.
"""

from __future__ import annotations

from collections.abc import Mapping

BINS = 240
LEAST_S = 0.5


class History:
    """Named series on one scale; `start` is the Unix time of the first bin, None: nothing yet."""

    def __init__(self, bins: int = BINS) -> None:
        self.start: float | None = None
        self.width_s = LEAST_S
        self._bins = bins
        self._series: dict[str, list[float]] = {}

    @property
    def series(self) -> Mapping[str, list[float]]:
        """The sums of each bin, by name of the series."""
        return self._series

    def add(self, name: str, t: float, amount: float = 1.0) -> None:
        """Add to the bin of that time; what is earlier than the first bin counts there."""
        at = self._reach(t)
        self._of(name)[at] += amount

    def add_span(self, name: str, begin: float, end: float) -> None:
        """Add the seconds from `begin` to `end` to all bins that they touch."""
        self._reach(begin)  # the first bin, if this is the first of all
        last, first = self._reach(max(begin, end)), self._reach(begin)
        sums, start = self._of(name), self.start or 0.0
        for at in range(first, last + 1):
            left = max(begin, start + at * self.width_s)
            right = min(end, start + (at + 1) * self.width_s)
            sums[at] += max(0.0, right - left)

    def forget(self, name: str) -> None:
        """Drop a series."""
        self._series.pop(name, None)

    def _of(self, name: str) -> list[float]:
        return self._series.setdefault(name, [0.0] * self._bins)

    def _reach(self, t: float) -> int:
        """The bin of a time, after making the bins as wide as it takes."""
        if self.start is None:
            self.start = t
        while t >= self.start + self._bins * self.width_s:
            self.width_s *= 2
            for name, sums in self._series.items():
                self._series[name] = self._halved(sums)
        return max(0, min(self._bins - 1, int((t - self.start) / self.width_s)))

    def _halved(self, sums: list[float]) -> list[float]:
        pairs = [a + b for a, b in zip(sums[::2], sums[1::2], strict=True)]
        return pairs + [0.0] * (self._bins - len(pairs))
