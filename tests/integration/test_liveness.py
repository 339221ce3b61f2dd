"""The file by which a wrapper sees that its pilot lives, and the ids of its jobs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from espilot.model import Counts
from espilot.supervisor import liveness
from espilot.supervisor.liveness import EVERY_S, Liveness
from espilot.supervisor.outcome import Snapshot

COUNTS = Counts(*[0] * 15)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def snapshot(panda_id: int = 0, phase: str = "") -> Snapshot:
    """How a run without ranges stands."""
    return Snapshot(COUNTS, panda_id, phase, "", 0, "ok")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(liveness.time, "monotonic", made.monotonic)
    return made


def test_lesson_56_only_looks_of_the_loop_write(tmp_path: Path, clock: Clock) -> None:
    """A line comes when something has changed and once a minute, and never without a look."""
    log = tmp_path / "pilotlog.txt"
    shown = Liveness(log, None)
    for _ in range(10):
        shown.show(snapshot(5, "running"))
    assert len(log.read_text().splitlines()) == 1
    shown.show(snapshot(5, "ending"))
    assert len(log.read_text().splitlines()) == 2
    clock.now += EVERY_S - 1
    shown.show(snapshot(5, "ending"))
    assert len(log.read_text().splitlines()) == 2
    clock.now += 100 * EVERY_S  # a loop that stands still writes nothing
    assert len(log.read_text().splitlines()) == 2
    shown.show(snapshot(5, "ending"))
    assert len(log.read_text().splitlines()) == 3
    assert EVERY_S <= 600


def test_ids_of_jobs(tmp_path: Path, clock: Clock) -> None:
    """Each job's id is there once, one a line."""
    ids = tmp_path / "pandaIDs.out"
    shown = Liveness(None, ids)
    for panda_id in (0, 5, 5, 0, 7, 7):
        shown.show(snapshot(panda_id))
    assert ids.read_text() == "5\n7\n"


def test_a_full_disk_does_not_end_the_pilot(tmp_path: Path, clock: Clock) -> None:
    """What cannot be written is at least touched, and nothing is raised."""
    full = tmp_path / "pilotlog.txt"
    full.symlink_to("/dev/full")
    Liveness(full, tmp_path / "none" / "ids").show(snapshot(5))
    assert os.path.lexists(full)
