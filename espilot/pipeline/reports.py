"""Arrow 6: what is staged or failed is reported to the server, and its rows are deleted.

A range leaves the queue only when the server has booked it, or no longer holds it for this job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espilot.core.reporting import Fates, key_of, needs_statuses, read_answer, read_statuses
from espilot.model import (
    PATH_CONVENTION,
    Archive,
    ArchiveFacts,
    ArchiveState,
    Job,
    RangeReport,
    ReportBatch,
)
from espilot.ports import EventServer, RangeQueue

MOST_ARCHIVES = 100
"""Archives looked at for one report."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What one report says: whole archives, and failures."""

    archives: tuple[Archive, ...]
    batches: tuple[ReportBatch, ...]

    @property
    def reports(self) -> tuple[RangeReport, ...]:
        """All ranges in the order of the batches."""
        return tuple(report for batch in self.batches for report in batch.ranges)


@dataclass(frozen=True, slots=True)
class Answered:
    """The fates of the ranges of one report, and the server's commands.

    `pending`: those that come again wait for an answer, nothing failed.
    """

    fates: Fates
    commands: Mapping[int, str]
    verified: bool
    pending: bool = False


def collect(
    queue: RangeQueue, max_ranges: int, conventions: Mapping[int, int] | None = None
) -> Collected:
    """What waits to be reported: failures and whole archives, about `max_ranges` in all.

    With `max_ranges` 1 it is a single failure or archive. `conventions` are those of paths, by the
    id of the storage.
    """
    batches: list[ReportBatch] = []
    failures = queue.failures()[:max_ranges]
    if failures:
        reports = [
            RangeReport(f.id, "fatal" if f.fatal else "failed", f.code, f.diag[:500])
            for f in failures
        ]
        batches.append(ReportBatch(tuple(reports)))
    archives: list[Archive] = []
    room = max_ranges - len(failures)
    for archive in queue.archives(ArchiveState.STAGED, MOST_ARCHIVES):
        if batches and len(archive.ids) > room:
            break
        room -= len(archive.ids)
        archives.append(archive)
        batches.append(batch_of(archive, conventions or {}))
    return Collected(tuple(archives), tuple(batches))


def batch_of(archive: Archive, conventions: Mapping[int, int]) -> ReportBatch:
    """The report of a staged archive."""
    storage_id = archive.storage_id or 0
    facts = ArchiveFacts(
        lfn=archive.name,
        size_bytes=archive.size_bytes,
        adler32=archive.adler32,
        storage_id=storage_id,
        events=archive.events,
        path_convention=conventions.get(storage_id, PATH_CONVENTION),
    )
    return ReportBatch(tuple(RangeReport(i, "finished") for i in archive.ids), facts)


def send(server: EventServer, job: Job, batches: Sequence[ReportBatch]) -> Answered:
    """Report, and where the answer leaves a doubt ask for the statuses.

    A server takes only so many ranges of one call: while that gets on, the rest is sent again with
    the same archives.
    """
    answered = _send_once(server, job, batches)
    while answered.fates.again and (answered.fates.booked or answered.fates.lost):
        rest = _only(batches, answered.fates.again)
        further = _send_once(server, job, rest)
        stuck = further.fates.again == answered.fates.again
        answered = _join(answered, further)
        if stuck:
            break
    return answered


def _send_once(server: EventServer, job: Job, batches: Sequence[ReportBatch]) -> Answered:
    reports = tuple(report for batch in batches for report in batch.ranges)
    answer = server.report(job, batches)
    if answer.pending:
        again = frozenset(report.id for report in reports)
        fates = Fates(frozenset(), again, frozenset())
        return Answered(fates, answer.commands, verified=False, pending=True)
    if answer.accepted is None or needs_statuses(answer.accepted, len(reports)):
        wanted = frozenset(key_of(report.id) for report in reports)
        fates = read_statuses(reports, server.range_statuses(job, wanted))
        return Answered(fates, answer.commands, verified=True)
    return Answered(read_answer(reports, answer.accepted), answer.commands, verified=False)


def _only(batches: Sequence[ReportBatch], ids: frozenset[str]) -> list[ReportBatch]:
    """The batches with these ranges alone."""
    kept = [(tuple(r for r in b.ranges if r.id in ids), b.archive) for b in batches]
    return [ReportBatch(ranges, archive) for ranges, archive in kept if ranges]


def _join(first: Answered, then: Answered) -> Answered:
    """Two answers as one; what the second decides, it decides."""
    fates = Fates(
        first.fates.booked | then.fates.booked,
        then.fates.again,
        first.fates.lost | then.fates.lost,
    )
    verified = first.verified or then.verified
    return Answered(fates, {**first.commands, **then.commands}, verified, then.pending)


def book(queue: RangeQueue, collected: Collected, fates: Fates) -> int:
    """Delete what the server has booked or no longer holds; returns how many ranges."""
    failed = {r.id for r in collected.reports if r.status != "finished"}
    ended = 0
    with queue.moves() as moves:
        ended += moves.forget_failures(failed & fates.booked)
        ended += moves.give_back_ranges(failed & fates.lost)
        for archive in collected.archives:
            ids = frozenset(archive.ids)
            if not ids & fates.again:
                moves.reported(archive.name, refused=ids & fates.lost)
                ended += len(ids)
    return ended


def give_up(answered: Answered) -> Answered:
    """Count what the server did not decide as no longer ours."""
    f = answered.fates
    fates = Fates(f.booked, frozenset(), f.lost | f.again)
    return Answered(fates, answered.commands, answered.verified)
