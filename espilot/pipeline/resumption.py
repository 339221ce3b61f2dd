"""A job that an earlier pilot left: what the server still holds of it decides what is gone on with.

* A range that the server holds as open for this job stays as it is.
* What the server has booked as we would report it counts as reported.
* All else is no longer ours: its rows are deleted; an archive with no range left is an orphan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from espilot.core.reporting import BOOKED_AS, OPEN, key_of
from espilot.model import UNASKED, Archive, ArchiveState, JobRecord, RangeState
from espilot.ports import Moves, RangeQueue

LOOSE = (RangeState.READY, RangeState.SENT, RangeState.DONE)
"""Ranges that the server can only have open, or not at all."""


class ResumedQueue(RangeQueue, Protocol):
    """A queue that also lists the ids in a state."""

    def ids(self, state: RangeState) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the server said: numbers of ranges that it holds open for us and has booked, the ids of
    those that are no longer ours, and the archives that nobody wants.
    """

    held: int = 0
    booked: int = 0
    lost: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()


def live_keys(queue: ResumedQueue) -> frozenset[str]:
    """The keys of all ranges on this node, as the server's statuses name them."""
    return frozenset(key_of(range_id) for state in RangeState for range_id in queue.ids(state))


def compare(queue: ResumedQueue, record: JobRecord, statuses: Mapping[str, str]) -> Comparison:
    """Bring the queue in line with the statuses that the server holds for the job.

    Nobody moves anything of an unasked job, so what is read here is still true in the transaction,
    which also takes the mark away.
    """
    facts = {name: fact for name, fact in record.facts.items() if name != UNASKED}
    loose = [range_id for state in LOOSE for range_id in queue.ids(state)]
    failures, archives = queue.failures(), queue.archives()
    lost = [i for i in loose if statuses.get(key_of(i)) not in OPEN]
    held, booked = len(loose) - len(lost), 0
    orphans: list[str] = []
    with queue.moves() as moves:
        moves.set_job(record.job, record.phase, facts)
        moves.give_back_ranges(lost)
        for failure in failures:
            status = statuses.get(key_of(failure.id))
            if status in BOOKED_AS["fatal" if failure.fatal else "failed"]:
                booked += moves.forget_failures([failure.id])
            elif status in OPEN:
                held += 1
            else:
                moves.give_back_ranges([failure.id])
                lost.append(failure.id)
        for archive in archives:
            if archive.state is ArchiveState.REPORTED:
                continue
            if any(statuses.get(key_of(i)) in OPEN for i in archive.ids):
                held += len(archive.ids)
                continue
            refused = _close_archive(moves, archive, statuses)
            booked += len(archive.ids) - len(refused)
            lost += refused
            if len(refused) == len(archive.ids):
                orphans.append(archive.name)
    return Comparison(held, booked, tuple(lost), tuple(orphans))


def _close_archive(moves: Moves, archive: Archive, statuses: Mapping[str, str]) -> list[str]:
    """The server holds none of its ranges as open; returns those that it has not booked either."""
    booked = BOOKED_AS["finished"]
    lost = [i for i in archive.ids if statuses.get(key_of(i)) not in booked]
    if archive.state is ArchiveState.PACKED:
        if len(lost) == len(archive.ids):
            moves.abandon_archive(archive.name)
            return lost
        # It was shipped and reported; only our own note of it is missing.
        moves.staged(archive.name, storage_id=0)
    moves.reported(archive.name, refused=frozenset(lost))
    return lost
