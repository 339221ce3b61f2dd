"""What a drain is planned with: the queue's counts, and what the roles measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espilot.core.drain import Pace, Stock
from espilot.core.pace import SPREAD, Residence
from espilot.model import ArchiveState, Counts
from espilot.queue.store import Queue
from espilot.wire.messages import Alive
from espilot.workers.context import Context

OUTPUT_BYTES = 1e6
"""Size of an output before the first one is known."""


class Figures:
    """Collects at each look; asks nobody."""

    def __init__(self, context: Context, queue: Queue) -> None:
        self._context = context
        self._queue = queue
        self._residence = Residence()
        self._facts: dict[str, Mapping[str, Any]] = {}

    def heard(self, alive: Alive) -> None:
        """A role told its figures."""
        self._facts[alive.role] = alive.facts

    def observe(self, counts: Counts, now: float) -> None:
        """Look at the counts, about once a second."""
        made = counts.done + counts.packed + counts.staged + counts.failed + counts.fatal
        ended = made + counts.finished + counts.failed_total + counts.fatal_total
        self._residence.observe(now, inside=counts.sent, ended=ended)

    def stock(
        self, counts: Counts, *, payload_alive: bool, storage: str, is_event: bool = True
    ) -> Stock:
        """What is on the node."""
        archives = self._queue.archives(ArchiveState.PACKED) if counts.packed else []
        return Stock(
            # A job without ranges is one piece of work.
            running=counts.sent or int(payload_alive and not is_event),
            ready=counts.ready,
            done=counts.done,
            packed=counts.packed,
            staged=counts.staged,
            done_bytes=counts.done * self._output_bytes(counts),
            packed_bytes=float(sum(archive.size_bytes for archive in archives)),
            payload_alive=payload_alive,
            storage_ok=storage == "ok",
            spared=bool(self._context.settings.recovery_dir),
        )

    def pace(self, counts: Counts) -> Pace:
        """How fast things go; defaults where nothing is measured yet."""
        usual, mean_s = Pace(), self._residence.mean_s
        range_s = self._number("dispatcher", "range_median_s") or mean_s
        p95_s = self._number("dispatcher", "range_p95_s")
        if p95_s is None and range_s is not None:
            p95_s = SPREAD * range_s
        return Pace(
            range_s=range_s,
            range_p95_s=p95_s,
            output_bytes=self._output_bytes(counts),
            pack_rate=self._number("stageout", "pack_rate") or usual.pack_rate,
            upload_rate=self._number("stageout", "upload_rate") or usual.upload_rate,
            report_s=self._number("event-server", "reports_s") or usual.report_s,
            update_s=self._number("event-server", "updates_s") or usual.update_s,
            term_s=self._context.settings.payload.term_grace_s,
        )

    def _output_bytes(self, counts: Counts) -> float:
        if counts.finished:
            return counts.bytes / counts.finished
        done, _ = self._queue.done() if counts.done else ([], 0)
        return sum(row.size_bytes for row in done) / len(done) if done else OUTPUT_BYTES

    def _number(self, role: str, name: str) -> float | None:
        value = self._facts.get(role, {}).get(name)
        return float(value) if isinstance(value, int | float) and value > 0 else None
