"""What the workers tell of ranges: which words and facts each move has in the story.

Facts that differ from range to range stand below `each`, in the order of the ranges.
"""

from __future__ import annotations

from collections.abc import Sequence

from espilot.adapters.story import Story
from espilot.errors import OutputError
from espilot.model import Archive, DoneRange, EventRange, Job
from espilot.pipeline.reports import Answered, Collected


def tell_fetched(story: Story, job: Job, ranges: Sequence[EventRange]) -> None:
    """The server handed out these ranges for the job."""
    events = [(r.start_event, r.last_event) for r in ranges]
    each = {"events": events, "lfn": [r.lfn for r in ranges]}
    story.tell("fetched", [r.id for r in ranges], job=job.panda_id, each=each)


def tell_given_back(story: Story, ids: Sequence[str], why: str) -> None:
    """These ranges are the server's again."""
    if ids:
        story.tell("given-back", ids, why=why)


def tell_reported(story: Story, collected: Collected, answered: Answered) -> None:
    """What the server said to a report."""
    fates, checked = answered.fates, answered.verified
    for archive in collected.archives:
        ids = [i for i in archive.ids if i in fates.booked]
        if ids:
            story.tell("reported", ids, status="finished", archive=archive.name, checked=checked)
    for report in collected.reports:
        if report.status != "finished" and report.id in fates.booked:
            story.tell("reported", [report.id], status=report.status, code=report.code,
                       diag=report.diag, checked=checked)  # fmt: skip
    again = [r.id for r in collected.reports if r.id in fates.again]
    if again:
        story.tell("undecided", again, checked=checked)
    lost = [r.id for r in collected.reports if r.id in fates.lost]
    tell_given_back(story, lost, "the server no longer holds it for this job")


def tell_packed(story: Story, archive: Archive, rows: Sequence[DoneRange]) -> None:
    """The outputs of these ranges are in a sealed archive."""
    by_id = {row.id: row for row in rows}
    made = [by_id[i] for i in archive.ids if i in by_id]
    each = {"files": [[(o.path, o.size_bytes) for o in row.outputs] for row in made]}
    story.tell("packed", [row.id for row in made], archive=archive.name,
               size=archive.size_bytes, adler32=archive.adler32, each=each)  # fmt: skip


def tell_dropped(story: Story, range_id: str, error: OutputError) -> None:
    """The output of a range could not be packed."""
    story.tell("dropped", [range_id], why=str(error), code=error.code)


def tell_staged(story: Story, archive: Archive, storage: str, storage_id: int) -> None:
    """An archive is verified on the storage."""
    story.tell("staged", archive.ids, archive=archive.name, size=archive.size_bytes,
               adler32=archive.adler32, storage=storage, storage_id=storage_id)  # fmt: skip
