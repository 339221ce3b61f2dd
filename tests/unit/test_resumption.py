"""What the server says about a job that was found, and what becomes of its ranges."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any

import pytest

from espilot.model import (
    Archive,
    ArchiveState,
    DoneRange,
    FailedRange,
    Job,
    JobRecord,
    RangeState,
)
from espilot.pipeline.resumption import Comparison, compare, live_keys

RECORD = JobRecord(Job(5, 4, 1, 1, 1, ("o",), "log"), "running", {"before": 1, "unasked": True})


def ids(*numbers: int) -> tuple[str, ...]:
    """Range ids of job 5."""
    return tuple(f"1-5-9-{n}-3" for n in numbers)


def said(**statuses: Iterable[int]) -> dict[str, str]:
    """The server's answer: numbers of ranges by status."""
    return {f"1-5-9-{n}": status for status, numbers in statuses.items() for n in numbers}


class Rows:
    """A queue in memory that notes its moves."""

    def __init__(self) -> None:
        self.states: dict[RangeState, tuple[str, ...]] = {}
        self.kept: list[Archive] = []
        self.failed: list[FailedRange] = []
        self.moved: list[tuple[Any, ...]] = []

    def ids(self, state: RangeState) -> list[str]:
        return list(self.states.get(state, ()))

    def done(self, after: int = 0) -> tuple[list[DoneRange], int]:
        return [], after

    def failures(self) -> list[FailedRange]:
        return self.failed

    def archives(self, state: ArchiveState | None = None, limit: int = 0) -> list[Archive]:
        return self.kept

    def moves(self) -> Rows:
        return self

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None: ...

    def set_job(self, job: Job, phase: str, facts: dict[str, Any]) -> None:
        self.moved.append(("job", facts))

    def give_back_ranges(self, given: Iterable[str]) -> int:
        self.moved += [("back", each) for each in given]
        return len(list(given))

    def forget_failures(self, forgotten: Iterable[str]) -> int:
        self.moved += [("forget", each) for each in forgotten]
        return len(list(forgotten))

    def abandon_archive(self, name: str) -> None:
        self.moved.append(("abandon", name))

    def staged(self, name: str, *, storage_id: int) -> None:
        self.moved.append(("staged", name))

    def reported(self, name: str, *, refused: frozenset[str] = frozenset()) -> None:
        self.moved.append(("reported", name, refused))


@pytest.fixture
def rows() -> Rows:
    return Rows()


def run(rows: Rows, statuses: dict[str, str]) -> Comparison:
    """Compare."""
    queue: Any = rows
    found = compare(queue, RECORD, statuses)
    assert rows.moved.pop(0) == ("job", {"before": 1})
    return found


def test_what_the_server_holds_stays(rows: Rows) -> None:
    """Ranges that are open at the server are not touched, whatever their state here."""
    rows.states = {RangeState.READY: ids(1), RangeState.SENT: ids(2), RangeState.DONE: ids(3)}
    rows.kept = [Archive("a.tar", ids(4, 5), 10, "0", 2)]
    rows.failed = [FailedRange(*ids(6), False, 1, "")]
    assert run(rows, said(sent=(1, 2, 4, 6), running=(3, 5))) == Comparison(held=6)
    assert rows.moved == []


def test_what_the_server_does_not_hold_goes_back(rows: Rows) -> None:
    """Ranges that the server took back, or has booked otherwise, are deleted here."""
    rows.states = {RangeState.READY: ids(1), RangeState.SENT: ids(2), RangeState.DONE: ids(3)}
    rows.failed = [FailedRange(*ids(4), False, 1, "")]
    assert run(rows, said(ready=(1,), finished=(2, 4))) == Comparison(lost=ids(1, 2, 3, 4))
    assert rows.moved == [("back", each) for each in ids(1, 2, 3, 4)]


def test_booked_failures_are_forgotten(rows: Rows) -> None:
    """A failure that the server has booked needs no second report."""
    rows.failed = [FailedRange(*ids(1), False, 1, ""), FailedRange(*ids(2), True, 1, "")]
    assert run(rows, said(failed=(1,), fatal=(2,))) == Comparison(booked=2)
    assert rows.moved == [("forget", each) for each in ids(1, 2)]


@pytest.mark.parametrize("state", [ArchiveState.PACKED, ArchiveState.STAGED])
def test_booked_archive_is_only_cleaned_up(rows: Rows, state: ArchiveState) -> None:
    """An archive whose ranges are all booked was reported; it is not shipped again."""
    rows.kept = [Archive("a.tar", ids(1, 2), 10, "0", 2, state)]
    assert run(rows, said(finished=(1,), merged=(2,))) == Comparison(booked=2)
    assert rows.moved[-1] == ("reported", "a.tar", frozenset())
    assert ("abandon", "a.tar") not in rows.moved


def test_orphans_are_named(rows: Rows) -> None:
    """Archives of which the server wants no range are abandoned, and named."""
    rows.kept = [
        Archive("a.tar", ids(1, 2), 10, "0", 2),
        Archive("b.tar", ids(3), 10, "0", 1, ArchiveState.STAGED),
        Archive("c.tar", ids(4), 10, "0", 1, ArchiveState.REPORTED),
    ]
    found = run(rows, {})
    assert found == Comparison(lost=ids(1, 2, 3), orphans=("a.tar", "b.tar"))
    assert rows.moved == [("abandon", "a.tar"), ("reported", "b.tar", frozenset(ids(3)))]


def test_archive_with_an_open_range_is_shipped_whole(rows: Rows) -> None:
    """As long as the server wants one of its ranges, an archive goes its ordinary way."""
    rows.kept = [Archive("a.tar", ids(1, 2), 10, "0", 2)]
    assert run(rows, said(sent=(1,), finished=(2,))) == Comparison(held=2)
    assert rows.moved == []


def test_every_live_range_is_asked_for(rows: Rows) -> None:
    """The question names ranges as the statuses do, without their attempt."""
    rows.states = {state: ids(n) for n, state in enumerate(RangeState)}
    queue: Any = rows
    assert live_keys(queue) == {f"1-5-9-{n}" for n in range(len(RangeState))}
