"""The phases of a job, and its last word."""

from __future__ import annotations

import itertools

import pytest

from espilot.core.job import (
    NO_EVENTS,
    RECOVERABLE,
    STAGEOUT_FAILED,
    UNKNOWN,
    Event,
    Phase,
    Tally,
    final_update,
    next_phase,
    without_log,
)
from espilot.model import JobUpdate


def update(tally: Tally, code: int = 0, diag: str = "", *, drained: bool = False) -> JobUpdate:
    """The last word."""
    return final_update(tally, code=code, diag=diag, core_count=4, drained=drained)


def tally(finished: int = 0, failed: int = 0, fatal: int = 0, released: int = 0) -> Tally:
    """Fates."""
    return Tally(finished, failed, fatal, released, 2 * finished)


def test_natural_course() -> None:
    """Running, exhausted, settling, ending."""
    phase = Phase.RUNNING
    course = []
    for event in (Event.NO_MORE_RANGES, Event.PAYLOAD_OVER, Event.NOTHING_LIVE):
        phase = next_phase(phase, event)
        course.append(phase)
    assert course == [Phase.EXHAUSTED, Phase.SETTLING, Phase.ENDING]


def test_payload_that_gives_up_early() -> None:
    """A payload that is over settles the job although the server has more ranges."""
    assert next_phase(Phase.RUNNING, Event.PAYLOAD_OVER) is Phase.SETTLING


def test_never_back_and_never_skipped() -> None:
    """No event leads back, and none leads to the end while something is live."""
    order = list(Phase)
    for phase, event in itertools.product(Phase, Event):
        after = next_phase(phase, event)
        assert order.index(after) >= order.index(phase)
        if after is Phase.ENDING and phase is not Phase.ENDING:
            assert (phase, event) == (Phase.SETTLING, Event.NOTHING_LIVE) or (
                event is Event.JOB_GONE
            )


@pytest.mark.parametrize("phase", list(Phase))
def test_job_that_the_server_gave_up_ends(phase: Phase) -> None:
    """A resumed job of which the server holds nothing more goes to its end at once."""
    assert next_phase(phase, Event.JOB_GONE) is Phase.ENDING


@pytest.mark.parametrize("event", list(Event))
def test_ending_is_the_end(event: Event) -> None:
    """After the final update is on its way, nothing changes the phase."""
    assert next_phase(Phase.ENDING, event) is Phase.ENDING


@pytest.mark.parametrize(
    ("fates", "state", "code", "sub_status"),
    [
        (tally(finished=10), "finished", 0, "all_success"),
        (tally(finished=10, released=5), "finished", 0, "all_success"),
        (tally(finished=10, failed=2), "finished", RECOVERABLE, "partly_failed"),
        (tally(finished=10, failed=9, fatal=9), "finished", RECOVERABLE, "mostly_failed"),
        (tally(finished=5, fatal=5), "finished", RECOVERABLE, "mostly_failed"),
        (tally(failed=3), "failed", UNKNOWN, "pilot_failed"),
        (tally(released=3), "failed", UNKNOWN, "pilot_failed"),
        (tally(), "failed", NO_EVENTS, "pilot_noevents"),
    ],
)
def test_last_word(fates: Tally, state: str, code: int, sub_status: str) -> None:
    """The state and sub status of a job follow from the fates of its ranges."""
    last = update(fates)
    assert (last.state, last.pilot_error_code, last.sub_status) == (state, code, sub_status)
    assert last.events == fates.events
    assert bool(last.pilot_error_diag) == bool(code)
    assert last.core_count == 4


def test_reason_from_outside() -> None:
    """A verdict's code and words go before what the fates would say; the state stays true."""
    last = update(tally(finished=1, failed=1), 1150, "hung for 2 h")
    assert (last.state, last.pilot_error_code, last.pilot_error_diag) == (
        "finished",
        1150,
        "hung for 2 h",
    )
    assert update(tally(), 1150, "hung").state == "failed"


@pytest.mark.parametrize(
    ("fates", "code", "sub_status"),
    [
        (tally(released=3), 1201, "pilot_killed"),
        (tally(), 1201, "pilot_killed"),
        (tally(failed=2, released=3), 1201, "pilot_killed"),
        (tally(finished=3, released=3), 0, "all_success"),
        (tally(finished=3, failed=1), RECOVERABLE, "partly_failed"),
    ],
)
def test_drained_job(fates: Tally, code: int, sub_status: str) -> None:
    """A drain is the reason only of a job without any finished range."""
    last = update(fates, 1201, "SIGTERM", drained=True)
    assert (last.pilot_error_code, last.sub_status) == (code, sub_status)
    assert last.state == ("finished" if fates.finished else "failed")
    assert bool(last.pilot_error_diag) == bool(code)


@pytest.mark.parametrize("fates", [tally(finished=3), tally(released=3)])
def test_server_that_ends_a_job_reads_so(fates: Tally) -> None:
    """Killed and softly killed jobs are told apart by their sub status, whatever they finished."""
    assert update(fates, 1237, "ordered").sub_status == "pilot_killed"
    soft = update(fates, 1237, "ordered", drained=True)
    assert soft.sub_status == "softkilled"
    assert soft.pilot_error_code == (0 if fates.finished else 1237)


def test_long_reason() -> None:
    """The server takes 256 characters."""
    assert len(update(tally(), 1150, "x" * 1000).pilot_error_diag) == 256


@pytest.mark.parametrize(
    ("fates", "code", "told"),
    [
        (tally(finished=10), 0, STAGEOUT_FAILED),
        (tally(finished=10, failed=2), 0, STAGEOUT_FAILED),
        (tally(failed=3), 0, UNKNOWN),
        (tally(finished=3), 1213, 1213),
    ],
)
def test_job_without_its_log_has_failed(fates: Tally, code: int, told: int) -> None:
    """It names the log where nothing else was wrong; the sub status tells of the ranges still."""
    before = update(fates, code, "why" if code else "")
    after = without_log(before, "no storage takes it")
    assert (after.state, after.pilot_error_code) == ("failed", told)
    assert ("log archive: no storage" in after.pilot_error_diag) == (told == STAGEOUT_FAILED)
    assert (after.sub_status, after.events) == (before.sub_status, before.events)
