"""How a pilot stands at one instant, as facts: for `espilot status`, and whatever else shows it.

Times are Unix seconds; what is not known is None or empty. What only a living pilot knows (rates,
deadline, verdicts, health of the storage) is empty for a dead one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from espilot.model import AtRisk, Counts, RangeState

SCHEMA = "espilot.status/1"


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is."""

    workdir: str
    state_dir: str
    storage: str
    log: str


@dataclass(frozen=True, slots=True)
class JobView:
    """The present job; `panda_id` 0: none. `phase` is that of the job, `payload` its life."""

    panda_id: int = 0
    task_id: int = 0
    phase: str = ""
    payload: str = ""
    epoch: int = 0
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class StageoutView:
    """What is made and not on the storage, and since when the oldest of it is."""

    lag_s: float = 0.0
    archives: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class StorageHealthView:
    """`ok`, `behind`, `trouble`, `given-up`, or "" when nobody knows."""

    state: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DeadlineView:
    """When the pilot must be gone and who says so; `draining` is why it drains, `step` how far."""

    in_s: float | None = None
    source: str = ""
    draining: str = ""
    step: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """One figure of what is used, against its limit if it has one."""

    name: str
    value: float
    limit: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it. `note` says why less is known than could be.

    `told_at` is when the pilot told what it alone knows (rates, deadline, storage, verdicts,
    resources), where that was not just now; None as well when nothing of it is known.
    """

    taken_at: float
    running: bool
    pid: int | None
    run_state: str
    task: str
    total: int
    places: Places
    counts: Counts
    at_risk: AtRisk
    job: JobView = field(default_factory=JobView)
    stageout: StageoutView = field(default_factory=StageoutView)
    storage: StorageHealthView = field(default_factory=StorageHealthView)
    deadline: DeadlineView = field(default_factory=DeadlineView)
    rates: Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[Mapping[str, Any], ...] = ()
    resources: tuple[Resource, ...] = ()
    pids: Mapping[str, int] = field(default_factory=dict)
    roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    note: str = ""
    next_step: str = ""
    told_at: float | None = None


NO_COUNTS = Counts(*[0] * 15)
"""Of a queue that is not there yet."""


def by_state(counts: Counts) -> dict[str, int]:
    """Live ranges by state, in the order of their life."""
    return {state.value: getattr(counts, state.value) for state in RangeState}


def totals(counts: Counts) -> dict[str, int]:
    """What ended since the queue was made."""
    return {
        "finished": counts.finished,
        "failed": counts.failed_total,
        "fatal": counts.fatal_total,
        "released": counts.released,
        "events": counts.events,
        "archives": counts.archives,
        "bytes": counts.bytes,
    }


def as_document(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as an object for JSON, `espilot.status/1`."""
    fields = asdict(snapshot)
    del fields["counts"], fields["at_risk"]
    risk = snapshot.at_risk
    return {
        "schema": SCHEMA,
        **fields,
        "ranges": by_state(snapshot.counts),
        "totals": totals(snapshot.counts),
        "at_risk": {"ranges": risk.ranges, "cpu_minutes": round(risk.cpu_s / 60, 2)},
    }


def resources_of(
    used: Mapping[str, float], limits: Mapping[str, float], wall_s: float | None
) -> tuple[Resource, ...]:
    """What the payload has used at most, beside the limits of the settings (0: no limit).

    `used` has the fields of `core.usage.Totals`, `limits` those of the section [limits].
    """
    rows = (
        ("peak PSS", "max_pss_bytes", "memory_bytes", "bytes"),
        ("peak RSS", "max_rss_bytes", "", "bytes"),
        ("peak work dir", "max_workdir_bytes", "workdir_bytes", "bytes"),
        ("peak processes", "max_processes", "processes", ""),
        ("CPU time", "cpu_s", "", "s"),
        ("bytes read", "read_bytes", "", "bytes"),
        ("bytes written", "written_bytes", "", "bytes"),
    )
    found = [
        Resource(name, used[key], limits.get(limit) or None, unit)
        for name, key, limit, unit in rows
        if key in used
    ]
    if wall_s is not None:
        found.append(Resource("wall time", wall_s, limits.get("wall_s") or None, "s"))
    return tuple(found)
