"""The table of outcomes at the end of a job."""

from __future__ import annotations

from typing import Any

import pytest

from espilot.server.archived import Ending, FollowUp, LastWord, rewrite
from espilot.server.job_end import Facts, decide

NOTHING: dict[str, Any] = {
    "done_here": 0,
    "done": 0,
    "ready": 0,
    "running": 0,
    "hopeless": 0,
    "barren_jobs": 0,
    "max_job_attempts": 3,
}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"running": 1, "done_here": 1, "done": 1}, ("merging", "es_wait", FollowUp.NOTHING)),
        ({"running": 1}, ("closed", "es_inaction", FollowUp.NOTHING)),
        ({"running": 1, "hopeless": 1}, ("closed", "es_inaction", FollowUp.NOTHING)),
        ({"hopeless": 5}, ("failed", "es_failed", FollowUp.FAIL)),
        ({"hopeless": 1, "done": 9, "done_here": 9}, ("failed", "es_failed", FollowUp.FAIL)),
        ({"done": 9, "done_here": 9}, ("merging", "es_merge", FollowUp.COMPLETE)),
        ({"done": 9}, ("closed", "es_inaction", FollowUp.COMPLETE)),
        ({"done": 9, "all_fine": True}, ("closed", "es_merge", FollowUp.COMPLETE)),
        ({"done": 9, "done_here": 1, "all_fine": True}, ("merging", "es_merge", FollowUp.COMPLETE)),
        ({"all_fine": True}, ("failed", "es_failed", FollowUp.FAIL)),
        ({"ready": 1, "done_here": 1, "done": 1}, ("merging", "es_retry", FollowUp.NEW_JOB)),
        ({"ready": 1}, ("closed", "es_noevent", FollowUp.NEW_JOB)),
        ({"ready": 1, "hopeless": 1}, ("closed", "es_noevent", FollowUp.NEW_JOB)),
        ({"ready": 1, "barren_jobs": 1}, ("closed", "es_noevent", FollowUp.NEW_JOB)),
        ({"ready": 1, "barren_jobs": 2}, ("failed", "es_failed", FollowUp.FAIL)),
        (
            {"ready": 1, "barren_jobs": 2, "done_here": 1, "done": 1},
            ("merging", "es_retry", FollowUp.NEW_JOB),
        ),
    ],
)
def test_the_first_rule_that_matches(
    facts: dict[str, Any], expected: tuple[str, str, FollowUp]
) -> None:
    """Each row of the table: what is left decides what the job and its task become."""
    ending = decide(Facts(**{**NOTHING, **facts}))
    assert (ending.status, ending.sub_status, ending.follow_up) == expected


NOEVENT = Ending("closed", "es_noevent", 123, FollowUp.NEW_JOB)
INACTION = Ending("closed", "es_inaction", 117, FollowUp.NOTHING)
HOPELESS = Ending("failed", "es_failed", 118, FollowUp.FAIL)
RETRY = Ending("merging", "es_retry", 111, FollowUp.NEW_JOB)


@pytest.mark.parametrize(
    ("ending", "told", "expected"),
    [
        (RETRY, LastWord("all_success"), ("merging", "es_retry")),
        (RETRY, LastWord("pilot_failed", 1224), ("failed", "pilot_failed")),
        (RETRY, LastWord("bad_report", 200), ("failed", "bad_report")),
        (NOEVENT, LastWord("es_heartbeat", 100), ("failed", "es_heartbeat")),
        (RETRY, LastWord("es_heartbeat", 100), ("merging", "es_retry")),
        (NOEVENT, LastWord("es_heartbeat", 100, is_preemptable=True), ("closed", "es_preempted")),
        (NOEVENT, LastWord("pilot_killed", 1144), ("failed", "pilot_killed")),
        (INACTION, LastWord("pilot_killed", 1144), ("failed", "pilot_killed")),
        (RETRY, LastWord("pilot_killed", 1144), ("merging", "es_retry")),
        (INACTION, LastWord("pilot_killed", 1144, is_preemptable=True),
         ("closed", "es_preempted")),
        (INACTION, LastWord("partly_failed", 1224, events=5), ("merging", "es_wait")),
        (INACTION, LastWord("es_toolong", 1224, events=5), ("merging", "es_toolong")),
        (HOPELESS, LastWord("partly_failed", 1224, events=5), ("merging", "es_wait")),
        (HOPELESS, LastWord("mostly_failed", 1224), ("failed", "es_failed")),
        (HOPELESS, LastWord("pilot_noevents", 1238), ("closed", "pilot_noevents")),
        (HOPELESS, LastWord("all_success"), ("closed", "all_success")),
        (RETRY, LastWord("pilot_closed"), ("closed", "pilot_closed")),
    ],
)  # fmt: skip
def test_what_a_pilot_said_last(ending: Ending, told: LastWord, expected: tuple[str, str]) -> None:
    """Each row of the table of rewritten ends; what follows for the unit does not change."""
    end = rewrite(ending, told)
    assert (end.status, end.sub_status) == expected
    assert (end.code, end.follow_up) == (ending.code, ending.follow_up)
