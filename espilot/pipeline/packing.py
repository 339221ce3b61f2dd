"""Arrow 4: done ranges go into archives.

An archive is sealed on disk first, then one transaction fixes its name and list; only after it are
the members deleted. What drops out of the archive fails with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from espilot.config import PackingConfig
from espilot.core.job import Phase
from espilot.core.packing import Backlog, Plan, choose
from espilot.errors import OutputError
from espilot.model import Archive, Counts, DoneRange, FailedRange
from espilot.ports import RangeQueue


class Packing:
    """The backlog of done ranges, read from the queue bit by bit."""

    def __init__(self, queue: RangeQueue, config: PackingConfig) -> None:
        self._queue = queue
        self._config = config
        self._backlog = Backlog()
        self._rows: dict[str, DoneRange] = {}
        self._seen = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all outputs that wait."""
        return self._backlog.size_bytes

    def hasten(self, max_age_s: float) -> None:
        """From now on no output waits longer than this."""
        self._config = replace(self._config, max_age_s=min(max_age_s, self._config.max_age_s))

    def refresh(self) -> None:
        """Read what has come since the last time."""
        done, self._seen = self._queue.done(self._seen)
        for row in done:
            self._rows[row.id] = row
            self._backlog.add(row.id, row.size_bytes, row.done_at, row.cost_s)

    def choose(self, *, now: float, flush: bool) -> Plan:
        """The next archive, or when it will be due (Unix time)."""
        return choose(self._backlog, self._config, now=now, flush=flush)

    def rows(self, ids: Sequence[str]) -> list[DoneRange]:
        """The done ranges of a plan."""
        return [self._rows[range_id] for range_id in ids]

    def book(
        self, archive: Archive | None, dropped: Sequence[tuple[str, OutputError]], *, now: float
    ) -> list[DoneRange]:
        """Commit a sealed archive and what dropped out of it; returns the packed ranges."""
        with self._queue.moves() as moves:
            for range_id, error in dropped:
                failure = FailedRange(range_id, False, error.code, str(error)[:500])
                moves.drop(range_id, failure, now=now)
            if archive is not None:
                moves.pack(archive)
        packed = () if archive is None else archive.ids
        ended = [*packed, *(range_id for range_id, _ in dropped)]
        self._backlog.remove(ended)
        rows = {range_id: self._rows.pop(range_id) for range_id in ended}
        return [rows[range_id] for range_id in packed]


def flush_wanted(counts: Counts, phase: str, bound: int) -> bool:
    """Whether everything done is to be packed now, whatever its age and size.

    So it is when the job ends, and when the bound on live ranges stops the fetching.
    """
    return ends(counts, phase) or counts.live >= bound


def ends(counts: Counts, phase: str) -> bool:
    """Whether no more outputs come."""
    idle = counts.ready == 0 and counts.sent == 0
    return phase in (Phase.SETTLING, Phase.ENDING) or (phase == Phase.EXHAUSTED and idle)
