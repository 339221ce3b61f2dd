"""Early ends of all kinds: what is done is safe, the rest is free again, and the time is kept."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import run_oracle
from pilot_run import ESPILOT, FAKE, Run, Runner, eventually, job_text, runner_in

from espilot.queue.reading import QueueReader
from espilot.supervisor.recovery_layout import is_spare

EVENTS = 400


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def job_of(delay_ms: int, *, payload: str = "", **sections: dict[str, Any]) -> str:
    """A job of four clients whose outputs are packed at a flush only."""
    tables: dict[str, dict[str, Any]] = {
        "packing": {"max_ranges": 1000, "max_age_s": 600.0},
        "payload": {"cores": 4, "term_grace_s": 30.0},
    }
    for name, values in sections.items():
        tables.setdefault(name, {}).update(values)
    return job_text(f"{FAKE} --clients 4 --delay-ms {delay_ms} {payload}", events=EVENTS, **tables)


def outputs(run: Run) -> int:
    """Outputs of the payload that are not packed."""
    return len(list(run.workdir.glob("payload-*/output*")))


def require_drained(run: Run, least: int) -> run_oracle.Account:
    """Drained, with at least so many ranges safe, and all others free again at the server."""
    assert run.end() == 3, run.stderr[-2000:] + run.log[-4000:]
    assert run.summary["state"] == "drained"
    account = run.account()
    run_oracle.require_contents(account, lfns=("output",))
    assert len(account.with_fate("finished")) >= least
    assert account.with_fate("sent") == []
    left = run_oracle.queued(run.state)
    assert [left[name] for name in ("ready", "sent", "done", "packed", "staged")] == [0] * 5
    assert len(account.with_fate("finished")) + len(account.with_fate("ready")) == EVENTS
    return account


def drain_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`espilot drain` with these arguments."""
    argv = [*ESPILOT, "drain", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60.0, check=False)


@pytest.mark.parametrize("grace_s", [10.0, 30.0])
def test_lesson_14_term_while_ranges_run(runner: Runner, grace_s: float) -> None:
    """With 10 or 30 s to live, what was done and what ends in time is safe, in that time."""
    run = runner.start(job_of(1000, drain={"grace_s": grace_s}))
    eventually(lambda: outputs(run) >= 8, what="outputs")
    run.note_runtime()
    began = time.monotonic()
    run.process.terminate()
    account = require_drained(run, least=8)
    assert time.monotonic() - began < grace_s
    assert len(account.with_fate("finished")) < 100


def test_lesson_14_ranges_that_do_not_end(runner: Runner) -> None:
    """With 8 s to live and a payload that never ends, what was done is safe all the same."""
    job = job_of(20, payload="--hang-after 5 --ignore-term", drain={"grace_s": 8.0})
    run = runner.start(job)
    eventually(lambda: outputs(run) >= 20, what="outputs")
    run.note_runtime()
    began = time.monotonic()
    run.process.terminate()
    account = require_drained(run, least=20)
    assert time.monotonic() - began < 8.0
    assert len(account.with_fate("finished")) == 20


def job_error(run: Run) -> tuple[int, str]:
    """Error code and its words of the first job at the server."""
    with closing(sqlite3.connect(f"file:{run.database}?mode=ro", uri=True)) as db:
        query = "SELECT error_code, error_diag FROM job ORDER BY panda_id"
        code, diag = db.execute(query).fetchone()
    return code, diag


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 1201), (signal.SIGXCPU, 1204), (signal.SIGUSR2, 1200)]
)
def test_job_without_a_finished_range_names_the_signal(
    runner: Runner, number: signal.Signals, code: int
) -> None:
    """A job that was drained before any range ended is not blamed on its payload."""
    run = runner.start(job_of(60_000, drain={"grace_s": 6.0, "notice_s": 6.0}))
    eventually(lambda: "ranges fetched" in run.log, what="ranges")
    eventually(lambda: run.pid_of("payload"), what="a payload")
    run.note_runtime()
    run.process.send_signal(number)
    require_drained(run, least=0)
    assert f"sub_status=pilot_killed code={code}" in run.log
    found, diag = job_error(run)
    assert found == code
    assert diag.startswith(number.name)


def test_lesson_34_job_without_a_finished_range_names_the_preemption(
    runner: Runner, tmp_path: Path
) -> None:
    """A node that is taken away is told as that, with its own code, and not as a failed payload."""
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "shutdowntime").write_text(f"{time.time() + 15:.0f}\n")
    env = {"MACHINEFEATURES": str(tmp_path / "machine"), "JOBFEATURES": "/none"}
    run = runner.start(job_of(60_000), env=env)
    require_drained(run, least=0)
    code, diag = job_error(run)
    assert code == 1379
    assert "shutdowntime" in diag


def test_lesson_09_unsent_ranges_are_free_at_once(runner: Runner) -> None:
    """Ranges that were fetched and never handed out are the server's again when we have ended."""
    run = runner.start(job_of(1000, limits={"work_ahead_s": 60.0}))
    eventually(lambda: outputs(run) >= 4, what="outputs")
    run.note_runtime()
    assert drain_command(str(run.workdir), "--deadline", "10s").returncode == 0
    require_drained(run, least=4)
    released = re.search(r"phase=settling released=(\d+)", run.log)
    assert released is not None
    assert int(released[1]) > 0


def test_lesson_25_second_signal_does_not_restart_the_clock(runner: Runner) -> None:
    """Two signals a second apart end in the time that began with the first one."""
    job = job_of(20, payload="--hang-after 5 --ignore-term", drain={"grace_s": 8.0})
    run = runner.start(job)
    eventually(lambda: outputs(run) >= 20, what="outputs")
    run.note_runtime()
    began = time.monotonic()
    run.process.terminate()
    eventually(lambda: time.monotonic() - began > 1.0)
    run.process.send_signal(signal.SIGQUIT)
    require_drained(run, least=20)
    assert time.monotonic() - began < 8.0
    assert "drain ordered again" in run.log


def test_third_interrupt_ends_at_once_and_is_recoverable(runner: Runner) -> None:
    """A third Ctrl-C waits for nothing; a later run finishes everything."""
    job = job_of(100, payload="--ignore-term", drain={"interrupt_s": 600.0})
    run = runner.start(job)
    eventually(lambda: outputs(run) >= 8, what="outputs")
    run.note_runtime()
    began = time.monotonic()
    for _ in range(3):
        run.process.send_signal(signal.SIGINT)
        eventually(lambda: time.monotonic() - began > 0.05)
    assert run.end(15.0) == 3
    again = runner.start(job_of(10))
    again.runtimes |= run.runtimes
    again.require_finished(EVENTS)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGINT])
def test_each_signal_drains(runner: Runner, number: signal.Signals) -> None:
    """All signals by which sites announce an end start the same drain."""
    run = runner.start(job_of(50))
    eventually(lambda: outputs(run) >= 8, what="outputs")
    run.note_runtime()
    run.process.send_signal(number)
    require_drained(run, least=8)


def test_drain_file(runner: Runner) -> None:
    """A file named `drain` in the work directory drains by its deadline, and is consumed."""
    run = runner.start(job_of(50))
    eventually(lambda: outputs(run) >= 8, what="outputs")
    run.note_runtime()
    temporary = run.workdir / "drain.tmp"
    temporary.write_text("20s\n")
    temporary.rename(run.workdir / "drain")
    require_drained(run, least=8)
    assert not (run.workdir / "drain").exists()
    assert "drain file" in run.log


def test_lesson_47_job_features_end_the_run_in_time(runner: Runner, tmp_path: Path) -> None:
    """The wall time of the slot in JOBFEATURES starts a drain by itself, before it is over."""
    features = tmp_path / "jobfeatures"
    features.mkdir()
    began = time.time()
    (features / "jobstart_secs").write_text(f"{began - 100:.0f}\n")
    (features / "wall_limit_secs").write_text("120\n")
    (features / "max_rss_bytes").write_text("not a number")
    run = runner.start(job_of(200), env={"JOBFEATURES": str(features), "MACHINEFEATURES": "/none"})
    eventually(lambda: run.pid_of("client"), what="payload runs")
    run.note_runtime()
    require_drained(run, least=4)
    assert time.time() < began + 20.0
    assert "wall_limit_secs of the machine or job features comes near" in run.log


def test_lesson_47_wall_time_drains_before_it_is_over(runner: Runner) -> None:
    """A wall time that is known from the beginning ends the run drained, within it."""
    run = runner.start(job_of(200, limits={"wall_s": 15.0}))
    began = time.monotonic()
    eventually(lambda: run.pid_of("client"), what="payload runs")
    run.note_runtime()
    require_drained(run, least=4)
    assert time.monotonic() - began < 20.0
    assert "the wall time of 15 s comes near" in run.log


def break_storage(run: Run) -> Path:
    """Put a file where the storage directory is; returns where its content went."""
    aside = run.storage.with_name("storage-aside")
    run.storage.mkdir(exist_ok=True)
    run.storage.rename(aside)
    run.storage.write_text("not a directory")
    return aside


def require_spared(run: Run, place: Path) -> Path:
    """One complete spare, with the bytes of all archives that the storage did not take."""
    spares = [each for each in place.iterdir() if is_spare(each)]
    assert [each.name for each in place.iterdir()] == [each.name for each in spares]
    assert len(spares) == 1
    spare = spares[0]
    kept = {each.name: each.read_bytes() for each in (run.state / "archives").iterdir()}
    assert {each.name: each.read_bytes() for each in (spare / "archives").iterdir()} == kept
    assert any(name.endswith(".tar") for name in kept)
    assert json.loads((spare / "job.json").read_text())["panda_id"] > 0
    assert json.loads((spare / "run.json").read_text())["state_dir"] == str(run.state)
    return spare


def test_lesson_15_storage_away_at_a_drain(runner: Runner, tmp_path: Path) -> None:
    """Archives that the storage does not take are spared, the job stays open, a later run ships."""
    place = tmp_path / "shared" / "recovery"
    job = job_of(50, drain={"grace_s": 12.0})
    run = runner.start(job, "--recovery-dir", str(place))
    eventually(lambda: outputs(run) >= 12, what="outputs")
    run.note_runtime()
    aside = break_storage(run)
    began = time.monotonic()
    run.process.terminate()
    assert run.end() == 3, run.log[-4000:]
    assert time.monotonic() - began < 12.0
    require_spared(run, place)
    assert run_oracle.queued(run.state)["packed"] >= 12
    assert "job ended" not in run.log
    run.storage.unlink()
    aside.rename(run.storage)
    # Elsewhere: only the spare is used, and the archives are booked.
    spare = next(place.iterdir())
    argv = [*ESPILOT, "recover", str(spare), "--state-dir", str(tmp_path / "elsewhere")]
    taken = subprocess.run(argv, capture_output=True, text=True, timeout=60.0, check=False)
    assert run.booked >= 12, taken.stdout + taken.stderr
    again = runner.start(job_of(10))
    again.runtimes |= run.runtimes
    again.require_finished(EVENTS)


def failed_attempts(run: Run) -> set[str]:
    """The ranges with an attempt that the server has booked as failed."""
    columns = "task_id, owner, file_id, process_id, attempt_nr"
    with closing(sqlite3.connect(f"file:{run.database}?mode=ro", uri=True)) as db:
        rows = db.execute(f"SELECT {columns} FROM event WHERE status = 7")
        return {"-".join(map(str, row)) for row in rows}


def test_lesson_15_failures_are_spared_too(runner: Runner, tmp_path: Path) -> None:
    """With storage and server both away, failures wait in the spare beside the archives."""
    place, limits = tmp_path / "recovery", {"silent_s": 120.0}
    job = job_of(50, payload="--fail-every 5", drain={"grace_s": 8.0}, limits=limits)
    run = runner.start(job, "--recovery-dir", str(place))
    eventually(lambda: outputs(run) >= 8, what="outputs")
    eventually(lambda: failed_attempts(run), what="a failure is booked")
    run.note_runtime()
    run.kill("builtin-server", signal.SIGSTOP)
    break_storage(run)
    with closing(QueueReader(run.state / "queue")) as queue:
        eventually(lambda: queue.counts().failed >= 1, what="a failure that cannot be reported")
    run.process.terminate()
    assert run.end() == 3, run.log[-4000:]
    spare = require_spared(run, place)
    left = run_oracle.queued(run.state)
    failures = json.loads((spare / "failures.json").read_text())["failures"]
    assert len(failures) == left["failed"] >= 1
    run.storage.unlink()
    run.storage.with_name("storage-aside").rename(run.storage)
    argv = [*ESPILOT, "recover", str(spare), "--state-dir", str(tmp_path / "elsewhere")]
    taken = subprocess.run(argv, capture_output=True, text=True, timeout=60.0, check=False)
    booked = failed_attempts(run)
    assert booked >= {each["id"] for each in failures}, taken.stdout + taken.stderr
    assert taken.returncode == 0, taken.stderr


HANGING_PUT = """
import sys, threading
if "stageout" in sys.orig_argv:
    from espilot.adapters.storage.posix import PosixStorage
    PosixStorage.put = lambda *given, **named: threading.Event().wait()
"""


def test_lesson_38_hanging_upload_and_term(runner: Runner, tmp_path: Path) -> None:
    """An upload that hangs for ever keeps nobody: the archives are spared, in time."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HANGING_PUT)
    place = tmp_path / "recovery"
    job = job_of(50, drain={"grace_s": 12.0})
    paths = os.pathsep.join(filter(None, [str(hooks), os.environ.get("PYTHONPATH")]))
    run = runner.start(job, "--recovery-dir", str(place), env={"PYTHONPATH": paths})
    eventually(lambda: outputs(run) >= 12, what="outputs")
    run.note_runtime()
    began = time.monotonic()
    run.process.terminate()
    assert run.end() == 3, run.log[-4000:]
    assert time.monotonic() - began < 12.0
    assert run.booked == 0
    require_spared(run, place)
    again = runner.start(job_of(10))
    again.runtimes |= run.runtimes
    again.require_finished(EVENTS)


def test_plan_changes_nothing(runner: Runner) -> None:
    """`drain --plan` shows steps and fates and leaves the run alone; `drain --wait` ends it."""
    run = runner.start(job_of(50))
    eventually(lambda: outputs(run) >= 8, what="outputs")
    run.note_runtime()
    told = drain_command(str(run.workdir), "--plan", "--deadline", "30s", "--json")
    assert told.returncode == 0, told.stderr
    plan = json.loads(told.stdout)
    assert plan["schema"] == "espilot.drain/1"
    assert sum(step["budget_s"] for step in plan["steps"]) == pytest.approx(30.0)
    assert plan["safe"] >= 8
    words = drain_command(str(run.workdir), "--plan").stdout
    for word in ("last hand-out", "stop payload", "upload", "report", "safe and reported"):
        assert word in words
    seen = outputs(run)
    eventually(lambda: outputs(run) > seen + 8, what="more outputs: it goes on")
    ended = drain_command(str(run.state), "--wait")
    assert ended.returncode == 3, ended.stderr
    assert "drained" in ended.stderr
    require_drained(run, least=8)


def test_drain_without_a_pilot(runner: Runner, tmp_path: Path) -> None:
    """Where no pilot runs, `drain` says so in one line; a bad deadline is refused with examples."""
    nowhere = drain_command(str(tmp_path / "nowhere"))
    assert nowhere.returncode == 64
    assert "does not exist" in nowhere.stderr
    run = runner.start(job_of(50))
    eventually(lambda: outputs(run) >= 4, what="outputs")
    refused = drain_command(str(run.workdir), "--deadline", "soon")
    assert refused.returncode == 64
    assert "such as 30s" in refused.stderr
    run.kill("supervisor")
    run.process.wait()
    # A pid that is somebody else's by now proves nothing.
    record = run.state / "pilot.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"pid": os.getpid()}))
    gone = drain_command(str(run.workdir))
    assert gone.returncode == 73
    assert "no pilot runs" in gone.stderr
    assert gone.stderr.count("\n") == 1


def test_suspension_does_not_use_up_the_time(runner: Runner) -> None:
    """Stopped for longer than its grace, then continued, a drain still ends in good order."""
    run = runner.start(job_of(1500, drain={"grace_s": 10.0}))
    eventually(lambda: outputs(run) >= 4, what="outputs")
    run.note_runtime()
    run.process.terminate()
    eventually(lambda: "draining" in run.log, what="drain")
    pids = list(run_oracle.processes_of(run.workdir))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    eventually(lambda: time.monotonic() - stopped > 12.0)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    require_drained(run, least=4)
    assert "the machine was suspended" in run.log
    assert "no time was left" not in run.log
