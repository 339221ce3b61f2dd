"""How a run stands, and how it ended."""

from __future__ import annotations

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


@dataclass(slots=True)
class Outcome:
    """How the run ended: `finished`, `failed` or `drained`.

    `task` holds the fields of `model.TaskStatus`, if the server told; `reason` is "" when the end
    was the natural one.
    """

    state: str = "failed"
    task: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    jobs: int = 0
    counts: Counts | None = None
