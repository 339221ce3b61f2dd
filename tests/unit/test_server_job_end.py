"""The table of outcomes at the end of a job."""

from __future__ import annotations

from typing import Any

import pytest

from espilot.server.job_end import Facts, FollowUp, decide

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
