"""The whole pilot beside Harvester, started as its users do, with the reader as the other side."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harvester_reader
import pytest
import run_oracle
from harvester_reader import FIRST_JOB, Books
from pilot_run import ESPILOT, FAKE, Runner, eventually, job_text, runner_in
from test_recover import kill_all, recover

from espilot.model import RangeState

QUICK: dict[str, Any] = {"poll_s": 0.05, "ask_again_s": 0.5, "lost_s": 5.0}


@contextmanager
def harvester(
    directory: Path, ranges: int, kind: str = "es_output"
) -> Iterator[tuple[Books, Path]]:
    """A reader with one worker; its books and the worker's access point."""
    base = directory / "harvester"
    base.mkdir()
    books = harvester_reader.make_books(base, ranges=ranges, output_bytes=100, seed=1, kind=kind)
    place = harvester_reader.add_worker(base, books, "w0", FIRST_JOB, prefetch=True)
    reader = subprocess.Popen([sys.executable, harvester_reader.__file__, str(base)])
    try:
        yield books, place
    finally:
        reader.kill()
        reader.wait()
        books.db.close()


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as runner:
        yield runner


def finished(books: Books) -> int:
    return int(books.one("SELECT count(*) FROM range WHERE status = 'finished'"))


def findings(books: Books) -> list[str]:
    return [f"{kind}: {text}" for kind, text in books.db.execute("SELECT * FROM finding")]


def job(delay_ms: int = 0, **harvester_settings: Any) -> str:
    return job_text(
        f"{FAKE} --clients 2 --delay-ms {delay_ms}",
        events=1,
        harvester=QUICK | harvester_settings,
    )


@pytest.mark.parametrize("kind", ["es_output", "zip_output"])
def test_job_from_begin_to_end(tmp_path: Path, runner: Runner, kind: str) -> None:
    """Every range is fetched, made, reported with its file, and nothing but the reports is left."""
    with harvester(tmp_path, 60, kind) as (books, place):
        run = runner.start(job(output=kind, kill_at_end=True), "--harvester", str(place))
        assert run.end() == 0, run.stderr + run.log
        assert findings(books) == []
        assert finished(books) == run.summary["ranges"]["finished"] == 60
        names = {path.name for path in place.iterdir()}
        assert {"worker_heartbeat.json", "worker_attributes.json", "kill_worker.json"} <= names
        assert not {"worker_requestevents.json", "worker_requestjob.json"} & names
        assert not [name for name in names if name.startswith(".")]
        attributes = json.loads((place / "worker_attributes.json").read_text())
        assert (attributes["jobStatus"], attributes["nEvents"]) == ("finished", 60)


def test_drained_run_is_gone_on_with(tmp_path: Path, runner: Runner) -> None:
    """A drained pilot ends with what it had reported; a recovery brings the rest to its end."""
    with harvester(tmp_path, 2000) as (books, place):
        run = runner.start(job(20), "--harvester", str(place))
        eventually(lambda: finished(books) > 20, what=run.log)
        run.kill("supervisor", signal.SIGKILL)
        run.end()
        again = runner.start(job(20), "--harvester", str(place))
        eventually(lambda: finished(books) > 60, what=again.log)
        again.kill("supervisor", signal.SIGTERM)
        assert again.end() in (0, 3), again.stderr + again.log
        told = again.summary["ranges"]
        assert findings(books) == []
        eventually(lambda: finished(books) == told["finished"])
        assert not (place / "worker_requestevents.json").exists()


def refuse(*arguments: str, settings: str) -> str:
    """The one line with which a command is refused."""
    ended = subprocess.run(
        [*ESPILOT, "run", "--local", settings, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 64
    (line,) = ended.stderr.splitlines()
    return line


def test_refusals(tmp_path: Path) -> None:
    """What cannot work beside Harvester is refused in one line before anything is started."""
    file, place = tmp_path / "job.toml", tmp_path / "ap"
    file.write_text(job())
    workdir = ("--workdir", str(tmp_path / "w"))
    line = refuse(*workdir, "--harvester", str(place), settings=str(file))
    assert "no access point" in line
    place.mkdir()
    line = refuse("--workdir", str(place / "w"), "--harvester", str(place), settings=str(file))
    assert "--workdir" in line
    away = ("--storage", "davs://localhost:1/x")
    line = refuse(*workdir, *away, "--harvester", str(place), settings=str(file))
    assert "shared directory" in line
    file.write_text(job(config=str(tmp_path / "none.cfg")))
    line = refuse(*workdir, "--harvester", str(place), settings=str(file))
    assert "none.cfg" in line


def test_many_jobs_end_with_a_reason(tmp_path: Path, runner: Runner) -> None:
    """ManyToOne ends at once, and the log says why."""
    place = tmp_path / "ap"
    (place / "7").mkdir(parents=True)
    (place / "7" / "HPCJobs.json").write_text("{}")
    run = runner.start(job(), "--harvester", str(place))
    assert run.end() == 1
    assert "ManyToOne" in run.log


@pytest.mark.parametrize("kind", ["es_output", "zip_output"])
def test_lesson_16_recovery_after_everything_is_killed(
    tmp_path: Path, runner: Runner, kind: str
) -> None:
    """All processes die at once: `espilot recover` brings the job to its end in the same exchange
    directory; no range is lost or told twice, and it leaves no request and nothing half written."""
    with harvester(tmp_path, 150, kind) as (books, place):
        run = runner.start(job(20, output=kind), "--harvester", str(place))
        eventually(lambda: finished(books) > 30 or run.ended, what=run.log)
        kill_all(run)
        made = run_oracle.queued(run.state)
        assert sum(made[state] for state in ("sent", "done", "packed", "staged")) > 0
        ended = recover(run)
        assert ended.returncode == 0, ended.stderr + run.log[-4000:]
        assert findings(books) == []
        assert finished(books) == 150
        assert json.loads(ended.stdout)["ranges"]["finished"] == 150
        left = run_oracle.queued(run.state)
        assert not any(left[state.value] for state in RangeState)
        names = {path.name for path in place.iterdir()}
        assert not {"worker_requestevents.json", "worker_requestjob.json"} & names
        assert not [name for name in names if name.startswith(".")]
        again = recover(run)
        assert (again.returncode, finished(books)) == (0, 150)
        assert "nothing to recover" in again.stderr
