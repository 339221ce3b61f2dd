"""The life of an event job on this node.

RUNNING -> EXHAUSTED -> SETTLING -> ENDING. No range may be asked for outside RUNNING, and no report
may follow the final update, so ENDING waits until nothing of the job is live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from types import MappingProxyType

from espilot.model import Counts, JobUpdate


class Phase(StrEnum):
    """Where the job is."""

    RUNNING = "running"
    """Ranges are fetched and processed."""
    EXHAUSTED = "exhausted"
    """The server has no more ranges; those on the node are processed."""
    SETTLING = "settling"
    """The payload will not run again; what was made is packed, shipped and reported."""
    ENDING = "ending"
    """Nothing is live; the final update is on its way."""


class Event(Enum):
    """What moves a job on."""

    NO_MORE_RANGES = "no-more-ranges"
    """The server answered with an empty list, or refused."""
    PAYLOAD_OVER = "payload-over"
    """The payload ended for good and its channel is drained."""
    NOTHING_LIVE = "nothing-live"
    """Every range is reported or given back."""
    JOB_GONE = "job-gone"
    """The server has given up the job that was resumed; what it held is the server's again."""


TRANSITIONS = MappingProxyType(
    {
        (Phase.RUNNING, Event.NO_MORE_RANGES): Phase.EXHAUSTED,
        (Phase.RUNNING, Event.PAYLOAD_OVER): Phase.SETTLING,
        (Phase.EXHAUSTED, Event.PAYLOAD_OVER): Phase.SETTLING,
        (Phase.SETTLING, Event.NOTHING_LIVE): Phase.ENDING,
        (Phase.RUNNING, Event.JOB_GONE): Phase.ENDING,
        (Phase.EXHAUSTED, Event.JOB_GONE): Phase.ENDING,
        (Phase.SETTLING, Event.JOB_GONE): Phase.ENDING,
    }
)
"""Whatever is not listed changes nothing: it comes late, or again."""


def next_phase(phase: Phase, event: Event) -> Phase:
    """The phase after an event."""
    return TRANSITIONS.get((phase, event), phase)


NO_EVENTS, UNKNOWN, RECOVERABLE = 1238, 1220, 1224
"""Pilot error codes of jobs that got no range, staged none, or failed some."""
STAGEOUT_FAILED = 1137
"""Pilot error code of a job whose log archive is not safe."""
KILLED_BY_SERVER = 1237
"""Pilot error code of a job that the server ordered to be killed; it concerns that job alone."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The ranges of one job, by fate; `events` are those of the finished ranges."""

    finished: int
    failed: int
    fatal: int
    released: int
    events: int

    @property
    def received(self) -> int:
        """All ranges that the server handed out."""
        return self.finished + self.failed + self.fatal + self.released


def tally_since(counts: Counts, before: Mapping[str, int]) -> Tally:
    """The fates since the counts `before`."""
    return Tally(
        finished=counts.finished - before["finished"],
        failed=counts.failed_total - before["failed_total"],
        fatal=counts.fatal_total - before["fatal_total"],
        released=counts.released - before["released"],
        events=counts.events - before["events"],
    )


def final_update(
    tally: Tally, *, code: int, diag: str, core_count: int, drained: bool = False
) -> JobUpdate:
    """The last word on a job: finished if any range is safe, with a sub status that is true.

    `code` and `diag` say why it ended, when it was not its natural end. Being `drained` is only a
    reason where no range was finished.
    """
    sub_status = _sub_status(tally, code, drained=drained)
    if not code or (drained and tally.finished):
        code, diag = _natural_end(tally)
    return JobUpdate(
        state="finished" if tally.finished else "failed",
        events=tally.events,
        pilot_error_code=code,
        pilot_error_diag=diag[:256],
        sub_status=sub_status,
        core_count=core_count,
        ranges=(tally.finished, tally.failed, tally.fatal, tally.received),
    )


def without_log(update: JobUpdate, reason: str) -> JobUpdate:
    """The last word on a job whose log archive is not safe: failed, whatever its ranges.

    What was wrong before counts; the sub status goes on to tell of the ranges.
    """
    code, diag = update.pilot_error_code, update.pilot_error_diag
    if update.state == "finished" and code in (0, RECOVERABLE):
        code, diag = STAGEOUT_FAILED, f"log archive: {reason}"
    return replace(update, state="failed", pilot_error_code=code, pilot_error_diag=diag[:256])


def _natural_end(tally: Tally) -> tuple[int, str]:
    failures = tally.failed + tally.fatal
    if not tally.received:
        return NO_EVENTS, "the server had no ranges for this job"
    if not tally.finished:
        return UNKNOWN, f"none of {tally.received} ranges was finished"
    if failures:
        return RECOVERABLE, f"{failures} of {tally.received} ranges failed"
    return 0, ""


def _sub_status(tally: Tally, code: int, *, drained: bool) -> str:
    failures = tally.failed + tally.fatal
    if code == KILLED_BY_SERVER:
        return "softkilled" if drained else "pilot_killed"
    if not tally.received and not code:
        return "pilot_noevents"
    if not tally.finished:
        # A server tells by it that the job is not to blame for the end of its node.
        return "pilot_killed" if drained else "pilot_failed"
    if not failures:
        return "all_success"
    return "partly_failed" if failures < tally.finished else "mostly_failed"
