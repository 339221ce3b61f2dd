"""Gathers how a pilot stands, alive or dead: its own words, its queue, its records.

The figures of ranges always come from the queue, read without asking anybody; what only the
supervisor knows is asked for, and done without when it does not answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from espilot.adapters.openfiles import has_open
from espilot.adapters.state_files import read_object
from espilot.config import read_settings
from espilot.errors import ConfigError, EspilotError, LocalError, UsageError
from espilot.model import ArchiveState, AtRisk, Counts, JobRecord
from espilot.queue.reading import QueueReader
from espilot.supervisor.people import ask
from espilot.supervisor.resume import OVER, read_run
from espilot.supervisor.standing import KEPT
from espilot.supervisor.statedir import read_record
from espilot.view.snapshot import (
    NO_COUNTS,
    DeadlineView,
    JobView,
    Places,
    Snapshot,
    StageoutView,
    StorageHealthView,
    resources_of,
)
from espilot.wire.messages import StatusAnswer, StatusRequest

ANSWER_S = 2.0
Facts = Mapping[str, Any]


def observe(state: Path, *, now: float) -> Snapshot:
    """The snapshot of the pilot that uses, or used, this state directory; nothing is changed.

    Errors: `QueueError` for a queue that cannot be read, `LocalError` for one of another version.
    """
    run, pid = read_run(state), living_pilot(state)
    answer, notes = ask_pilot(state) if pid else ({}, [])
    facts = answer or read_object(state / KEPT)
    told_at = None if answer else told_at_of(facts)
    counts, at_risk, stageout, record = NO_COUNTS, AtRisk(0, 0.0, 0.0), StageoutView(), None
    try:
        with closing(QueueReader(state / "queue")) as queue:
            counts = queue.counts()
            at_risk = risk_of(queue, facts, now if pid else min(now, last_write(state)), now)
            stageout, record = stageout_of(queue, counts, at_risk), queue.job()
            epoch = queue.epoch()
    except UsageError as error:
        notes, epoch = [*notes, str(error)], 0
    settings = run.get("settings") or {}
    run_state = str(run.get("state") or "unknown")
    return Snapshot(
        taken_at=now,
        running=pid is not None,
        pid=pid,
        run_state=run_state,
        task=str((run.get("task") or {}).get("name", "")),
        total=total_of(run.get("task") or {}),
        places=places_of(state, run),
        counts=counts,
        at_risk=at_risk,
        job=job_of(record, answer, epoch),
        stageout=stageout,
        storage=StorageHealthView(*texts(facts.get("run"), "storage", "storage_reason")),
        deadline=deadline_of((facts.get("run") or {}).get("drain") or {}),
        rates=facts.get("rates") or {},
        verdicts=tuple(facts.get("verdicts") or ()),
        resources=resources_of(
            facts.get("resources") or {},
            settings.get("limits") or {},
            wall_of(facts, told_at or now),
        ),
        pids=answer.get("pids") or {},
        roles=facts.get("roles") or {},
        told_at=told_at,
        note="; ".join(notes),
        next_step=next_step(state, running=pid is not None, silent=not answer, run_state=run_state),
    )


def living_pilot(state: Path) -> int | None:
    """The pid of the pilot that holds this state directory; its number alone proves nothing."""
    pid = read_record(state).get("pid")
    return pid if isinstance(pid, int) and has_open(pid, state / "lock") else None


def require_pilot(state: Path) -> tuple[int, Path]:
    """Pid and runtime directory of the pilot on this state directory; `LocalError` without one."""
    pid = living_pilot(state)
    if pid is None:
        raise LocalError(f"no pilot runs on {state}; what one left: espilot status {state}")
    return pid, Path(str(read_record(state).get("runtime", "")))


def ask_pilot(state: Path) -> tuple[Facts, list[str]]:
    """What the supervisor says, and why it says nothing."""
    try:
        runtime = Path(str(read_record(state).get("runtime", "")))
        answer = ask(runtime, StatusRequest(), StatusAnswer, timeout_s=ANSWER_S)
    except EspilotError as error:
        return {}, [f"the pilot cannot be asked: {error}"]
    if answer is None:
        return {}, [f"the pilot does not answer within {ANSWER_S:g} s, this is from its queue"]
    return answer.facts, []


def stageout_of(queue: QueueReader, counts: Counts, at_risk: AtRisk) -> StageoutView:
    """What waits for the storage."""
    if not counts.done and not counts.packed:
        return StageoutView()
    archives = queue.archives(ArchiveState.PACKED)
    return StageoutView(at_risk.lag_s, len(archives), sum(a.size_bytes for a in archives))


def told_at_of(facts: Facts) -> float | None:
    """When the supervisor wrote down what it knew; None when it never did."""
    at = facts.get("t")
    return float(at) if isinstance(at, int | float) else None


def last_write(state: Path) -> float:
    """When somebody last moved a range, in Unix time."""
    return (state / "queue" / "data.mdb").stat().st_mtime


def risk_of(queue: QueueReader, facts: Facts, until: float, now: float) -> AtRisk:
    """What is at risk; what was in hand worked until then, what was made waits until now."""
    risk = queue.at_risk(until, ahead=ahead_of(facts))
    return replace(risk, lag_s=risk.lag_s + now - until) if risk.lag_s else risk


def ahead_of(facts: Facts) -> int:
    """How many sent ranges no client has yet; only a living pilot knows."""
    ahead = ((facts.get("roles") or {}).get("dispatcher") or {}).get("ahead")
    return ahead if isinstance(ahead, int) else 0


def job_of(record: JobRecord | None, facts: Facts, epoch: int) -> JobView:
    """The job by the queue; what its payload does only the supervisor knows."""
    run = facts.get("run") or {}
    payload, jobs = str(run.get("life") or ""), int(run.get("jobs") or 0)
    if record is None:
        return JobView(epoch=epoch, payload=payload, jobs=jobs)
    job = record.job
    return JobView(job.panda_id, job.task_id, record.phase, payload, epoch, jobs)


def deadline_of(drain: Facts) -> DeadlineView:
    """When the pilot must be gone."""
    in_s = drain.get("deadline_in_s")
    source, draining, step = texts(drain, "deadline_source", "draining", "step")
    known_s = float(in_s) if isinstance(in_s, int | float) else None
    return DeadlineView(known_s, source, draining, step)


def texts(facts: Facts | None, *names: str) -> tuple[str, ...]:
    """Some facts as text, "" for those that are not there."""
    return tuple(str((facts or {}).get(name) or "") for name in names)


def wall_of(facts: Facts, now: float) -> float | None:
    """How long the pilot runs already."""
    started_at = facts.get("started_at")
    return max(0.0, now - started_at) if isinstance(started_at, int | float) else None


def places_of(state: Path, run: Facts) -> Places:
    """Where everything is."""
    workdir, storage = texts(run, "workdir", "storage")
    return Places(workdir, str(state), storage, str(Path(workdir) / "logs" / "pilot.log"))


def total_of(task: Facts) -> int:
    """Ranges of the task; 0 when that is not known."""
    try:
        return read_settings({"task": task}, "run.json").task.total_ranges
    except ConfigError:
        return 0


def next_step(state: Path, *, running: bool, silent: bool, run_state: str) -> str:
    """A command that helps."""
    if running:
        return f"espilot dump {state}   # what it is doing" if silent else ""
    return "" if run_state in OVER else f"espilot recover {state}"
