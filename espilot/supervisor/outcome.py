"""How a run stands, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from espilot.model import Counts


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the run stands, for progress."""

    counts: Counts
    panda_id: int
    phase: str
    life: str
    jobs: int
    storage: str
    drain: Mapping[str, Any] = field(default_factory=dict)
    """Reason and step of the drain, deadline and its source: see `supervisor/drain.py`."""


@dataclass(slots=True)
class Outcome:
    """How the run ended: `finished`, `failed` or `drained`.

    `task` holds the fields of `model.TaskStatus`, if the server told; `reason` is "" when the end
    was the natural one. `code` is a pilot error code, 0 for none; `signal` the first that came.
    `drained_by` is the source of the deadline that a drain has kept.
    """

    state: str = "failed"
    task: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    jobs: int = 0
    counts: Counts | None = None
    code: int = 0
    signal: int = 0
    drained_by: str = ""

    @property
    def task_state(self) -> str:
        """How the task stands: a run may fail for a reason of this node, and its task go on."""
        return str(self.task.get("state") or "running")

    def explain(self, code: int, signals: Sequence[int], drained_by: str) -> None:
        """Add why it ended: the error of the last job, the signals, the deadline of the drain."""
        told = self.task.get("code")
        self.code = code or (told if isinstance(told, int) else 0)
        self.reason = self.reason or str(self.task.get("reason") or "")
        self.signal = signals[0] if signals else 0
        self.drained_by = drained_by

    def complete(self, counts: Counts) -> None:
        """Add the queue's counts, which also stand for what the server did not tell."""
        self.counts = counts
        if not self.task:
            # Failed ranges may have another attempt, so they do not count as failed for good.
            self.task = {
                "finished": counts.finished,
                "fatal": counts.fatal_total,
                "events_finished": counts.events,
            }
