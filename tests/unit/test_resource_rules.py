"""Rules on memory, space and time without change: both sides of each limit, and the words."""

from __future__ import annotations

import pytest

from espilot.core import limits, memory, space
from espilot.core.looping import LoopingClock, declared_limit, looping_limit
from espilot.core.usage import Usage, UsageTally

GB = 10**9


def test_tree_memory() -> None:
    """PSS over the limit ends the job with 1235; resident sizes stand in when there is no PSS."""
    verdict = memory.tree(5 * GB, 9 * GB, 4 * GB)
    assert verdict is not None
    assert (verdict.rule, verdict.action, verdict.code) == ("memory", "end-job", 1235)
    assert verdict.text == "the payload takes 5.0 GB of memory (PSS), the limit is 4.0 GB"
    assert memory.tree(4 * GB, 9 * GB, 4 * GB) is None, "at the limit; shared pages count once"
    assert memory.tree(9 * GB, 9 * GB, 0) is None
    without = memory.tree(None, 5 * GB, 4 * GB)
    assert without is not None
    assert "(RSS)" in without.text


def test_scaled_limit() -> None:
    """A job with a part of the cores may take that part of the memory."""
    assert memory.scaled_limit(16 * GB, 4, 8) == 8 * GB
    assert memory.scaled_limit(16 * GB, 16, 8) == 16 * GB
    assert memory.scaled_limit(2 * GB, 0, 0) == 2 * GB
    assert memory.scaled_limit(0, 8, 8) == 0


def test_swap() -> None:
    """Too much in swap ends the job; not measured and not limited is no verdict."""
    verdict = memory.swap(2 * GB, GB)
    assert verdict is not None
    assert (verdict.rule, verdict.code, verdict.action) == ("swap", 1235, "end-job")
    assert "2.0 GB" in verdict.text and "1.0 GB" in verdict.text
    assert memory.swap(GB, GB) is memory.swap(None, GB) is memory.swap(2 * GB, 0) is None


def test_group_memory() -> None:
    """The control group's verdict comes at 95 % of what the kernel allows."""
    assert memory.group(95 * 10**8, 10 * GB) is None
    verdict = memory.group(96 * 10**8, 10 * GB)
    assert verdict is not None
    assert (verdict.code, verdict.action) == (1235, "end-job")
    assert "9.6 GB" in verdict.text and "10.0 GB" in verdict.text
    assert memory.group(96 * 10**8, 0) is None


def test_oom_kills() -> None:
    """A kill by the kernel is noted with 1212, once for each increase."""
    assert memory.oom_kills(3, 3) is None
    verdict = memory.oom_kills(3, 5)
    assert verdict is not None
    assert (verdict.value, verdict.code, verdict.action) == (2, 1212, "note")


def test_pss_is_measured_rarely() -> None:
    """Every 60 s; at once when the resident sizes are over the limit; never for long."""
    plan = memory.PssPlan(60.0, limit_bytes=4 * GB)
    assert plan.is_due(0.0, 0)
    plan.measured(0.0, took_s=0.01)
    assert not plan.is_due(59.0, 3 * GB)
    assert plan.is_due(60.0, 3 * GB)
    assert plan.is_due(1.0, 5 * GB), "suspect: its resident sizes are over the limit"
    plan.measured(100.0, took_s=2.0)
    assert not plan.is_due(199.0, 5 * GB), "two seconds of work in less than a hundred"
    assert plan.is_due(201.0, 5 * GB)


def test_no_limit_measures_by_time_only() -> None:
    """Without a limit nothing is suspect."""
    plan = memory.PssPlan(60.0, limit_bytes=0)
    plan.measured(0.0, took_s=0.0)
    assert not plan.is_due(30.0, 10**15)


def test_start_needs_space() -> None:
    """Too little space at the start is told with both numbers."""
    assert space.refuse_start(2 * GB, 2 * GB) == ""
    assert space.refuse_start(19 * 10**8, 2 * GB) == "only 1.9 GB are free, 2.0 GB are needed"


def test_needed_space() -> None:
    """Outputs in hand plus one archive of what there is, at most the largest."""
    assert space.needed_bytes(10, 20, 1e6, 10**12) == 40 * 10**6
    assert space.needed_bytes(10, 2000, 1e6, 10**8) == 110 * 10**6
    assert space.needed_bytes(0, 0, 1e6, 10**8) == 0


def test_space_gate_closes_and_opens() -> None:
    """Below the floor no ranges are handed out; a little more than the floor opens again."""
    gate = space.SpaceGate(GB)
    assert gate.observe(GB) == ""
    assert gate.narrow("ok") == "ok"
    assert gate.is_open
    closed = gate.observe(GB - 1)
    assert closed.endswith("no ranges are handed out")
    assert not gate.is_open
    assert [gate.narrow(each) for each in ("ok", "given-up")] == ["trouble", "given-up"]
    assert gate.observe(GB) == ""
    assert not gate.is_open, "no flutter at the floor"
    assert gate.observe(2 * GB).endswith("handed out again")
    assert gate.is_open
    assert gate.observe(2 * GB, needed_bytes=3 * GB), "what is in hand needs more than the floor"
    assert not gate.is_open


def test_space_gate_judges_at_half() -> None:
    """The job ends with 1098 only at half the floor."""
    gate = space.SpaceGate(GB)
    assert gate.judge(GB // 2) is None
    verdict = gate.judge(GB // 2 - 1)
    assert verdict is not None
    assert (verdict.code, verdict.action) == (1098, "end-job")


def test_no_floor() -> None:
    """A floor of 0 never closes."""
    gate = space.SpaceGate(0)
    assert gate.observe(0, 10**12) == ""
    assert gate.judge(0) is None


def test_grace_of_the_work_dir() -> None:
    """The limit is maxwdir and its grace."""
    assert limits.work_dir(120, 100, 0.2) is None
    verdict = limits.work_dir(121, 100, 0.2)
    assert verdict is not None
    assert (verdict.limit, verdict.code) == (120, 1104)
    assert limits.work_dir(10**18, 0, 0.2) is None


def test_growing_output() -> None:
    """A file over the limit is judged while it grows; one that stands still is not."""
    assert limits.growing_output("f", 100, 50, 100) is None
    assert limits.growing_output("f", 101, 101, 100) is None
    assert limits.growing_output("f", 101, -1, 100) is None, "seen for the first time"
    verdict = limits.growing_output("f", 101, 50, 100)
    assert verdict is not None
    assert (verdict.code, verdict.action) == (1124, "end-payload")


def test_processes() -> None:
    """Too many processes end the payload."""
    assert limits.processes(10, 10) is None
    assert limits.processes(10**6, 0) is None
    verdict = limits.processes(11, 10)
    assert verdict is not None
    assert verdict.text == "the payload has 11 processes, the limit is 10"
    assert verdict.action == "end-payload"


def test_no_progress() -> None:
    """Ranges in hand of which none ends for too long end the payload, however busy it is."""
    assert limits.no_progress(3600.0, 4, 3600.0) is None
    assert limits.no_progress(1e6, 0, 3600.0) is None, "nothing in hand"
    assert limits.no_progress(1e6, 4, 0.0) is None, "no limit"
    verdict = limits.no_progress(3700.0, 4, 3600.0)
    assert verdict is not None
    assert verdict.action == "end-payload"
    assert "4 ranges in hand and none ended for 1.03 h, the limit is 1.00 h" in verdict.text


@pytest.mark.parametrize(
    ("max_cpu_s", "limit_s", "expected"),
    [(0, 7200, 7200), (3600, 7200, 7200), (7200, 7200, 7200), (36000, 43200, 36000), (9, 0, 0)],
)
def test_looping_limit(max_cpu_s: float, limit_s: float, expected: float) -> None:
    """A declared CPU time of two hours or more is the limit; a shorter one only raises it."""
    assert looping_limit(max_cpu_s, limit_s) == expected


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ({}, 7200.0),
        ({"loopingCheck": False}, 0.0),
        ({"loopingCheck": True}, 7200.0),
        ({"maxCpuCount": 90000}, 90000.0),
        ({"maxCpuCount": "90000"}, 90000.0),
        ({"maxCpuCount": "NULL"}, 7200.0),
        ({"maxCpuCount": -1}, 7200.0),
        ({"maxCpuCount": 90000, "loopingCheck": False}, 0.0),
    ],
)
def test_looping_limit_of_a_job(definition: dict[str, object], expected: float) -> None:
    """A job may declare its CPU time, or that nobody shall look whether it loops."""
    assert declared_limit(definition, 7200.0) == expected


def test_lesson_44_payload_that_never_writes_loops() -> None:
    """The first value is the start, so a payload that writes nothing is found."""
    clock = LoopingClock(1000.0, 7200.0)
    assert clock.observe(8200.0, None) is None
    verdict = clock.observe(8201.0, None)
    assert verdict is not None
    assert (verdict.code, verdict.action) == (1150, "end-job")


def test_looping_clock_follows_the_newest_file() -> None:
    """A change resets the clock, the former value is kept, the future counts as now."""
    clock = LoopingClock(1000.0, 100.0)
    assert clock.observe(1090.0, 1080.0) is None
    assert clock.observe(1180.0, 900.0) is None, "an older newest file (one was removed)"
    assert clock.observe(1181.0, None) is not None
    assert clock.observe(1300.0, 1e12) is None
    assert clock.observe(1400.0, None) is None
    assert clock.observe(1401.0, None) is not None


def test_looping_clock_and_suspension() -> None:
    """Suspended time is added to the last change."""
    clock = LoopingClock(1000.0, 100.0)
    clock.suspended(3600.0)
    assert clock.observe(4700.0, None) is None
    assert clock.observe(4701.0, None) is not None


def test_usage_over_several_starts() -> None:
    """Sums add up over starts, largest values stand, means are over the time they were known."""
    tally = UsageTally()
    tally.payload_started()
    tally.take(0.0, Usage(2, 100, 1.0, 80, 10, 20))
    tally.take(30.0, Usage(5, 300, 4.0, None, 50, 60))
    tally.take(40.0, Usage(3, 100, 3.0, 90, 40, 60))
    tally.payload_started()
    tally.take(1000.0, Usage(1, 50, 2.0, 40, 5, 5))
    tally.take_workdir(70)
    tally.take_workdir(60)
    totals = tally.totals
    assert (totals.max_rss_bytes, totals.max_pss_bytes, totals.max_processes) == (300, 90, 5)
    assert totals.avg_rss_bytes == (30 * 100 + 10 * 300) // 40
    assert totals.avg_pss_bytes == 80
    assert (totals.cpu_s, totals.read_bytes, totals.written_bytes) == (6.0, 55, 65)
    assert totals.max_workdir_bytes == 70
    assert totals.as_dict()["cpu_s"] == 6.0


def test_usage_of_nothing() -> None:
    """Without a measurement all is zero; with one the mean is its value."""
    tally = UsageTally()
    assert tally.totals.avg_rss_bytes == 0
    tally.take(0.0, Usage(1, 7, 0.0))
    assert tally.totals.avg_rss_bytes == 7
