"""The event server is slow, wrong, silent or gone: every range still ends booked once, or free."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pilot_run import FAKE, ROOT, Run, eventually, job_text, runner_in

HERE = Path(__file__).resolve().parent
EVENTS = 80
JOB = job_text(f"{FAKE} --clients 2 --delay-ms 15", events=EVENTS, server={"timeout_s": 3.0})
UPDATE, ACQUIRE = "event/update_event_ranges", "event/acquire_event_ranges"


class Server:
    """One server on a port of its own, which may be killed and started again."""

    def __init__(self, directory: Path, job: str) -> None:
        self.database = directory / "server.sqlite"
        self._job_file = directory / "server-job.toml"
        self._job_file.write_text(job)
        self._process: subprocess.Popen[str] | None = None
        self.url, self.task_id = "", 0

    def start(self, **quirks: Any) -> None:
        """Start (again), with these faults."""
        port = str(urlsplit(self.url).port or 0)
        argv = [sys.executable, str(HERE / "sick_server.py"), str(self.database), port]
        self._process = subprocess.Popen(
            [*argv, json.dumps(quirks), str(self._job_file)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        self.url, self.task_id = told["url"], told["task"]

    def signal(self, number: int) -> None:
        """Signal the server's process."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """KILL it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def pilot_and_server(directory: Path, job: str, **quirks: Any) -> Iterator[tuple[Run, Server]]:
    """A run of the pilot at a server with faults."""
    server = Server(directory, job)
    server.start(**quirks)
    try:
        with runner_in(directory) as runner:
            program = [sys.executable, str(HERE / "pilot_at_server.py"), server.url]
            run = runner.start(
                job,
                program=[*program, str(server.task_id)],
                env={"PYTHONPATH": str(ROOT)},
            )
            run.database = server.database
            yield run, server
    finally:
        server.stop()


@pytest.mark.parametrize(
    "quirks",
    [
        {"drop_answer": {UPDATE: 3}},
        {"http_500": {UPDATE: 3}},
        {"exception_as_timeout": {UPDATE: 3}},
        {"v1_bulk_event_update_broken": False},
        {"v1_bulk_event_update_broken": False, "drop_answer": {UPDATE: 2}},
        {"http_500": {"event/get_event_range_statuses": 3}},
        {"drop_answer": {"event/get_event_range_statuses": 3}},
    ],
    ids=lambda quirks: "-".join(quirks),
)
def test_lesson_04_reports_until_they_are_booked(tmp_path: Path, quirks: dict[str, Any]) -> None:
    """A report whose answer is lost, broken or an error is verified and repeated until booked."""
    with pilot_and_server(tmp_path, JOB, **quirks) as (run, _):
        run.require_finished(EVENTS)


@pytest.mark.parametrize("fault", ["http_500", "exception_as_timeout"])
@pytest.mark.parametrize(
    "call", [ACQUIRE, "pilot/acquire_jobs", "pilot/update_job"], ids=["ranges", "jobs", "updates"]
)
def test_lesson_10_an_error_is_not_the_end(tmp_path: Path, call: str, fault: str) -> None:
    """Errors of the server are retried; none of them counts as the end of the ranges."""
    with pilot_and_server(tmp_path, JOB, **{fault: {call: 3}}) as (run, _):
        run.require_finished(EVENTS)
        assert "call failed" in run.log


def test_lost_answer_to_a_range_request(tmp_path: Path) -> None:
    """Ranges whose answer was lost come back when the job ends: a further job processes them."""
    with pilot_and_server(tmp_path, JOB, drop_answer={ACQUIRE: 1}) as (run, _):
        run.require_finished(EVENTS)
        assert run.summary["jobs"] == 2


@pytest.mark.parametrize("call", ["pilot/acquire_jobs", "pilot/update_job"])
def test_lost_answers_about_jobs(tmp_path: Path, call: str) -> None:
    """A job whose answer was lost is given up by the server; a further one does the work."""
    with pilot_and_server(tmp_path, JOB, drop_answer={call: 1}) as (run, _):
        run.require_finished(EVENTS)


def test_lesson_37_slow_server(tmp_path: Path) -> None:
    """Answers that take a while delay the end, and lose nothing."""
    with pilot_and_server(tmp_path, JOB, answer_delay_s=0.2) as (run, _):
        run.require_finished(EVENTS)


def test_lesson_10_server_gone_for_a_while(tmp_path: Path) -> None:
    """A server that is killed in the middle and comes back later finds everything reported."""
    with pilot_and_server(tmp_path, JOB) as (run, server):
        run.wait_booked(20)
        server.stop()
        eventually(lambda: run.log.count("call failed") >= 6, what="calls fail")
        server.start()
        run.require_finished(EVENTS)


def test_hanging_server(tmp_path: Path) -> None:
    """A server that answers nothing is asked again after the time-out, and nothing is lost."""
    with pilot_and_server(tmp_path, JOB) as (run, server):
        run.wait_booked(20)
        server.signal(signal.SIGSTOP)
        eventually(lambda: "no answer in time" in run.log, what="time-outs")
        server.signal(signal.SIGCONT)
        run.require_finished(EVENTS)


def is_carried_out(database: Path, order: str) -> bool:
    """Give the order (a heartbeat may have undone it) and tell whether it has ended the job."""
    with closing(sqlite3.connect(database, timeout=10.0)) as db, db:
        # Else the next job could come in between, and be hit as well.
        db.execute("BEGIN IMMEDIATE")
        if db.execute("SELECT count(*) FROM job").fetchone()[0] > 1:
            return True
        db.execute(order)
    return False


@pytest.mark.parametrize(
    ("order", "heartbeat_s"),
    [
        ("UPDATE job SET command = 'tobekilled' WHERE final = 0", 0.3),
        ("UPDATE job SET updated_at = 1.0", 600.0),
        ("UPDATE job SET updated_at = 1.0", 1.5),
    ],
    ids=["killed", "lost", "lost-told"],
)
def test_killed_or_lost_job_is_followed_by_another(
    tmp_path: Path, order: str, heartbeat_s: float
) -> None:
    """A job that the server kills or counts as lost costs that job; the next one does the rest."""
    job = JOB.replace("[server]", f"[server]\nheartbeat_s = {heartbeat_s}")
    job = job.replace(f"events = {EVENTS}", "events = 300")
    with pilot_and_server(tmp_path, job) as (run, server):
        run.wait_booked(20)
        eventually(lambda: is_carried_out(server.database, order), what=order)
        run.require_finished(300)
        assert run.summary["jobs"] == 2


def test_softkill_drains(tmp_path: Path) -> None:
    """A soft kill ends the run in good order: what was made is reported, the rest is free."""
    job = JOB.replace("[server]", "[server]\nheartbeat_s = 0.3").replace(
        "events = 80", "events = 800"
    )
    with pilot_and_server(tmp_path, job) as (run, server):
        run.wait_booked(20)
        with closing(sqlite3.connect(server.database, timeout=10.0)) as db, db:
            db.execute("UPDATE job SET command = 'softkill' WHERE final = 0")
        assert run.end(30.0) == 3
        account = run.account()
        assert len(account.with_fate("finished")) + len(account.with_fate("ready")) == 800


def test_lesson_38_hanging_server_at_a_drain(tmp_path: Path) -> None:
    """In a drain a call that hangs is left behind in time for the others: the job still ends."""
    job = JOB.replace("timeout_s = 3.0", "timeout_s = 60.0") + "[drain]\ngrace_s = 12.0\n"
    with pilot_and_server(tmp_path, job.replace("events = 80", "events = 800")) as (run, server):
        run.wait_booked(20)
        server.signal(signal.SIGSTOP)
        run.process.terminate()
        given_up = ("call left behind", "call failed")
        eventually(lambda: any(each in run.log for each in given_up), what="a call is given up")
        server.signal(signal.SIGCONT)
        assert run.end(12.0) == 3
        account = run.account()
        assert "no time was left" not in run.log
        assert len(account.with_fate("finished")) + len(account.with_fate("ready")) == 800


def test_no_server_at_the_end(tmp_path: Path) -> None:
    """Without a server the end of a job is left to a later run after the time for it is over."""
    job = JOB.replace("[limits]", "[limits]\nsettle_s = 3.0")
    with pilot_and_server(tmp_path, job) as (run, server):
        run.wait_booked(20)
        server.stop()
        run.process.terminate()
        assert run.end(30.0) == 3
        assert "no progress" in run.log
