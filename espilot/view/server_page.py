"""What the page of the built-in server shows: all its tasks and jobs, as an `espilot.page/1`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from espilot.view.cells import STATES, count_states
from espilot.view.forecast import Forecast, forecast
from espilot.view.health import LEVELS, Finding
from espilot.view.history import History
from espilot.view.job_lanes import JobLanes
from espilot.view.page_document import SCHEMA, Document, forecast_document, pace_text, tile
from espilot.view.wording import duration_text, plural, printable, size_text

Row = Mapping[str, Any]
RATE_S = 120.0
LATE_SHARE = 0.5
MOST_REASONS = 3


class ServerPage:
    """Keeps what one look cannot tell: how many ranges have finished since, and when."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._history = History()
        self._lanes = JobLanes()
        self._finished: int | None = None
        self._since = 0.0

    def document(
        self, tasks: Sequence[Row], jobs: Sequence[Row], storages: Sequence[Row],
        letters: str, *, now: float, lost_after_s: float,
    ) -> Document:  # fmt: skip
        """The page now."""
        finished = sum(task["finished"] for task in tasks)
        if self._finished is None:
            self._since = now
            self._history.add("reported", now, 0.0)
        self._history.add("reported", now, max(0, finished - (self._finished or finished)))
        self._finished = finished
        self._lanes.take(jobs, now)
        rate = self._rate(now)
        total = sum(task["total"] for task in tasks)
        health = sorted(
            examine(tasks, jobs, now=now, lost_after_s=lost_after_s),
            key=lambda each: LEVELS.index(each.level),
        )
        expected = forecast_of(tasks, rate, now)
        return {
            "schema": SCHEMA,
            "noun": "range",
            "taken_at": now,
            "running": True,
            "ended_at": None,
            "title": "event server",
            "state": {"text": state_text(tasks, jobs), "level": health[0].level},
            "tiles": list(tiles(tasks, jobs, rate)),
            "forecast": forecast_document(expected, rate),
            "health": [asdict(each) for each in health],
            "legend": [asdict(each) for each in STATES],
            "map": {
                "total": len(letters),
                "beyond": max(0, total - len(letters)),
                "counts": count_states(letters.encode()),
            },
            "cells": letters,
            "lanes": self._lanes.document(self._history.start or now, now),
            "history": self._history_document(now),
            "deadline_at": None,
            "stageout": [
                [f"on storage {printable(row['storage'])}",
                 f"{plural(row['archives'], 'archive')}, {size_text(row['bytes'])}"]
                for row in storages
            ],
            "resources": [],
            "facts": [["address", self.url]],
            "tables": [task_table(tasks), job_table(jobs, now)],
            "marks": [],
            "log": [],
        }  # fmt: skip

    def _rate(self, now: float) -> float:
        """Ranges per second of the last minutes."""
        history = self._history
        if history.start is None or now <= self._since:
            return 0.0
        last = int((now - history.start) / history.width_s)
        bins = max(1, int(RATE_S / history.width_s))
        sums = history.series["reported"][max(0, last - bins + 1) : last + 1]
        return sum(sums) / max(1.0, min(now - self._since, bins * history.width_s))

    def _history_document(self, now: float) -> Document:
        start, width_s = self._history.start or now, self._history.width_s
        n = int((now - start) / width_s) + 1
        sums = [int(each) for each in self._history.series["reported"][:n]]
        return {"from": start, "width_s": width_s, "made": [], "reported": sums, "failed": []}


def state_text(tasks: Sequence[Row], jobs: Sequence[Row]) -> str:
    """Everything in a few words."""
    running = sum(task["state"] == "running" for task in tasks)
    at_work = len(working(jobs))
    return f"{running} of {plural(len(tasks), 'task')} running, {plural(at_work, 'job')} at work"


def working(jobs: Sequence[Row]) -> list[Row]:
    """Jobs that a pilot has."""
    return [job for job in jobs if job["active"] and job["status"] != "activated"]


def tiles(tasks: Sequence[Row], jobs: Sequence[Row], rate: float) -> Iterator[dict[str, str]]:
    """The key figures."""
    sums = {name: sum(task[name] for task in tasks)
            for name in ("total", "ready", "sent", "finished", "failed", "fatal")}  # fmt: skip
    share = f"{sums['finished'] / max(1, sums['total']):.0%} of {sums['total']:,} ranges"
    events = sum(task["events_finished"] for task in tasks)
    yield tile("Finished", f"{sums['finished']:,}", f"{share}, {events:,} events", "ok")
    yield tile("In work", f"{sums['sent']:,}", "handed out to pilots", "note")
    yield tile("Waiting", f"{sums['ready']:,}", "to be handed out", "note")
    lost = sums["failed"] + sums["fatal"]
    note = f"{sums['fatal']:,} of them fatal"
    yield tile("Failed", f"{lost:,}", note, "bad" if lost else "ok")
    yield tile(
        "Jobs at work",
        f"{len(working(jobs)):,}",
        f"{plural(len(jobs), 'job')} in the table",
        "note",
    )
    yield tile("Pace", pace_text(rate), "ranges finished", "note")


def forecast_of(tasks: Sequence[Row], rate: float, now: float) -> Forecast:
    """When all tasks are over."""
    return forecast(
        total=sum(task["total"] for task in tasks),
        finished=sum(task["finished"] for task in tasks),
        lost=sum(task["failed"] + task["fatal"] for task in tasks),
        rate=rate,
        now=now,
        deadline_in_s=None,
    )


def examine(
    tasks: Sequence[Row], jobs: Sequence[Row], *, now: float, lost_after_s: float
) -> list[Finding]:
    """What is the matter; at least one sentence."""
    found = [*of_jobs(jobs, now=now, lost_after_s=lost_after_s), *of_tasks(tasks, jobs)]
    return found or [Finding("ok", "Nothing is wrong.")]


def of_jobs(jobs: Sequence[Row], *, now: float, lost_after_s: float) -> Iterator[Finding]:
    """Jobs that are silent or have failed."""
    for job in working(jobs):
        silent_s = now - job["updated_at"]
        if silent_s > LATE_SHARE * lost_after_s:
            text = f"Job {job['panda_id']} is silent for {duration_text(silent_s)}, "
            text += f"it is lost at {duration_text(lost_after_s)}."
            yield Finding("warn", text, "Look at its pilot: espilot status, on its node.")
    reasons = Counter(
        (job["error_code"], job["error_diag"]) for job in jobs if job["status"] == "failed"
    )
    for (code, diag), n in reasons.most_common(MOST_REASONS):
        text = f"{plural(n, 'job')} failed: {diag or 'no reason was given'} (code {code})."
        yield Finding(
            "warn", printable(text), "Its ranges go to other jobs while attempts are left."
        )


def of_tasks(tasks: Sequence[Row], jobs: Sequence[Row]) -> Iterator[Finding]:
    """Tasks that nobody works on or that cannot be finished."""
    if not tasks:
        yield Finding("note", "There is no task.", "Make one: espilot server --task JOB.toml")
    waiting = sum(task["ready"] for task in tasks)
    if waiting and not working(jobs):
        text = f"{plural(waiting, 'range')} wait, and no pilot works."
        yield Finding("warn", text, "Start a pilot with the setting server.url.")
    for task in tasks:
        lost = task["failed"] + task["fatal"]
        if lost:
            text = f"{plural(lost, 'range')} of task {task['name']} will never be finished."
            yield Finding("bad", printable(text), "Choose their state in the table of ranges.")


def task_table(tasks: Sequence[Row]) -> Document:
    """A row for each task."""
    names = ("total", "finished", "sent", "ready", "failed", "fatal")
    rows = [
        [str(task["task_id"]), printable(task["name"]), task["state"],
         *(f"{task[name]:,}" for name in names)]
        for task in tasks
    ]  # fmt: skip
    head = ["Task", "Name", "State", "Ranges", "Finished", "In work", "Waiting", "Failed", "Fatal"]
    return {"title": "Tasks", "head": head, "rows": rows}


def job_table(jobs: Sequence[Row], now: float) -> Document:
    """A row for each job, the active ones first."""
    rows = [
        [str(job["panda_id"]), job["kind"], str(job["task_id"]), printable(job["status"]),
         printable(job["node"] or job["site"]), duration_text(max(0.0, now - job["updated_at"])),
         f"{job['ranges_finished']:,}",
         printable(f"{job['error_diag']} ({job['error_code']})") if job["error_code"] else ""]
        for job in jobs
    ]  # fmt: skip
    head = ["Job", "Kind", "Task", "Status", "Where", "Heard ago", "Finished", "Error"]
    return {"title": "Jobs", "head": head, "rows": rows}


def range_row(event: Row) -> Document:
    """A range of the map, for people."""
    letter = str(event["letter"])
    name = next(state.name for state in STATES if state.letter == letter.lower())
    reason = f"{event['error_diag'] or ''} (code {event['error_code']})"
    return {
        "n": event["n"],
        "id": f"task {event['task_id']}, job {event['owner']}, attempts left {event['attempt_nr']}",
        "first": event["start_event"],
        "last": event["last_event"],
        "lfn": printable(event["lfn"]),
        "state": name,
        "redone": letter.isupper(),
        "took_s": 0,
        "client": 0,
        "archive": printable(event["tar_lfn"] or ""),
        "diag": printable(reason) if event["error_code"] else "",
    }
