"""The hang clock: only silence without CPU use, while the node is awake, is a hang."""

from __future__ import annotations

from espilot.core.hang import HangClock


def run(
    clock: HangClock,
    seconds: int,
    *,
    start: int = 0,
    step: float = 5.0,
    cpu_per_s: float = 0.0,
    last_message_mono: float = 0.0,
) -> list[float]:
    """Observe every `step` seconds; the times at which there was a verdict."""
    found = []
    for turn in range(int(seconds / step) + 1):
        now = start + turn * step
        if clock.observe(now, last_message_mono=last_message_mono, cpu_s=now * cpu_per_s):
            found.append(now)
    return found


def test_silence() -> None:
    """Without message and CPU the verdict comes after the limit, not before, and says how long."""
    clock = HangClock(100.0)
    assert run(clock, 120) == [105.0, 110.0, 115.0, 120.0]
    verdict = clock.observe(125.0, last_message_mono=0.0, cpu_s=0.0)
    assert verdict is not None
    assert (verdict.code, verdict.action, verdict.value, verdict.limit) == (
        1150,
        "end-payload",
        125.0,
        100.0,
    )
    assert verdict.text == (
        "the payload has sent no message and used no CPU for 2.1 min, the limit is 1.7 min"
    )


def test_computing_is_life() -> None:
    """A payload that computes and never talks does not hang."""
    assert run(HangClock(100.0), 1000, cpu_per_s=0.1) == []


def test_computing_is_life_however_often_one_looks() -> None:
    """Frequent observations do not hide CPU use, nor make a little of it much."""
    assert run(HangClock(10.0), 100, step=0.25, cpu_per_s=0.1) == []
    assert run(HangClock(10.0), 11, step=0.25, cpu_per_s=0.001)[0] == 10.25


def test_polling_is_not_life() -> None:
    """Next to no CPU use for ever is a hang."""
    assert run(HangClock(100.0), 200, cpu_per_s=0.001)[0] == 105.0


def test_message_is_life() -> None:
    """A message sets the clock back to the time that passed since it came."""
    clock = HangClock(100.0)
    run(clock, 90)
    assert clock.observe(95.0, last_message_mono=93.0, cpu_s=0.0) is None
    assert clock.silent_s == 2.0
    assert clock.observe(193.0, last_message_mono=93.0, cpu_s=0.0) is None
    assert clock.observe(193.5, last_message_mono=93.0, cpu_s=0.0) is not None


def test_message_seen_late() -> None:
    """A message that is older than the last observation, but was read only now, counts as well."""
    clock = HangClock(100.0)
    run(clock, 90)
    clock.observe(95.0, last_message_mono=85.0, cpu_s=0.0)
    assert clock.silent_s == 10.0


def test_suspension() -> None:
    """The clock stands still while the node was suspended."""
    clock = HangClock(100.0)
    run(clock, 90)
    assert clock.observe(3695.0, last_message_mono=0.0, cpu_s=0.0, suspended_s=3600.0) is None
    assert clock.silent_s == 95.0
    assert clock.observe(3700.0, last_message_mono=0.0, cpu_s=0.0, suspended_s=3600.0) is None
    assert clock.observe(3701.0, last_message_mono=0.0, cpu_s=0.0, suspended_s=3600.0) is not None


def test_message_before_a_suspension() -> None:
    """A message that came just before a suspension does not count the suspension as silence."""
    clock = HangClock(100.0)
    run(clock, 90)
    clock.observe(3695.0, last_message_mono=92.0, cpu_s=0.0, suspended_s=3600.0)
    assert clock.silent_s <= 95.0


def test_computing_before_a_suspension() -> None:
    """CPU use is set against the time awake, so a long sleep does not make it small."""
    clock = HangClock(100.0)
    run(clock, 90)
    clock.observe(3695.0, last_message_mono=0.0, cpu_s=0.5, suspended_s=3600.0)
    assert clock.silent_s == 0.0


def test_falling_cpu_time() -> None:
    """CPU time that falls is no sign of life, and what is used afterwards is."""
    clock = HangClock(100.0)
    clock.observe(0.0, last_message_mono=0.0, cpu_s=500.0)
    clock.observe(50.0, last_message_mono=0.0, cpu_s=100.0)
    assert clock.silent_s == 50.0
    clock.observe(60.0, last_message_mono=0.0, cpu_s=105.0)
    assert clock.silent_s == 0.0


def test_first_observation() -> None:
    """The clock begins with the first observation, whatever the machine's clock says."""
    clock = HangClock(100.0)
    assert clock.observe(1e6, last_message_mono=0.0, cpu_s=0.0) is None
    assert clock.observe(1e6 + 100, last_message_mono=0.0, cpu_s=0.0) is None
    assert clock.observe(1e6 + 101, last_message_mono=0.0, cpu_s=0.0) is not None


def test_no_limit() -> None:
    """A limit of 0 means: never."""
    assert run(HangClock(0.0), 10_000) == []
