"""When the pilot must be over."""

from __future__ import annotations

import pytest

from espilot.core.deadline import (
    Deadline,
    Deadlines,
    Impatience,
    code_of,
    longest_call_s,
    look_again_s,
    read_features,
    read_left,
)
from espilot.errors import UsageError

NOW = 1_800_000_000.0


def test_earliest_counts() -> None:
    """Of several sources the earliest is the deadline; a notice that goes away no longer counts."""
    deadlines = Deadlines()
    assert deadlines.earliest() is None
    deadlines.notice("slot", Deadline("slot", 500.0, "wall time"))
    deadlines.notice("machine", Deadline("machine", 300.0, "shutdown"))
    earliest = deadlines.earliest()
    assert earliest is not None
    assert earliest.source == "machine"
    deadlines.notice("machine", None)
    earliest = deadlines.earliest()
    assert earliest is not None
    assert earliest.source == "slot"


def test_lesson_25_second_order_does_not_restart_the_clock() -> None:
    """A second signal a second later changes nothing; one with a shorter grace counts."""
    deadlines = Deadlines()
    deadlines.order(Deadline("signal", 130.0, "SIGTERM", is_duration=True))
    deadlines.order(Deadline("signal", 131.0, "SIGTERM", is_duration=True))
    assert deadlines.earliest() == Deadline("signal", 130.0, "SIGTERM", is_duration=True)
    deadlines.order(Deadline("signal", 110.0, "SIGUSR1", is_duration=True))
    assert deadlines.earliest() == Deadline("signal", 110.0, "SIGUSR1", is_duration=True)


@pytest.mark.parametrize(
    ("source", "code"),
    [("wall-time", 1213), ("wall_limit_secs", 1213), ("credential", 1163), ("shutdowntime", 1379)],
)
def test_deadline_names_its_error_code(source: str, code: int) -> None:
    """Whose time is over tells why a job without a finished range ended."""
    assert code_of(source) == code


def test_signals_of_one_moment_are_one() -> None:
    """Batch system and wrapper send the same signal at once: that is no impatience."""
    impatience = Impatience()
    moments = (0.0, 0.01, 0.5, 30.0, 30.2, 60.0)
    assert [impatience.heard(15, now) for now in moments] == [1, 1, 1, 2, 2, 3]
    assert impatience.numbers == [15] * 6


def test_each_interrupt_counts() -> None:
    """Three times Ctrl-C, however quickly, is a third signal; beside others too."""
    impatience = Impatience()
    assert [impatience.heard(2, n / 10) for n in range(3)] == [1, 2, 3]
    mixed = Impatience()
    assert [mixed.heard(number, n / 10) for n, number in enumerate((15, 2, 2))] == [1, 2, 3]


def test_calls_fit_into_the_time_left() -> None:
    """Several calls fit one after the other, each at least a second; without an end as usual."""
    assert longest_call_s(None) == 0.0
    assert longest_call_s(30.0) == 7.5
    assert longest_call_s(0.0) == 1.0


def test_suspension_moves_durations_only() -> None:
    """While the machine slept no duration ran; what is a time of the outer world stays."""
    deadlines = Deadlines()
    deadlines.order(Deadline("signal", 130.0, "SIGTERM", is_duration=True))
    deadlines.notice("machine", Deadline("machine", 700.0, "shutdown"))
    deadlines.suspended(1000.0)
    assert deadlines.earliest() == Deadline("machine", 700.0, "shutdown")
    deadlines.notice("machine", None)
    assert deadlines.earliest() == Deadline("signal", 1130.0, "SIGTERM", is_duration=True)


@pytest.mark.parametrize(
    ("text", "left_s"),
    [
        ("30s", 30.0),
        ("30", 30.0),
        (" 5min\n", 300.0),
        ("5 m", 300.0),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
        ("0", 0.0),
        (str(int(NOW) + 90), 90.0),
        (f"{NOW + 1.5:.1f}", 1.5),
        (str(int(NOW) - 90), 0.0),
        ("", None),
        ("\n", None),
        ("999999999999d", 100 * 365 * 86400.0),
    ],
)
def test_deadline_as_text(text: str, left_s: float | None) -> None:
    """A duration or a Unix time becomes seconds left; nothing is no deadline."""
    assert read_left(text, NOW) == left_s


@pytest.mark.parametrize(
    "text", ["soon", "-5", "5 weeks", "1e3", "nan", "inf", "30s now", "\0", "٣"]
)
def test_bad_deadline(text: str) -> None:
    """What is neither is refused in one line that says what is possible."""
    with pytest.raises(UsageError, match="give a duration such as 30s") as caught:
        read_left(text, NOW)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "job", "ends"),
    [
        ({"shutdowntime": f"{NOW + 600:.0f}\n"}, {}, {"shutdowntime": NOW + 600}),
        ({}, {"shutdowntime_job": f"{NOW + 60:.0f}"}, {"shutdowntime_job": NOW + 60}),
        ({}, {"wall_limit_secs": "3600"}, {"wall_limit_secs": NOW + 3600}),
        (
            {},
            {"wall_limit_secs": "3600", "jobstart_secs": f"{NOW - 100:.0f}"},
            {"wall_limit_secs": NOW + 3500},
        ),
        ({}, {"jobstart_secs": f"{NOW - 100:.0f}"}, {}),
        ({"grace_secs": "300"}, {"grace_secs_job": "60"}, {}),
        ({"hs06": "abc"}, {"job_id": "x"}, {}),
        ({"shutdowntime": ""}, {"wall_limit_secs": "0"}, {}),
    ],
)
def test_lesson_47_each_feature_key(
    machine: dict[str, str], job: dict[str, str], ends: dict[str, float]
) -> None:
    """Each key of the machine and job features that means an end becomes a deadline."""
    notices = read_features(machine, job, started_unix=NOW)
    assert notices.ends_unix == ends
    assert notices.warnings == ()


@pytest.mark.parametrize(
    ("machine", "job", "ends", "warning"),
    [
        ({"shutdowntime": "tonight"}, {}, {}, "'tonight' is no number"),
        ({"shutdowntime": "nan"}, {}, {}, "no number"),
        ({"shutdowntime": "-1"}, {}, {}, "no number"),
        ({"shutdowntime": f"{NOW - 1:.0f}"}, {}, {}, "before our start"),
        ({}, {"wall_limit_secs": "5", "jobstart_secs": f"{NOW - 9:.0f}"}, {}, "before our start"),
        (
            {},
            {"wall_limit_secs": "600", "jobstart_secs": f"{NOW + 9000:.0f}"},
            {"wall_limit_secs": NOW + 600},
            "after our start",
        ),
    ],
)
def test_lesson_47_bad_features(
    machine: dict[str, str], job: dict[str, str], ends: dict[str, float], warning: str
) -> None:
    """What a feature file cannot mean is ignored with a warning that names the key."""
    notices = read_features(machine, job, started_unix=NOW)
    assert notices.ends_unix == ends
    assert len(notices.warnings) == 1
    assert warning in notices.warnings[0]


def test_features_are_read_again_within_their_grace() -> None:
    """Who announces a shutdown a minute ahead is asked more often than once a minute."""
    assert look_again_s({}, {}) == 60.0
    assert look_again_s({"grace_secs": "60"}, {}) == 15.0
    assert look_again_s({"grace_secs": "600"}, {"grace_secs_job": "2"}) == 1.0
    assert look_again_s({"grace_secs": "junk"}, {}) == 60.0
