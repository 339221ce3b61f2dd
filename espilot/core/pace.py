"""How fast things go: smoothed rates, and how long a range takes.

Rules:
* A rate follows the newest transfers: each one counts four times as much as the one before it
  would four transfers later (a factor of `KEEP` per transfer).
* How long a range takes is told by the dispatcher when enough of them ended. Until then it follows
  from how many are in work and how many end (the mean of a queue: number inside / rate).
"""

from __future__ import annotations

from collections import deque

KEEP = 0.7
SPREAD = 2.0
"""The 95th percentile as a multiple of the mean, where only the mean is known."""


class Rate:
    """Bytes per second, smoothed over transfers."""

    __slots__ = ("_duration_s", "_size_bytes")

    def __init__(self) -> None:
        self._size_bytes = self._duration_s = 0.0

    def add(self, size_bytes: float, duration_s: float) -> None:
        """One transfer."""
        self._size_bytes = KEEP * self._size_bytes + size_bytes
        self._duration_s = KEEP * self._duration_s + max(duration_s, 1e-6)

    @property
    def value(self) -> float | None:
        """Bytes per second; None before the first transfer."""
        return self._size_bytes / self._duration_s if self._size_bytes else None


class Smoothed:
    """A duration, smoothed over calls."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, duration_s: float) -> None:
        """One call."""
        former = duration_s if self.value is None else self.value
        self.value = KEEP * former + (1.0 - KEEP) * duration_s


class Residence:
    """Mean time that a range is in work, from counts alone."""

    def __init__(self, kept: int = 120) -> None:
        self._looks: deque[tuple[float, float, int]] = deque(maxlen=kept)

    def observe(self, now_mono: float, *, inside: int, ended: int) -> None:
        """`inside` ranges are in work, `ended` is the sum of those that ever ended."""
        area = 0.0
        if self._looks:
            before_mono, before_area, before_ended = self._looks[-1]
            area = before_area + max(0.0, now_mono - before_mono) * inside
            ended = max(ended, before_ended)
        self._looks.append((now_mono, area, ended))

    @property
    def mean_s(self) -> float | None:
        """Seconds; None as long as no range has ended while we looked."""
        if not self._looks:
            return None
        _, first_area, first_ended = self._looks[0]
        _, last_area, last_ended = self._looks[-1]
        ended = last_ended - first_ended
        return (last_area - first_area) / ended if ended else None
