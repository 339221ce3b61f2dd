"""When outputs become an archive, and which ones.

Rules:
* An archive is full when it has `max_ranges` ranges, or when the next output in order would take
  it over `max_bytes`. Full archives are packed at once.
* So is everything when the work in it reaches `risk_cpu_min`: what a dying node would lose is
  bounded however small or young the outputs are.
* What is not full waits until its oldest output is `max_age_s` old, or until a flush.
* Order is kept: ranges leave the backlog as they came, none overtakes another.
* An output larger than `max_bytes` goes alone; it is never refused here.
* An output from the future means that the clock was set back: its age is unknown, so it is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from espilot.config import PackingConfig


class Trigger(Enum):
    """Why an archive is made now."""

    COUNT = "count"
    """It has the largest number of ranges."""
    BYTES = "bytes"
    """It has the largest size, or the next output would make it larger."""
    RISK = "risk"
    """The work in all outputs that wait would cost too much to do again."""
    AGE = "age"
    """Its oldest output has waited long enough."""
    FLUSH = "flush"
    """Everything is wanted now: the job ends, or the bound on live ranges is reached."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The next archive, or none.

    With `ids`: pack these, remove them from the backlog, choose again. Without: nothing is due
    before `deadline`, the Unix time at which age forces an archive; None: the backlog is empty.
    """

    ids: tuple[str, ...] = ()
    trigger: Trigger | None = None
    deadline: float | None = None


class Backlog:
    """The ranges that wait to be packed, in order of arrival; no operation walks all of them."""

    __slots__ = ("_ages", "_cost_s", "_rows", "_size_bytes")

    def __init__(self) -> None:
        self._rows: dict[str, tuple[int, float, float]] = {}
        self._ages: list[tuple[float, str]] = []
        self._size_bytes = 0
        self._cost_s = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, range_id: object) -> bool:
        return range_id in self._rows

    @property
    def size_bytes(self) -> int:
        """Bytes of all outputs that wait."""
        return self._size_bytes

    @property
    def cost_s(self) -> float:
        """CPU seconds of work in all outputs that wait."""
        return self._cost_s

    def add(self, range_id: str, size_bytes: int, done_at: float, cost_s: float = 0.0) -> None:
        """Append a range of `cost_s` CPU seconds; one that already waits stays as it is."""
        if range_id in self._rows:
            return
        self._rows[range_id] = (size_bytes, done_at, cost_s)
        self._size_bytes += size_bytes
        self._cost_s += cost_s
        heapq.heappush(self._ages, (done_at, range_id))

    def remove(self, ids: Iterable[str]) -> None:
        """Forget ranges that were packed or dropped; an unknown id is no error."""
        for range_id in ids:
            row = self._rows.pop(range_id, None)
            if row is not None:
                self._size_bytes -= row[0]
                # A sum of fractions that are taken away again is not quite 0.
                self._cost_s = self._cost_s - row[2] if self._rows else 0.0

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield (id, bytes) in order of arrival."""
        for range_id, (size_bytes, _, _) in self._rows.items():
            yield range_id, size_bytes

    def oldest(self) -> float | None:
        """Tell when the longest waiting range was done; None when nothing waits."""
        while self._ages:
            done_at, range_id = self._ages[0]
            row = self._rows.get(range_id)
            # A range may come back under its id with another time: only its present row counts.
            if row is not None and row[1] == done_at:
                return done_at
            heapq.heappop(self._ages)
        return None


def choose(backlog: Backlog, config: PackingConfig, *, now: float, flush: bool) -> Plan:
    """Decide which ranges form the next archive; `now` is Unix time, like `done_at`."""
    oldest = backlog.oldest()
    if oldest is None:
        return Plan()
    due_at = oldest + config.max_age_s
    ageing = now >= due_at or oldest > now
    full = len(backlog) >= config.max_ranges or backlog.size_bytes >= config.max_bytes
    costly = 0 < config.risk_cpu_min * 60.0 <= backlog.cost_s
    if not (flush or ageing or full or costly):
        return Plan(deadline=due_at)
    ids, trigger = _first_archive(backlog, config)
    rest = Trigger.FLUSH if flush else Trigger.RISK if costly else Trigger.AGE
    return Plan(ids, trigger or rest)


def _first_archive(
    backlog: Backlog, config: PackingConfig
) -> tuple[tuple[str, ...], Trigger | None]:
    """Take ranges in order until one limit is reached; the trigger is None if none was."""
    ids: list[str] = []
    total_bytes = 0
    for range_id, size_bytes in backlog.sizes():
        if ids and total_bytes + size_bytes > config.max_bytes:
            return tuple(ids), Trigger.BYTES
        ids.append(range_id)
        total_bytes += size_bytes
        if total_bytes >= config.max_bytes:
            return tuple(ids), Trigger.BYTES
        if len(ids) >= config.max_ranges:
            return tuple(ids), Trigger.COUNT
    return tuple(ids), None
