"""The log archive of an event job: whole, told to the server, and never in the way of outputs."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import tarfile
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kill_points import Point
from pilot_run import FAKE, Run, Runner, eventually, job_text, runner_in

EVENTS = 40
SECRET = "s3cr3t-Passw0rd"


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def job_of(*, events: int = EVENTS, delay_ms: int = 5, **sections: dict[str, Any]) -> str:
    return job_text(f"{FAKE} --clients 2 --delay-ms {delay_ms}", events=events, **sections)


def told(run: Run) -> dict[str, Any]:
    """What the server was told of the run's first job in the end."""
    db = sqlite3.connect(f"file:{run.database}?mode=ro", uri=True)
    try:
        query = "SELECT pilot_fields, panda_id FROM job ORDER BY panda_id LIMIT 1"
        [(fields, panda_id)] = db.execute(query).fetchall()
    finally:
        db.close()
    facts: dict[str, Any] = json.loads(fields)
    return facts | {"panda_id": panda_id, "report": json.loads(facts["job_output_report"])}


def log_lfn(run: Run) -> str:
    """The name of the log archive of the job that runs."""
    file = run.state / "job.json"
    eventually(file.exists, what="a job")
    name = json.loads(file.read_text())["log_lfn"]
    assert isinstance(name, str)
    return name


def require_log(run: Run, directory: Path) -> dict[str, str]:
    """The one file of the job's output report lies there as reported; its texts by name."""
    assert re.search(r"job ended state=finished .*code=0", run.log)
    facts = told(run)
    [(name, entry)] = facts["report"].items()
    data = (directory / name).read_bytes()
    assert (entry["fsize"], entry["adler32"]) == (len(data), f"{zlib.adler32(data):08x}")
    assert uuid.UUID(entry["guid"])
    assert name.startswith("log.") and name.endswith(f".{facts['panda_id']}")
    with tarfile.open(directory / name) as tar:
        return {
            member.name: file.read().decode()
            for member in tar.getmembers() if (file := tar.extractfile(member)) is not None
        }  # fmt: skip


def test_log_archive_of_an_event_job(runner: Runner) -> None:
    """Pilot's and payload's logs are on the storage and in the output report, without secrets."""
    script = runner.directory / "payload.sh"
    script.write_text(f"#!/bin/sh\necho token=$KEY\necho Authorization: $KEY\nexec {FAKE}\n")
    script.chmod(0o755)
    run = runner.start(job_text(str(script), events=EVENTS), env={"KEY": SECRET})
    run.require_finished(EVENTS)
    texts = require_log(run, run.storage)
    assert {name.partition("/")[2] for name in texts} >= {
        "pilot.log", "payload-1/payload.stdout", "payload-1/payload.stderr"
    }  # fmt: skip
    assert not any(SECRET in text for text in texts.values())
    [stdout] = [text for name, text in texts.items() if name.endswith("payload.stdout")]
    assert "token=[removed]" in stdout
    assert not [path for path in run.workdir.iterdir() if "log." in path.name]
    assert not (run.state / "log.json").exists()


def test_log_storage_that_is_broken(runner: Runner, tmp_path: Path) -> None:
    """Where the storage for logs takes nothing, another one does."""
    place = tmp_path / "no-directory"
    place.write_text("a file")
    logs = f'[endpoints.logs]\nurl = "{place}"\nid = 2\nactivities = ["pl"]\n'
    run = runner.start(job_of() + logs)
    run.require_finished(EVENTS)
    assert require_log(run, run.storage)
    assert "storage=logs" in run.log


def test_log_that_no_storage_takes(runner: Runner) -> None:
    """All ranges are finished all the same; the job has failed, and says why."""
    run = runner.start(job_of(delay_ms=30))
    (run.storage / log_lfn(run)).mkdir(parents=True)
    run.require_finished(EVENTS)
    assert re.search(r"job ended state=failed .*sub_status=all_success code=1137", run.log)
    facts = told(run)
    assert facts["report"] == {}
    assert "log archive" in facts["pilot_error_diag"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_the_log_is_shipped(runner: Runner, when: str) -> None:
    """The stage-out worker dies around the upload of the log: its successor ships it."""
    point = Point("stageout", "espilot.workers.job_log:ship_job_log", when)
    marker = runner.directory / "killed"
    run = runner.start(job_of(), env=point.environment(marker))
    run.require_finished(EVENTS)
    assert marker.exists()
    assert require_log(run, run.storage)


def test_all_killed_while_the_log_is_shipped(runner: Runner) -> None:
    """The supervisor dies when the job ends: the next run ships the log and ends the job."""
    point = Point("stageout", "espilot.workers.job_log:ship_job_log", "after", victim="supervisor")
    marker = runner.directory / "killed"
    run = runner.start(job_of(), env=point.environment(marker))
    run.end()
    assert marker.exists()
    run.note_runtime()
    again = runner.start(job_of())
    again.runtimes |= run.runtimes
    again.require_finished(EVENTS)
    assert require_log(again, again.storage)


def test_drain_does_not_wait_for_the_log(runner: Runner) -> None:
    """A storage for logs that never answers costs a drain neither outputs nor the final update."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = "s3://logs/of-jobs"
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        logs = (
            f'[endpoints.logs]\nurl = "{url}"\nid = 2\nactivities = ["pl"]\n'
            f'endpoint_url = "{address}"\ncredentials = "env:ID,KEY"\n'
        )
        job = job_of(events=2000, delay_ms=20, drain={"grace_s": 8.0})
        run = runner.start(job + logs, env={"ID": "id", "KEY": SECRET})
        run.wait_booked(20)
        began = time.monotonic()
        run.process.terminate()
        assert run.end(20.0) == 3
        assert time.monotonic() - began < 8.5
    assert told(run)["report"] == {}
    assert re.search(r"job ended state=failed", run.log)
    assert len(run.account().with_fate("finished")) >= 20
    assert SECRET not in run.log


def test_logs_are_shipped_while_the_job_runs(runner: Runner, tmp_path: Path) -> None:
    """An endpoint for it gets the logs so far under one name; at the job's end they are replaced
    by the log archive."""
    place = tmp_path / "object-store"
    meanwhile = f'[endpoints.objects]\nurl = "{place}"\nid = 2\nactivities = ["pls"]\n'
    job = job_of(events=400, delay_ms=20, stageout={"logs_every_s": 0.3})
    run = runner.start(job + meanwhile)
    name = f"{log_lfn(run)}.running"
    eventually((place / name).exists, what="logs so far")
    with tarfile.open(place / name) as tar:
        assert any(each.endswith("/pilot.log") for each in tar.getnames())
    assert run.booked < 400
    run.require_finished(400)
    assert list(place.iterdir()) == []
    assert require_log(run, run.storage)
