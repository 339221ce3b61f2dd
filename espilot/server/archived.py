"""What is kept of a job that has ended: its end, rewritten by what its pilot said last.

Pure. The rules follow one another; of several that hold the last counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class FollowUp(Enum):
    """What happens to the unit."""

    NOTHING = "nothing"
    """Other jobs still work on it."""
    NEW_JOB = "new job"
    """Ranges wait in the pool."""
    COMPLETE = "complete"
    """Every range is done."""
    FAIL = "fail"
    """Some range can never be done, or jobs end without doing any."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What a job becomes, and what follows."""

    status: str
    sub_status: str
    code: int
    follow_up: FollowUp


@dataclass(frozen=True, slots=True)
class LastWord:
    """What is known of a job besides its ranges: sub status and error code of its last update, its
    events, and whether its queue may take the node away at any time."""

    sub_status: str = ""
    code: int = 0
    events: int = 0
    is_preemptable: bool = False


INACTION, HOPELESS, NO_NEW_JOB = 117, 118, 125
BAD_REPORT = "bad_report"
_IDLE = ("es_noevent", "es_inaction")


def rewrite(ending: Ending, told: LastWord) -> Ending:
    """The end as it is archived; what follows for the unit stays as it is."""
    end = ending
    was_lost = told.sub_status == "es_heartbeat" and ending.status != "merging"
    was_killed = told.sub_status == "pilot_killed" and ending.sub_status in _IDLE
    if told.sub_status in ("pilot_failed", BAD_REPORT) or was_lost or was_killed:
        end = replace(end, status="failed", sub_status=told.sub_status)
    if told.is_preemptable and (was_lost or was_killed):
        end = replace(end, status="closed", sub_status="es_preempted")
    if ending.code in (INACTION, HOPELESS) and told.events:
        kept = "es_toolong" if told.sub_status == "es_toolong" else "es_wait"
        end = replace(end, status="merging", sub_status=kept)
    blameless = told.sub_status == "pilot_noevents" or not told.code
    if blameless and (end.status, ending.code) == ("failed", HOPELESS):
        end = replace(end, status="closed", sub_status=told.sub_status)
    if told.sub_status == "pilot_closed":
        end = replace(end, status="closed", sub_status=told.sub_status)
    return end
