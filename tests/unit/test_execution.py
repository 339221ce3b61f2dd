"""The last word on normal and merge jobs."""

from __future__ import annotations

from espilot.core.execution import executed_update
from espilot.model import Job, JobOutcome

JOB = Job(99, 0, 1, 1, 2, ("out",), "log", event_service=False)
REPORT = {"out": {"fsize": 5, "adler32": "00000001", "guid": "g"}}


def test_finished_with_its_report() -> None:
    """What the executor shipped is told, whatever was ordered meanwhile."""
    outcome = JobOutcome(99, 1, exit_code=0, report=REPORT, stagein_s=2, payload_s=3, stageout_s=4)
    for code in (0, 1237):
        update = executed_update(outcome, code=code, diag="late", job=JOB)
        assert (update.state, update.pilot_error_code) == ("finished", 0)
        assert update.more["job_output_report"] == REPORT
        assert update.more["pilot_timing"] == "0|2|3|4|0|0"
        assert update.more["trans_exit_code"] == 0


def test_failed_with_its_reason() -> None:
    """The executor's reason and the inputs that must be made again are told."""
    outcome = JobOutcome(99, 1, code=1171, diag="x.tar: damaged", corrupted=("x.tar", "y.tar"))
    update = executed_update(outcome, code=0, diag="", job=JOB)
    assert (update.state, update.pilot_error_code) == ("failed", 1171)
    assert update.more["corrupted_files"] == "x.tar,y.tar"
    assert "trans_exit_code" not in update.more


def test_the_order_that_ended_it_counts() -> None:
    """A job that was ended tells why it was; a kill by the server has the code of such jobs."""
    outcome = JobOutcome(99, 1, code=1201, diag="ended")
    for found in (outcome, None):
        update = executed_update(found, code=1150, diag="no file has changed", job=JOB)
        assert (update.pilot_error_code, update.pilot_error_diag) == (1150, "no file has changed")
        killed = executed_update(found, code=1237, diag="ordered", job=JOB)
        assert (killed.pilot_error_code, killed.sub_status) == (1144, "pilot_killed")


def test_lost_executor() -> None:
    """Without an outcome the job has failed, and says so."""
    update = executed_update(None, code=0, diag="", job=JOB)
    assert (update.state, update.pilot_error_code) == ("failed", 1305)
    assert update.pilot_error_diag
