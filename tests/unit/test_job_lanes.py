"""The timeline of a server's jobs, and what a pilot has in work: pure, no clock."""

from __future__ import annotations

from typing import Any

import pytest

from espilot.view.history import History
from espilot.view.job_lanes import MOST_LANES, JobLanes
from espilot.view.lanes import Lanes


def job(panda_id: int, status: str, updated_at: float, ranges: int = 0) -> dict[str, Any]:
    """A row of a job."""
    active = status not in ("finished", "failed")
    return {"panda_id": panda_id, "status": status, "active": active, "updated_at": updated_at,
            "ranges_finished": ranges}  # fmt: skip


def test_lane_of_a_job_is_its_time_at_work() -> None:
    """From the first look that shows it at work to its last update; a failed one is told so."""
    lanes = JobLanes()
    lanes.take(
        [job(1, "activated", 90.0), job(2, "running", 95.0), job(3, "finished", 50.0)], 100.0
    )
    lanes.take([job(1, "running", 103.0), job(2, "failed", 104.0, 7)], 105.0)
    shown = lanes.document(100.0, 110.0)
    assert [each["name"] for each in shown["lanes"]] == ["job 1", "job 2"]
    running, failed = shown["lanes"]
    assert (running["now"], running["boxes"], running["busy_s"]) == (5.0, [], 5.0)
    assert (failed["now"], failed["boxes"]) == (None, [(0.0, 4.0, "x")])
    assert (failed["ended"], failed["failed"]) == (7, 1)


def test_oldest_jobs_that_are_over_make_room() -> None:
    """The number of lanes is bounded, who works is kept, and what is left out is counted."""
    lanes = JobLanes()
    lanes.take([job(1, "running", 1.0)], 1.0)
    for n in range(2, MOST_LANES + 4):
        lanes.take([job(n, "running", float(n))], float(n))
        lanes.take([job(n, "finished", n + 0.5)], n + 0.5)
    shown = lanes.document(0.0, 99.0)
    names = [each["name"] for each in shown["lanes"]]
    assert (len(names), shown["dropped"]) == (MOST_LANES, 3)
    assert names[0] == "job 1" and "job 2" not in names and names[-1] == f"job {MOST_LANES + 3}"


def test_only_the_range_that_is_processed_is_in_work() -> None:
    """A client holds ranges ahead: the next one begins when the one before has ended."""
    lanes = Lanes(History())
    lanes.begin(0, 7, 10.0)
    lanes.begin(1, 7, 10.5)
    lanes.begin(2, 8, 11.0)
    assert lanes.running() == [(0, 10.0), (2, 11.0)]
    lanes.end(0, 14.0, "d")
    assert lanes.running() == [(2, 11.0), (1, 14.0)]


def test_client_with_several_at_once_has_several_lanes() -> None:
    """Ranges that overlap, as the payload tells their time, lie side by side."""
    lanes = Lanes(History())
    for cell in range(4):
        lanes.begin(cell, 7, 10.0)
    ends = ((12.0, 2.0), (12.1, 2.1), (14.0, 1.9))
    took = [lanes.end(cell, t, "d", wall_s) for cell, (t, wall_s) in enumerate(ends)]
    assert took == pytest.approx([2.0, 2.1, 1.9])
    shown = lanes.document(15.0)["lanes"]
    assert [each["name"] for each in shown] == ["process 7 #1", "process 7 #2", "stage-out"]
    assert [each["ended"] for each in shown] == [1, 2, 0]
    assert lanes.running() == [(3, 12.0)] and shown[0]["now"] == 2.0


def test_one_at_a_time_is_one_lane() -> None:
    """What a client holds ahead does not overlap, whatever it tells, and gaps are not counted."""
    lanes = Lanes(History())
    for cell in range(3):
        lanes.begin(cell, 7, 10.0)
    assert lanes.end(0, 12.0, "d", 2.0) == 2.0
    assert lanes.end(1, 14.0, "d", 2.05) == 2.0
    assert lanes.end(2, 15.0, "d", 0.001) == 1.0
    assert len(lanes.document(15.0)["lanes"]) == 2
