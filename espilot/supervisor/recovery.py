"""What a dead pilot left is taken up, before any worker opens the queue.

* After a crash of the machine (another boot id), and where another version of espilot was at work
  before, the queue is set aside; archives that their manifests prove go into a new one, and the job
  is settled without any further hand-out.
* Otherwise the queue is right as it is: what was in hand becomes ready, and so does what was done
  if its output is missing or short.
* Files of ranges that wait for nothing are removed from the payload's directories.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espilot.adapters.archive import Manifest, manifest_path, verify
from espilot.adapters.disk import remove_path
from espilot.adapters.leftovers import Leftovers, remove_leftovers
from espilot.adapters.state_files import (
    read_boot_id,
    read_failures,
    read_job,
    read_object,
    write_object,
)
from espilot.adapters.story import NAME, Story
from espilot.core.job import Phase
from espilot.errors import LocalError
from espilot.logs import Log
from espilot.model import Archive, DoneRange, FailedRange, Job, RangeState
from espilot.queue.reading import NOTE
from espilot.queue.records import LAYOUT
from espilot.queue.recovery import Proven, Repair, adopt, repair, set_aside
from espilot.queue.store import Queue
from espilot.supervisor.recovery_layout import FAILURES
from espilot.wire.messages import Resumed
from espilot.workers.context import Context


@dataclass(frozen=True, slots=True)
class Found:
    """What was there: the job, ranges by state as the dead pilot left them, and what was mended.

    `aside` is the queue that is not trusted, `why` the reason; `damaged` are archives that nothing
    proves, with the reason: they are moved to `STATE/archives.damaged`.
    """

    panda_id: int
    phase: str
    ranges: dict[str, int]
    repair: Repair
    leftovers: Leftovers
    aside: Path | None = None
    damaged: dict[str, str] = field(default_factory=dict)
    why: str = ""

    def lines(self) -> list[str]:
        """In words."""
        job = f"job {self.panda_id} ({self.phase})" if self.panda_id else "no job"
        ranges = ", ".join(f"{name} {n}" for name, n in self.ranges.items() if n)
        text = [f"found: {job}; ranges here: {ranges or 'none'}"]
        if self.aside is not None:
            text.append(f"{self.why}: the queue is set aside in {self.aside}")
        if self.repair.returned:
            text.append(f"{len(self.repair.returned)} ranges were in work: ready again")
        if self.repair.lost:
            text.append(f"{len(self.repair.lost)} outputs are missing or short: ready again")
        text += [f"archive {name} is set aside: {why}" for name, why in self.damaged.items()]
        left = self.leftovers
        if left.unknown or left.partial:
            text.append(
                f"files removed: {left.unknown} of unknown ranges, {left.partial} unfinished ones"
            )
        return text


def why_not_trusted(context: Context) -> str:
    """Why nobody knows whether the queue is right; "" when it is.

    A job without a queue means that a recovery was interrupted between its two renames.
    """
    if not context.queue.exists():
        return "the last recovery was interrupted" if context.job_file.exists() else ""
    noted, right = read_object(context.queue / NOTE), note_of(context)
    if noted.get("boot_id") != right["boot_id"]:
        return "the machine was started anew"
    return "" if noted == right else "another version of espilot has written it"


def note_boot(context: Context, queue: Path) -> None:
    """Write beside a queue under which boot it is written, and how."""
    try:
        queue.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make {queue}: {error.strerror}") from error
    write_object(queue / NOTE, note_of(context))


def note_of(context: Context) -> dict[str, Any]:
    """What is noted beside a queue of ours."""
    return {"boot_id": boot_id(context), "layout": LAYOUT}


def boot_id(context: Context) -> str:
    """The id of this boot."""
    return read_boot_id(Path(context.settings.limits.boot_id_file))


def take_up(context: Context) -> Found:
    """Make the queue fit to be gone on with; nothing else may have it open."""
    aside: Path | None = None
    damaged: dict[str, str] = {}
    why = why_not_trusted(context)
    if why:
        aside, damaged = replace_queue(context)
    note_boot(context, context.queue)
    queue = Queue(context.queue)
    try:
        ranges = {state.value: len(queue.ids(state)) for state in RangeState}
        repaired = repair(queue, is_whole, final_phase=Phase.ENDING, now=time.time())
        tell_story(context, repaired)
        record = queue.job()
        return Found(
            panda_id=record.job.panda_id if record else 0,
            phase=record.phase if record else "",
            ranges=ranges,
            repair=repaired,
            leftovers=tidy(context, queue, record.job) if record else Leftovers(),
            aside=aside,
            damaged=damaged,
            why=why,
        )
    finally:
        queue.close()


def tell_story(context: Context, repaired: Repair) -> None:
    """What became of ranges, for people; a story that cannot be written is no reason to stop."""
    story = Story(context.state / NAME, "supervisor")
    for ids, why in (
        (repaired.returned, "its pilot died"),
        (repaired.lost, "its output is missing or short"),
    ):
        if ids:
            story.tell("returned", ids, why=why)
    story.flush()


def is_whole(row: DoneRange) -> bool:
    """Whether every output of a range is still there in full."""
    for output in row.outputs:
        try:
            status = os.lstat(output.path)
        except OSError:
            return False
        found = (status.st_size, status.st_ino, status.st_mtime_ns)
        if found != (output.size_bytes, output.inode, output.mtime_ns):
            return False
    return True


def tidy(context: Context, queue: Queue, job: Job) -> Leftovers:
    """Remove the files of ranges that are not done from the payload's directories."""
    known = {range_id for state in RangeState for range_id in queue.ids(state)}
    keep = {output.path for row in queue.done()[0] for output in row.outputs}
    found = [
        remove_leftovers(directory, task_id=job.task_id, known=known, keep=keep)
        for directory in sorted(context.workdir.glob("payload-*"))
    ]
    return Leftovers(sum(each.unknown for each in found), sum(each.partial for each in found))


def replace_queue(context: Context) -> tuple[Path | None, dict[str, str]]:
    """Set the queue aside for a new one with the job and its proven archives.

    Returns where it is, and the archives that nothing proves, with the reason. The new queue is
    whole before it gets its name, so this may be interrupted at any point.
    """
    new = context.queue.with_name("queue.new")
    remove_path(new)
    note_boot(context, new)
    job = read_job(context.job_file)
    proven, damaged = sift_archives(context, job)
    failures = read_failures(context.state / FAILURES, job.panda_id) if job is not None else ()
    fill_queue(new, job, proven, failures, epoch=max(epochs(context), default=0))
    aside = set_aside(context.queue) if context.queue.exists() else None
    new.rename(context.queue)
    return aside, damaged


def sift_archives(context: Context, job: Job | None) -> tuple[list[Proven], dict[str, str]]:
    """The archives that can be shipped, and why the others cannot, which are moved away."""
    damaged: dict[str, str] = {}
    proven: list[Proven] = []
    seen: set[str] = set()
    for path in sorted(context.archives.glob("*.tar")):
        try:
            manifest = prove(path, job, seen)
        except LocalError as error:
            damaged[path.name] = str(error)
            move_archive(path, context.state / "archives.damaged")
            continue
        seen.update(manifest.ids)
        proven.append(proven_of(manifest))
    return proven, damaged


def fill_queue(
    directory: Path,
    job: Job | None,
    proven: list[Proven],
    failures: Sequence[FailedRange],
    *,
    epoch: int,
) -> None:
    """A new queue with the job's archives and failures; its payload starts are numbered on from
    `epoch`.
    """
    queue = Queue(directory)
    try:
        with queue.moves() as moves:
            moves.set_epoch(epoch)
        if job is not None:
            adopt(queue, job, proven, failures, phase=Phase.SETTLING, now=time.time())
    finally:
        queue.close()


def prove(path: Path, job: Job | None, seen: set[str]) -> Manifest:
    """The manifest of an archive of this job; LocalError when it cannot be shipped."""
    manifest = verify(path)
    if job is None or manifest.job_id != job.panda_id:
        raise LocalError(f"it belongs to job {manifest.job_id}, which is not known here")
    if not seen.isdisjoint(manifest.ids):
        raise LocalError("some of its ranges are in another archive")
    return manifest


def proven_of(manifest: Manifest) -> Proven:
    """An archive as its manifest describes it."""
    m = manifest
    archive = Archive(m.name, m.ids, m.size_bytes, m.adler32, m.events)
    return Proven(archive, tuple(row.events for row in m.ranges))


def move_archive(path: Path, target: Path) -> None:
    """Move a tar and its manifest to another directory of the same disk."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in (path, manifest_path(path)):
        if file.exists():
            file.replace(target / file.name)


def epochs(context: Context) -> Iterator[int]:
    """The numbers of the payload's starts that have a directory."""
    for path in context.workdir.glob("payload-*"):
        number = path.name.removeprefix("payload-")
        if number.isdecimal():
            yield int(number)


def tell_resumed(log: Log, resumed: Resumed) -> None:
    """What the server said about the job that was found, where people read it."""
    if resumed.gone:
        log.error("recover", f"the server has given up job {resumed.panda_id}: "
                  f"{resumed.given_back} ranges went back", orphans=resumed.orphans)  # fmt: skip
    elif resumed.given_back:
        log.error("recover", f"the server no longer holds {resumed.given_back} ranges of job "
                  f"{resumed.panda_id}: they went back", orphans=resumed.orphans)  # fmt: skip
