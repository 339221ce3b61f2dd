"""Whichever process of a run is killed or stopped, and when: nothing is lost, nothing is left."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pilot_run import FAKE, Runner, eventually, job_text, runner_in
from run_oracle import processes_of, queued

EVENTS = 120
JOB = job_text(f"{FAKE} --clients 2 --delay-ms 20", events=EVENTS)
NATIVE_JOB = job_text(
    f"{FAKE} --clients 2 --delay-ms 20 --dialect native --outstanding 2", events=EVENTS
)
WORKERS = ("dispatcher", "event-server", "stageout")
ROLES = (*WORKERS, "builtin-server", "launcher", "payload", "client")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("role", "dialect"),
    [
        *((role, "text") for role in ROLES),
        *((role, "native") for role in ("dispatcher", "payload", "client")),
    ],
)
def test_lesson_08_killed_role_loses_nothing(runner: Runner, role: str, dialect: str) -> None:
    """Each role is killed once at a random moment; every range ends safe and reported, once."""
    chance = random.Random(f"{role} {dialect}")
    run = runner.start(JOB if dialect == "text" else NATIVE_JOB)
    run.wait_booked(chance.randrange(10, 70))
    run.kill(role)
    run.require_finished(EVENTS)


@pytest.mark.parametrize("role", ["dispatcher", "event-server", "builtin-server", "payload"])
def test_role_killed_at_the_start(runner: Runner, role: str) -> None:
    """A role that dies before the first range is booked is replaced, and the run goes on."""
    run = runner.start(job_text(f"{FAKE} --clients 2 --delay-ms 20", events=40))
    run.kill(role)
    run.require_finished(40)


def test_dispatcher_killed_while_the_payload_pauses(runner: Runner) -> None:
    """Between two starts of the payload nobody waits for the dispatcher, so its death does not end
    the job: the payload starts again."""
    # Each start fails sooner than the last one's pause, so the pauses become longer.
    run = runner.start(job_text(f"{FAKE} --crash-after 1", events=EVENTS, payload={"restarts": 50}))
    eventually(lambda: re.search(r"starts again in_s=[2-9]", run.log), what=run.log)
    run.kill("dispatcher")
    eventually(lambda: run.log.count("role died role=dispatcher") == 1)
    eventually(lambda: "was=pausing now=over" in after(run.log) or "now=binding" in after(run.log))
    assert "was=pausing now=over" not in run.log


def after(log: str) -> str:
    """What follows the death of the dispatcher."""
    return log.partition("role died role=dispatcher")[2]


def test_each_worker_killed_in_turn(runner: Runner) -> None:
    """Killing one worker after the other, all in one run, loses nothing."""
    run = runner.start(JOB)
    for n, role in ((20, "stageout"), (40, "event-server"), (60, "dispatcher"), (80, "stageout")):
        run.wait_booked(n)
        run.kill(role)
    run.require_finished(EVENTS)


@pytest.mark.parametrize("role", [*WORKERS, "builtin-server"])
def test_stopped_role_is_replaced(runner: Runner, role: str) -> None:
    """A role that is stopped, so that its loop does not turn, is found, killed and replaced."""
    job = job_text(f"{FAKE} --clients 2 --delay-ms 20", events=EVENTS, limits={"silent_s": 3.0})
    run = runner.start(job)
    run.wait_booked(20)
    pid = run.kill(role, signal.SIGSTOP)
    run.wait_replaced(role, pid)
    run.require_finished(EVENTS)
    assert "role is silent" in run.log


@pytest.mark.parametrize("moment", [0, 40])
def test_killed_supervisor_leaves_nothing_and_the_next_run_goes_on(
    runner: Runner, moment: int
) -> None:
    """Two seconds after the supervisor's death nothing of the run lives; the next finishes it."""
    run = runner.start(JOB)
    eventually(lambda: run.pid_of("client"), what="payload runs")
    run.wait_booked(moment)
    run.kill("supervisor")
    run.process.wait()
    eventually(lambda: not processes_of(run.workdir), 2.0, "all processes gone")
    before = run.booked
    again = runner.start(JOB)
    again.runtimes |= run.runtimes
    again.require_finished(EVENTS)
    assert again.booked >= before
    assert "going on with the unfinished run" in again.stderr


def test_supervisor_and_launcher_killed_together(runner: Runner) -> None:
    """Clients that outlive both their launcher and the pilot are ended by the next run."""
    run = runner.start(JOB)
    run.wait_booked(20)
    launcher = run.pid_of("launcher")
    assert launcher is not None
    os.kill(launcher, signal.SIGKILL)
    run.kill("supervisor")
    run.process.wait()
    again = runner.start(JOB)
    again.runtimes |= run.runtimes
    again.require_finished(EVENTS)


@pytest.mark.parametrize("role", ["stageout", "dispatcher"])
def test_role_killed_again_and_again_ends_the_run(runner: Runner, role: str) -> None:
    """Beyond its restart intensity a role is given up: the run fails soon, and loses nothing."""
    limits = {"role_restarts": 3}
    job = job_text(f"{FAKE} --clients 2 --delay-ms 20", events=EVENTS, limits=limits)
    run = runner.start(job)
    run.wait_booked(20)
    pid = run.kill(role)
    while not run.ended:
        new = run.pid_of(role)
        if new and new != pid:
            pid = run.kill(role)
    assert run.end(20.0) == 1
    assert run.summary["state"] == "failed"
    assert "the limit is 3" in run.log
    account_before = run.booked
    assert account_before >= 20
    assert queued(run.state)["finished"] <= account_before
    again = runner.start(JOB)
    again.runtimes |= run.runtimes
    again.require_finished(EVENTS)
    assert "going on with the unfinished run" in again.stderr


def test_current_directory_is_no_source_of_modules(runner: Runner) -> None:
    """Files where the user stands, named like modules that the pilot needs, change nothing."""
    here = runner.directory / "here"
    here.mkdir()
    for name in ("random", "lmdb", "zmq", "msgpack", "espilot", "sqlite3"):
        (here / f"{name}.py").write_text("raise SystemExit(9)\n")
    run = runner.start(job_text(f"{FAKE} --clients 2", events=40), cwd=here)
    run.require_finished(40)
