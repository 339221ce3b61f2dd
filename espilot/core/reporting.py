"""What an answer to a report means for each range.

* A clean answer (one entry per range, none refused) is taken: true is booked, null comes again.
* Any doubt (no usable answer, a wrong length, a refusal) is settled by the statuses that the server
  holds, because the update may have been executed before its answer was lost.
* The first final status wins at the server: a range that ended otherwise there is lost to us.
* A report is only as good as its worst item: while nothing gets through it is halved, until the
  culprit is alone; what fails alone `MOST_ALONE` times goes back, so that a job always ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espilot.model import RangeReport

BOOKED_AS = {
    "finished": frozenset({"finished", "done", "merged"}),
    "failed": frozenset({"failed", "fatal"}),
    "fatal": frozenset({"failed", "fatal"}),
}
OPEN = frozenset({"sent", "running", "reserved_get", "reserved_fail"})


@dataclass(frozen=True, slots=True)
class Fates:
    """By id: booked at the server, to be sent again, no longer ours."""

    booked: frozenset[str]
    again: frozenset[str]
    lost: frozenset[str]


def key_of(range_id: str) -> str:
    """The id without its attempt number, as the statuses are keyed."""
    return range_id.rpartition("-")[0]


def needs_statuses(accepted: Sequence[bool | None] | None, n: int) -> bool:
    """Whether an answer leaves a doubt."""
    return accepted is None or len(accepted) != n or False in accepted


def read_answer(reports: Sequence[RangeReport], accepted: Sequence[bool | None]) -> Fates:
    """The fates after a clean answer."""
    booked = {r.id for r, entry in zip(reports, accepted, strict=True) if entry}
    again = {r.id for r in reports} - booked
    return Fates(frozenset(booked), frozenset(again), frozenset())


def read_statuses(reports: Sequence[RangeReport], statuses: Mapping[str, str]) -> Fates:
    """The fates by what the server holds."""
    booked, again, lost = set(), set(), set()
    for report in reports:
        status = statuses.get(key_of(report.id))
        if status in BOOKED_AS[report.status]:
            booked.add(report.id)
        elif status in OPEN:
            again.add(report.id)
        else:
            lost.add(report.id)
    return Fates(frozenset(booked), frozenset(again), frozenset(lost))


MOST_ALONE = 5
"""Failures of a report of a single item, after which the item is given back."""


class ReportSize:
    """How many ranges the next report shall hold."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.ranges = most
        self._alone = 0

    def progressed(self) -> None:
        """Something got through: back to the full size."""
        self.ranges, self._alone = self._most, 0

    def failed(self) -> bool:
        """Nothing got through; returns whether the (single) item is to be given back."""
        if self.ranges > 1:
            self.shrink()
            return False
        self._alone += 1
        return self._alone >= MOST_ALONE

    def shrink(self) -> None:
        """The call was refused as a whole: say less, but blame no item."""
        self.ranges = max(1, self.ranges // 2)
