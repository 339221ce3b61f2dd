"""How long things took, as counts by size: what Prometheus calls a histogram."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

CALLS_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Bounds for calls and transfers."""
RANGES_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10800.0)
"""Bounds for what takes as long as a range does."""


class Histogram:
    """Counts durations by upper bounds, which ascend; beyond the last one is a place as well."""

    __slots__ = ("bounds", "counts", "sum_s")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum_s = 0.0

    def add(self, duration_s: float) -> None:
        """One more; a bound belongs to its place."""
        self.counts[bisect_left(self.bounds, duration_s)] += 1
        self.sum_s += duration_s

    def facts(self) -> dict[str, Any]:
        """For messages; `read_histogram` reads it back."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum_s": self.sum_s}


def read_histogram(facts: Mapping[str, Any]) -> Histogram:
    """A histogram from its facts."""
    found = Histogram(facts["bounds"])
    found.counts = list(facts["counts"])
    found.sum_s = float(facts["sum_s"])
    return found
