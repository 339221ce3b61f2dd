"""Real physics: the same events come out, whatever is killed while they are made."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pilot_run import ROOT, Run, Runner, eventually, job_text, runner_in

uproot = pytest.importorskip("uproot")
pytest.importorskip("pythia8mc")

RANGES, PER_RANGE = 20, 5
JOB = job_text(
    f"{{python}} {ROOT}/etc/jobs/zmumu.py",
    events=RANGES * PER_RANGE,
    task={"name": "zmumu", "events_per_range": PER_RANGE, "outputs": ["zmumu.root"]},
    packing={"max_ranges": 3, "max_age_s": 0.5},
)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def events_of(run: Run, directory: Path) -> dict[int, tuple[Any, ...]]:
    """Every event of a finished run by its number, with all its columns."""
    assert run.end() == 0, run.log[-4000:]
    account = run.account()
    assert len(account.with_fate("finished")) == RANGES
    events: dict[int, tuple[Any, ...]] = {}
    for each in account.ranges:
        [(name, data)] = account.content_of(each.id).items()
        assert name == f"zmumu.root.{each.id}"
        path = directory / "one.root"
        path.write_bytes(data)
        with uproot.open(path) as file:
            columns = file["events"].arrays(library="np")
        for row in zip(*(columns[key] for key in sorted(columns)), strict=True):
            number = int(row[sorted(columns).index("event")])
            assert number not in events
            events[number] = row
    return events


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Any, ...]]:
    """The events of a run in which nobody is killed."""
    directory = tmp_path_factory.mktemp("undisturbed")
    with runner_in(directory) as runner:
        events = events_of(runner.start(JOB), directory)
    assert sorted(events) == list(range(1, RANGES * PER_RANGE + 1))
    return events


@pytest.mark.parametrize("role", ["stageout", "client", "payload"])
def test_killed_process_changes_no_event(
    runner: Runner, undisturbed: dict[int, tuple[Any, ...]], role: str
) -> None:
    """A killed worker or payload process costs time, and changes not one number."""
    run = runner.start(JOB)
    eventually(lambda: "ranges fetched" in run.log and run.pid_of("client"), what="work")
    eventually(lambda: "client connected" in run.log, what="clients")
    run.kill(role, signal.SIGKILL)
    assert events_of(run, runner.directory) == undisturbed


def test_ready_made_job_ends_with_one_file_and_a_picture(runner: Runner) -> None:
    """The job of `make run`, shortened: one ROOT file with each event once, checked and drawn."""
    jobs = ROOT / "etc" / "jobs"
    text = (jobs / "zmumu.toml").read_text().replace("{jobdir}", str(jobs))
    assert "events = 1000\n" in text
    limits = "\n[limits]\nfree_start_bytes = 0\nfree_bytes = 0\n"
    run = runner.start(text.replace("events = 1000\n", "events = 60\n") + limits)
    assert run.end() == 0, run.stderr + run.log[-4000:]
    with uproot.open(run.storage / "zmumu.root") as file:
        events = file["events"]["event"].array(library="np").tolist()
    assert events == list(range(1, 61))
    assert "invariant mass of the muon pair, 60 events" in run.stderr
    picture = run.storage / "zmumu.png"
    assert f"picture: {picture}" in run.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
