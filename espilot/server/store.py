"""The state of the built-in server: one connection, one transaction per verb.

Every verb is committed when it returns, and the commit survives the death of the process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espilot.model import ArchiveFacts
from espilot.server import (
    job_end,
    job_updates,
    jobs,
    merge_inputs,
    ranges,
    tally,
    tasks,
    worker_states,
)
from espilot.server.options import ServerOptions
from espilot.server.schema import open_database, transaction
from espilot.server.tasks import NewTask
from espilot.wire.panda_reports import RangeUpdate


class Store:
    """Tasks, jobs and ranges. `now` is Unix time in seconds; the store has no clock."""

    def __init__(self, path: Path, options: ServerOptions, *, now: float) -> None:
        # Ids begin with the time, so that two databases hardly ever give the same PandaID.
        self._db: sqlite3.Connection = open_database(path, first_id=max(1, int(now)))
        self._options = options

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def create_task(self, task: NewTask, now: float) -> int:
        """Make a task with all its ranges; its id."""
        with transaction(self._db) as db:
            return tasks.create(db, task, now)

    def task_ids(self) -> list[int]:
        """All tasks, the oldest first."""
        return [int(row[0]) for row in self._db.execute("SELECT task_id FROM task ORDER BY rowid")]

    def task_shapes(self) -> list[tuple[str, int, int]]:
        """Name, events and events per range of all tasks, the oldest first."""
        rows = self._db.execute("SELECT name, events, events_per_range FROM task ORDER BY rowid")
        return [tuple(row) for row in rows]

    def task_status(self, task_id: int) -> dict[str, Any]:
        """The fields of a `TaskStatus`."""
        return tasks.status(self._db, task_id)

    def event_rows(self, task_id: int) -> list[dict[str, Any]]:
        """All event rows of a task."""
        return tasks.event_rows(self._db, task_id)

    def acquire_jobs(self, wanted: Mapping[str, Any], now: float) -> list[dict[str, Any]]:
        """Definitions of waiting jobs, now handed out; lost jobs are ended first."""
        self.fail_lost_jobs(now)
        with transaction(self._db) as db:
            return jobs.acquire(db, wanted, now, self._options)

    def job_statuses(self, job_ids: list[int]) -> list[dict[str, Any]]:
        """Status and attempt of jobs."""
        return jobs.statuses(self._db, job_ids)

    def update_job(self, given: Mapping[str, Any], now: float) -> str:
        """Book a heartbeat or final update; the command."""
        with transaction(self._db) as db:
            return job_updates.update(db, given, now, self._options)

    def fail_lost_jobs(self, now: float) -> int:
        """End the jobs that were not heard of in time."""
        with transaction(self._db) as db:
            lost = job_updates.fail_lost(db, now, self._options)
            for row in db.execute(
                "SELECT task_id FROM task WHERE jumbo_jobs != 0 AND state = 'running'"
            ).fetchall():
                job_end.tend(db, row["task_id"], now, self._options)
            return lost

    def acquire_ranges(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Ready ranges, now the job's; none is ever given twice."""
        with transaction(self._db) as db:
            return ranges.acquire(db, wanted, self._options.quirks)

    def count_ready(self, job_id: int, jobset_id: int) -> int:
        """Ready ranges with attempts left that the job could get."""
        return ranges.count_ready(self._db, job_id, jobset_id)

    def range_statuses(self, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Status of the ranges that each (task, job) holds."""
        return ranges.statuses(self._db, pairs)

    def update_ranges(
        self, updates: Sequence[RangeUpdate], fault: str = ""
    ) -> tuple[list[bool | None], Mapping[str, Any]]:
        """Book the fate of ranges; entries and commands.

        When one item cannot be stored nothing is, and the entries so far are followed by false;
        a fault of that name makes it look so.
        """
        try:
            with transaction(self._db) as db:
                entries, commands = ranges.update(db, updates, self._options.quirks)
                if fault.startswith("rollback"):
                    kept = len(entries) // 2 if fault == "rollback_midway" else len(entries)
                    raise ranges.BatchAborted("a fault", entries[:kept], commands)
        except ranges.BatchAborted as error:
            return [*error.entries, False], error.commands
        return (entries, commands) if not fault else ([*entries, False], commands)

    def pilot_fields(self, panda_id: int) -> dict[str, Any]:
        """What the last update of a job said."""
        return jobs.pilot_fields(self._db, panda_id)

    def archives(self, panda_id: int) -> list[str]:
        """Names of the archives of a job."""
        query = "SELECT lfn FROM archive WHERE panda_id = ? ORDER BY lfn"
        return [str(row[0]) for row in self._db.execute(query, (panda_id,))]

    def finished_archives(self) -> list[ArchiveFacts]:
        """The archives in which finished ranges are, of all tasks."""
        return merge_inputs.finished_archives(self._db)

    def set_command(self, panda_id: int, command: str) -> None:
        """Store what the job's pilot shall hear at its next call."""
        with transaction(self._db) as db:
            jobs.set_command(db, panda_id, command)

    def forget_job(self, panda_id: int, now: float) -> None:
        """The job is gone, as if somebody had ended it."""
        with transaction(self._db) as db:
            job_updates.forget(db, panda_id, now, self._options)

    def job_commands(self, job_ids: list[int]) -> list[dict[str, Any]]:
        """Status and command of jobs; an unknown one is to be killed."""
        return jobs.commands(self._db, job_ids)

    def update_worker(self, told: Mapping[str, Any], now: float) -> None:
        """Note the state of a Harvester's worker."""
        with transaction(self._db) as db:
            worker_states.note(db, told, now)

    def worker_states(self) -> dict[tuple[str, str], str]:
        """What workers last said, by Harvester and worker."""
        with transaction(self._db) as db:
            return worker_states.states(db)

    def check(self, task_id: int) -> None:
        """Prove that the running counts are those of the rows. Errors: `AssertionError`."""
        before = self.task_status(task_id)
        with transaction(self._db) as db:
            tally.recount(db, task_id)
        after = self.task_status(task_id)
        if before != after:
            raise AssertionError(f"counts {before} differ from rows {after}")
