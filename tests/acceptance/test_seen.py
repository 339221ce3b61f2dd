"""`espilot page`, `report` and `top` as people use them: on a living pilot, after its end, after a
kill of everything, and where there is nothing."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pilot_run import ESPILOT, FAKE, Runner, end_processes_of, eventually, job_text, runner_in

EVENTS = 300
JOB = job_text(f"{FAKE} --clients 2 --delay-ms 40", events=EVENTS)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def espilot(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of `espilot` to its end."""
    argv = [*ESPILOT, *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def frozen(page: str) -> dict[str, Any]:
    """The object in a report."""
    data = re.search(r'<script type="application/json" id="frozen">(.*?)</script>', page, re.S)
    assert data
    found: dict[str, Any] = json.loads(data[1])
    return found


@contextmanager
def page_of(directory: Path) -> Iterator[http.client.HTTPConnection]:
    """The page of a run, served as people start it, and ended by SIGTERM."""
    argv = [*ESPILOT, "page", str(directory), "--port", "0", "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    try:
        url = json.loads(process.stdout.readline())["url"]
        yield http.client.HTTPConnection(url[7:].rstrip("/"), timeout=30)
        process.terminate()
        assert process.wait(20) == 0, process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def ask(connection: http.client.HTTPConnection, path: str) -> Any:
    """The object at a path."""
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    data = json.loads(answer.read())
    connection.close()
    return data


def test_page_of_a_living_pilot(runner: Runner) -> None:
    """Live: the map fills, workers have lanes, rates and forecast are there; the pilot goes on as
    if nobody had looked, and at its end the page says so."""
    run = runner.start(JOB)
    run.wait_booked(20)
    with page_of(run.workdir) as connection:
        shown = ask(connection, "/state.json")
        assert shown["schema"] == "espilot.page/1" and shown["map"]["total"] == EVENTS
        assert shown["state"]["text"].startswith("running")
        seen = eventually(
            lambda: (new := ask(connection, "/state.json"))["map"]["counts"]["f"] >= 100 and new,
            what="a hundred safe ranges on the map",
        )
        lanes = [lane["name"] for lane in seen["lanes"]["lanes"]]
        assert len(lanes) == 3 and lanes[-1] == "stage-out"
        assert re.search(r"(Will finish 300 of 300|All of 300)", seen["forecast"]["text"])
        assert {each["name"] for each in seen["resources"]} >= {"peak work dir", "CPU time"}
        row = ask(connection, "/rows?from=0&most=1")["rows"][0]
        assert row["state"] == "reported" and row["client"] > 0
        assert run.end() == 0
        after = eventually(
            lambda: (new := ask(connection, "/state.json"))["cells"] == "f" * EVENTS and new,
            what="all safe on the map",
        )
        assert after["state"] == {"text": "finished; no pilot runs", "level": "ok"}
    run.require_finished(EVENTS)


def test_report_of_what_a_kill_left(runner: Runner, tmp_path: Path) -> None:
    """After `kill -9` of everything the report has map, lanes and log, says that nobody works, and
    what to do; after recovery it says that all is safe."""
    run = runner.start(JOB)
    run.wait_booked(30)
    run.process.send_signal(signal.SIGSTOP)
    end_processes_of(run.workdir)
    run.process.wait()
    done = espilot("report", run.workdir)
    assert done.returncode == 0 and done.stderr == ""
    shown = frozen(done.stdout)["document"]
    assert shown["state"]["level"] == "bad" and not shown["running"]
    assert any("espilot recover" in each["remedy"] for each in shown["health"])
    assert shown["map"]["counts"]["f"] >= 30
    assert "nobody works on them" in shown["forecast"]["text"]
    recovered = subprocess.run(
        [*ESPILOT, "recover", str(run.workdir), "--json"],
        capture_output=True, timeout=120, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert recovered.returncode == 0, recovered.stderr
    target = tmp_path / "report.html"
    assert espilot("report", run.state, "--output", target).returncode == 0
    after = frozen(target.read_text())
    assert after["document"]["map"]["counts"]["f"] == EVENTS and len(after["rows"]) == EVENTS
    assert after["document"]["state"]["text"].startswith("finished")


@pytest.mark.parametrize("command", ["page", "report"])
def test_where_there_is_nothing(tmp_path: Path, command: str) -> None:
    """Without a run: one line that says what to name, exit 64."""
    done = espilot(command, tmp_path)
    assert done.returncode == 64 and done.stdout == ""
    assert "holds no state of a run" in done.stderr and done.stderr.count("\n") == 1
