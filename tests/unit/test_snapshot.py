"""The status of a pilot as lines and as JSON, from facts."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from espilot.model import AtRisk, Counts
from espilot.view.snapshot import (
    NO_COUNTS,
    DeadlineView,
    JobView,
    Places,
    Resource,
    Snapshot,
    StageoutView,
    StorageHealthView,
    as_document,
    resources_of,
)
from espilot.view.status_text import describe
from espilot.view.wording import duration_text, printable, size_text

COUNTS = Counts(5, 4, 3, 2, 1, 0, 0, 100, 6, 7, 8, 1000, 9, 2_500_000, 77)
PLACES = Places("/w", "/w/state", "/se", "/w/logs/pilot.log")


def make(**fields: Any) -> Snapshot:
    """A living pilot in the middle of its task."""
    usual: dict[str, Any] = {
        "taken_at": 1000.0,
        "running": True,
        "pid": 4711,
        "run_state": "running",
        "task": "zmumu",
        "total": 400,
        "places": PLACES,
        "counts": COUNTS,
        "at_risk": AtRisk(10, 930.0, 42.0),
        "job": JobView(1001, 7, "running", "running", 2, 1),
        "stageout": StageoutView(42.0, 1, 5_000_000),
        "storage": StorageHealthView("trouble", "disk full"),
        "deadline": DeadlineView(1800.0, "wall time", "", ""),
        "rates": {"window_s": 120.0, "ranges_per_s": 3.5, "events_per_s": 35.0},
        "verdicts": ({"t": 990.0, "rule": "hang", "text": "no message for 7200 s"},),
        "resources": (Resource("peak PSS", 1e9, 4e9, "bytes"),),
        "pids": {"dispatcher": 12},
    }
    return Snapshot(**(usual | fields))


def told(snapshot: Snapshot, label: str) -> str:
    """The text behind a label."""
    for line in describe(snapshot).splitlines():
        if line.startswith(f"{label}:"):
            return line.partition(":")[2].strip()
    return ""


def test_all_that_was_promised_is_shown() -> None:
    """State, job, ranges, totals, risk, lag, rates, deadline, storage, verdicts, resources."""
    s = make()
    assert told(s, "state") == "running, process 4711"
    assert told(s, "job").split(", ")[1:3] == ["job 1001", "phase running"]
    assert told(s, "ranges").startswith("5 ready, 4 sent, 3 done, 2 packed, 1 staged")
    assert told(s, "totals").startswith("100 of 400 ranges finished and reported (1000 events")
    assert told(s, "totals").endswith("6 failed, 7 fatal, 8 given back")
    assert told(s, "at risk").startswith("10 ranges / 15.5 CPU-minutes would be lost")
    assert told(s, "stage-out").endswith("the oldest waits for 42 s")
    assert told(s, "rates").startswith("3.50 ranges/s made, 35.00 events/s")
    assert told(s, "deadline") == "in 30 min 0 s (wall time)"
    assert told(s, "storage") == "trouble (disk full)"
    assert told(s, "verdicts").endswith("hang: no message for 7200 s")
    assert " ".join(told(s, "resources").split()) == "peak PSS 1.0 GB of 4.0 GB (25%)"


def test_columns_are_aligned() -> None:
    """Every text begins in the same column, in a pipe as on a terminal."""
    lines = describe(make()).splitlines()
    assert {line[14] for line in lines} == {" "}
    assert all(line[15] != " " for line in lines)


def test_dead_pilot() -> None:
    """Of a dead one only what it left is told, and what to do next."""
    s = make(
        running=False, pid=None, rates={}, verdicts=(), resources=(), next_step="espilot recover /w"
    )
    assert told(s, "state") == "no pilot runs, and the task is not finished"
    assert told(s, "try next") == "espilot recover /w"
    assert told(s, "rates") == told(s, "deadline") == told(s, "storage") == ""
    assert told(s, "at risk")


def test_dead_pilot_that_had_told() -> None:
    """What a dead one wrote down is shown with its time; how it was drained is part of it."""
    deadline = DeadlineView(12.0, "request", "espilot drain", "upload")
    s = make(running=False, pid=None, told_at=1_800_000_000.0, verdicts=(), deadline=deadline)
    assert "cannot be asked now" in told(s, "as told at")
    assert told(s, "rates") and told(s, "storage")
    assert told(s, "deadline") == "in 12 s (request); drained (espilot drain); drain step: upload"
    assert told(s, "verdicts") == "none"


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_run_that_is_over(state: str) -> None:
    """A run that is over says how it ended."""
    assert told(make(running=False, run_state=state), "state") == f"{state}; no pilot runs"


def test_draining_and_silent() -> None:
    """A drain is told with its reason and step; a pilot that does not answer with a note."""
    s = make(deadline=DeadlineView(None, "", "SIGTERM", "upload"))
    assert told(s, "state").startswith("draining (SIGTERM)")
    assert told(s, "deadline") == "none known; drain step: upload"
    silent = make(note="the pilot does not answer", deadline=DeadlineView())
    assert told(silent, "note") == "the pilot does not answer"
    assert told(silent, "deadline") == "", "what nobody knows is not told"


def test_between_jobs_and_nothing_to_ship() -> None:
    """No job and no output are said in words."""
    s = make(job=JobView(), counts=NO_COUNTS)
    assert told(s, "job") == "task 'zmumu', no job just now"
    assert told(s, "stage-out") == "nothing waits for the storage"


def test_no_terminal_obeys_it() -> None:
    """Texts from elsewhere bring no control characters."""
    s = make(verdicts=({"t": 1.0, "rule": "x", "text": "\x1b[2J\n"},), task="\x07")
    shown = describe(s)
    assert "\x1b" not in shown and "\x07" not in shown
    assert printable("a\nb") == "a?b"


def test_document() -> None:
    """The JSON object has its schema, nothing that JSON cannot say, and the figures by name."""
    document = json.loads(json.dumps(as_document(make())))
    assert document["schema"] == "espilot.status/1"
    assert document["ranges"]["sent"] == 4
    assert document["totals"]["finished"] == 100
    assert document["at_risk"] == {"ranges": 10, "cpu_minutes": 15.5}
    assert document["deadline"]["in_s"] == 1800.0
    assert document["verdicts"][0]["rule"] == "hang"
    named = {field.name for field in dataclasses.fields(Snapshot)} - {"counts"}
    assert named <= set(document)


def test_resources_beside_their_limits() -> None:
    """A limit of 0 is no limit; what was not measured is not there."""
    used = {"max_pss_bytes": 10.0, "max_processes": 3}
    rows = resources_of(used, {"memory_bytes": 0, "processes": 8, "wall_s": 60}, 30.0)
    assert [(r.name, r.value, r.limit) for r in rows] == [
        ("peak PSS", 10.0, None), ("peak processes", 3, 8), ("wall time", 30.0, 60),
    ]  # fmt: skip
    assert resources_of({}, {}, None) == ()


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0.0, "0.00 s"), (9.99, "9.99 s"), (10.0, "10 s"), (59.9, "59 s"), (60.0, "1 min 0 s"),
        (3599.0, "59 min 59 s"), (3600.0, "1 h 0 min"), (7500.0, "2 h 5 min"),
        (172_799.0, "47 h 59 min"), (172_800.0, "2 d 0 h"), (277_200.0, "3 d 5 h"),
    ],
)  # fmt: skip
def test_durations(duration_s: float, text: str) -> None:
    """A duration has two figures that matter."""
    assert duration_text(duration_s) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.5e6, "1.5 MB"), (2e9, "2.0 GB"),
     (3e12, "3.0 TB")],
)  # fmt: skip
def test_sizes(size_bytes: float, text: str) -> None:
    """Sizes are in powers of ten."""
    assert size_text(size_bytes) == text
