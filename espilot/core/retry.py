"""How long to wait before the next try: an exponential back-off with jitter, as a value.

Rules:
* The n-th pause lies between half and all of `min_s * factor ** n`, never outside
  `min_s`..`max_s`. The jitter keeps many pilots from returning to a sick server together.
* Chance is given from outside as a number from 0 to 1; the same number gives the same pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

_LARGEST_EXPONENT = 64
"""Beyond it every pause is the longest one; a larger power would overflow."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses from `min_s` to `max_s`; `attempts` tries in all, 0 for no end."""

    min_s: float
    max_s: float
    attempts: int = 0
    factor: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_s <= self.max_s:
            raise ValueError(f"pauses from {self.min_s} s to {self.max_s} s make no range")
        if self.attempts < 0 or self.factor < 1:
            raise ValueError(f"attempts {self.attempts} or factor {self.factor} too small")

    @classmethod
    def between(cls, min_s: float, max_s: float, *, attempts: int = 0) -> Self:
        """As settings have it: a longest pause below the shortest one counts as equal."""
        return cls(min_s, max(min_s, max_s), attempts=attempts)

    def next_delay(self, attempt: int, chance: float) -> float | None:
        """Tell the pause in seconds after `attempt` failed tries (1, 2, ...); None: give up."""
        if self.attempts and attempt >= self.attempts:
            return None
        exponent = min(max(attempt, 1), _LARGEST_EXPONENT)
        longest_s = min(self.max_s, self.min_s * self.factor**exponent)
        shortest_s = max(self.min_s, longest_s / 2)
        return shortest_s + min(max(chance, 0.0), 1.0) * (longest_s - shortest_s)
