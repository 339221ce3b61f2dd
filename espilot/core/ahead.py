"""Ranges that are committed as sent before they are asked for.

Rules:

* A request that one of them answers need not wait for a transaction, and one transaction serves
  many.
* Twice as many are taken as went out since the last commit, if that was a moment ago; else one:
  where ranges take long, they are better ready than held.
* None while a suspect is in hand: whoever works on it shall be alone.
"""

from __future__ import annotations

from collections import deque

from espilot.model import EventRange

MOMENT_S = 0.02
"""Commits that follow each other so quickly are made for many requests at once."""


class Ahead:
    """The ranges taken ahead, and how many there should be."""

    def __init__(self, most: int) -> None:
        self.ranges: deque[EventRange] = deque()
        self._most = most
        self._handed_out = 0
        self._committed_at = 0.0

    def missing(self, handed_out: int, now: float) -> int:
        """How many to take in the commit at `now`; `handed_out` counts ranges since the start."""
        given, self._handed_out = handed_out - self._handed_out, handed_out
        quick = 0 <= now - self._committed_at < MOMENT_S
        self._committed_at = now
        wanted = min(self._most, 2 * given if quick and given else 1)
        return max(0, wanted - len(self.ranges))

    def pop(self, n: int) -> list[EventRange]:
        """Up to `n` of them, to be handed out."""
        return [self.ranges.popleft() for _ in range(min(n, len(self.ranges)))]

    def clear(self) -> list[str]:
        """Forget all of them; their ids."""
        ids = [each.id for each in self.ranges]
        self.ranges.clear()
        return ids
