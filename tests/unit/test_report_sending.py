"""Reports that a server takes only in part."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import pytest

from espilot.model import ArchiveFacts, Job, RangeReport, ReportAnswer, ReportBatch
from espilot.pipeline import reports
from espilot.ports import EventServer

JOB = Job(4711, 4710, 7, 1, 4, ("out",), "log")
ARCHIVE = ArchiveFacts("a.tar", 10, "00000001", 5, 2)


class CappedServer:
    """Books so many ranges of one call; the answer arrives or is lost."""

    def __init__(self, cap: int, *, answers: bool) -> None:
        self.cap, self.answers = cap, answers
        self.booked: set[str] = set()
        self.calls: list[list[ReportBatch]] = []

    def report(self, job: Job, batches: Sequence[ReportBatch]) -> ReportAnswer:
        self.calls.append(list(batches))
        ids = [report.id for batch in batches for report in batch.ranges]
        self.booked |= set(ids[: self.cap])
        entries = tuple(True if n < self.cap else None for n in range(len(ids)))
        return ReportAnswer(entries if self.answers else None)

    def range_statuses(self, job: Job, wanted: Collection[str] | None = None) -> Mapping[str, Any]:
        keys = {range_id.rpartition("-")[0] for range_id in self.booked}
        return {key: "finished" if key in keys else "sent" for key in wanted or ()}


def batches(n: int) -> list[ReportBatch]:
    ranges = tuple(RangeReport(f"7-4711-3-{i}-1", "finished") for i in range(n))
    return [ReportBatch(ranges[: n // 2], ARCHIVE), ReportBatch(ranges[n // 2 :])]


@pytest.mark.parametrize("answers", [True, False])
def test_the_rest_is_sent_again(answers: bool) -> None:
    """What was beyond the server's cap follows in further calls, with its archive."""
    server = CappedServer(7, answers=answers)
    answered = reports.send(cast(EventServer, server), JOB, batches(20))
    assert len(answered.fates.booked) == len(server.booked) == 20
    assert not answered.fates.again and len(server.calls) == 3
    assert server.calls[1][0].archive == ARCHIVE


def test_a_server_that_takes_nothing_is_not_pressed() -> None:
    """Without any progress one call is enough: the worker pauses and halves."""
    server = CappedServer(0, answers=True)
    answered = reports.send(cast(EventServer, server), JOB, batches(4))
    assert len(answered.fates.again) == 4 and len(server.calls) == 1
