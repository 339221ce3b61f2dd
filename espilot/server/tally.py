"""Counting the ranges of a task: kept up to date with each change, counted anew at each job end."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass

from espilot.server.schema import EventStatus


@dataclass(frozen=True, slots=True)
class Tally:
    """Ranges of a task by fate; each range is counted once, whatever its attempts.

    `ready` includes failed ones whose next attempt comes when their job has ended; `failed` are
    out of attempts, `fatal` were reported so.
    """

    ready: int = 0
    sent: int = 0
    finished: int = 0
    failed: int = 0
    fatal: int = 0
    events_finished: int = 0


def recount(db: sqlite3.Connection, task_id: int) -> Tally:
    """Count the task's ranges anew from its rows and store the result."""
    counts = dict.fromkeys(("ready", "sent", "finished", "failed", "fatal"), 0)
    events = 0
    for row in db.execute(
        "SELECT status, min(attempt_nr, 2) AS attempt, fatal, count(*) AS n,"
        " sum(last_event - start_event + 1) AS events FROM event"
        " WHERE task_id = ? AND copied = 0 GROUP BY 1, 2, 3",
        (task_id,),
    ).fetchall():
        fate = fate_of(row["status"], row["attempt"], bool(row["fatal"]))
        counts[fate] += row["n"]
        events += row["events"] if fate == "finished" else 0
    tally = Tally(**counts, events_finished=events)
    db.execute(
        "UPDATE task SET ready = :ready, sent = :sent, finished = :finished, failed = :failed,"
        " fatal = :fatal, events_finished = :events_finished WHERE task_id = :task_id",
        {**asdict(tally), "task_id": task_id},
    )
    return tally


def fate_of(status: int, attempt_nr: int, fatal: bool) -> str:
    """Under what a row that has no copy is counted; see `Tally`."""
    if status in (EventStatus.FINISHED, EventStatus.DONE, EventStatus.MERGED):
        return "finished"
    if status in (EventStatus.SENT, EventStatus.RUNNING):
        return "sent"
    attempts_left = attempt_nr - (1 if status == EventStatus.FAILED else 0)
    if status in (EventStatus.READY, EventStatus.FAILED) and not fatal and attempts_left > 0:
        return "ready"
    return "fatal" if fatal else "failed"


def add(db: sqlite3.Connection, task_id: int, change: Tally) -> None:
    """Book a change, so that asking for the state needs no counting."""
    db.execute(
        "UPDATE task SET ready = ready + :ready, sent = sent + :sent,"
        " finished = finished + :finished, failed = failed + :failed, fatal = fatal + :fatal,"
        " events_finished = events_finished + :events_finished WHERE task_id = :task_id",
        {**asdict(change), "task_id": task_id},
    )
