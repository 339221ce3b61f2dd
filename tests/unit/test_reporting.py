"""What an answer to a report means for each range: nothing counts as booked that is in doubt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espilot.core.reporting import ReportSize, key_of, needs_statuses, read_answer, read_statuses
from espilot.model import RangeReport

REPORTS = tuple(RangeReport(f"7-17-3-{n}-1", "finished") for n in range(1, 4))
IDS = [r.id for r in REPORTS]


def test_key_leaves_out_the_attempt() -> None:
    """Statuses are keyed by the first four parts of an id."""
    assert key_of("7-17-3-1-12") == "7-17-3-1"


@pytest.mark.parametrize(
    ("accepted", "doubt"),
    [
        ((True, True, True), False),
        ((True, None, True), False),
        ((True, False, True), True),
        ((True, True), True),
        ((True,) * 4, True),
        ((), True),
        (None, True),
    ],
)
def test_doubt(accepted: tuple[bool | None, ...] | None, doubt: bool) -> None:
    """A refusal, a wrong length and no answer at all are doubts; an ignored range is not."""
    assert needs_statuses(accepted, 3) is doubt


def test_clean_answer() -> None:
    """Accepted is booked, ignored comes again."""
    fates = read_answer(REPORTS, (True, None, True))
    assert fates.booked == {IDS[0], IDS[2]}
    assert (fates.again, fates.lost) == ({IDS[1]}, frozenset())


@pytest.mark.parametrize(
    ("said", "holds", "fate"),
    [
        ("finished", "finished", "booked"),
        ("finished", "done", "booked"),
        ("finished", "merged", "booked"),
        ("finished", "sent", "again"),
        ("finished", "running", "again"),
        ("finished", "reserved_get", "again"),
        ("finished", "failed", "lost"),
        ("finished", "fatal", "lost"),
        ("finished", "ready", "lost"),
        ("finished", "cancelled", "lost"),
        ("finished", "", "lost"),
        ("finished", None, "lost"),
        ("failed", "failed", "booked"),
        ("failed", "fatal", "booked"),
        ("failed", "sent", "again"),
        ("failed", "finished", "lost"),
        ("fatal", "fatal", "booked"),
        ("fatal", "failed", "booked"),
        ("fatal", "done", "lost"),
    ],
)
def test_statuses(said: str, holds: str | None, fate: str) -> None:
    """What the server holds decides: booked as we said, open still, or no longer ours."""
    report = RangeReport("7-17-3-1-2", said)
    statuses = {} if holds is None else {"7-17-3-1": holds}
    fates = read_statuses([report], statuses)
    found = {"booked": fates.booked, "again": fates.again, "lost": fates.lost}
    assert found.pop(fate) == {report.id}
    assert not any(found.values())


@given(st.lists(st.sampled_from(["finished", "failed", "sent", "ready", "huh", None]), max_size=9))
def test_each_range_has_one_fate(holds: list[str | None]) -> None:
    """Every reported range is in exactly one of the three sets."""
    reports = [RangeReport(f"a-{n}-1", "finished") for n in range(len(holds))]
    statuses = {f"a-{n}": status for n, status in enumerate(holds) if status is not None}
    fates = read_statuses(reports, statuses)
    together = [*fates.booked, *fates.again, *fates.lost]
    assert sorted(together) == sorted(r.id for r in reports)


def test_a_report_is_halved_until_its_culprit_is_alone() -> None:
    """While nothing gets through a report shrinks to one item; after five of those it goes back."""
    size = ReportSize(1000)
    steps = 0
    while size.ranges > 1:
        assert not size.failed()
        steps += 1
    assert steps == 9
    assert [size.failed() for _ in range(5)] == [False, False, False, False, True]


def test_a_refused_call_blames_no_item() -> None:
    """However often the server refuses the whole call, nothing is given back for it."""
    size = ReportSize(4)
    for _ in range(20):
        size.shrink()
    assert size.ranges == 1
    assert not size.failed()


def test_progress_restores_the_full_report() -> None:
    """One report that gets through ends the caution."""
    size = ReportSize(8)
    size.failed()
    size.failed()
    assert size.ranges == 2
    size.progressed()
    assert size.ranges == 8
