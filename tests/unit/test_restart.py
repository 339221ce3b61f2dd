"""Restarts: at once, then slower, then not at all; and the order of the roles."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from espilot.core import restart
from espilot.core.restart import Died, GiveUp, RestartCounter, StartAgain, Started

RULE = replace(
    restart.RULES[restart.PAYLOAD], starts=4, window_s=100.0, pause_min_s=1.0, pause_max_s=3.0
)


def live(counter: RestartCounter, start: float, end: float) -> StartAgain | GiveUp | None:
    """One life of the role; what is to be done after it."""
    counter.handle(Started(), start)
    return counter.handle(Died(), end)


def test_first_restart_is_immediate_then_slower() -> None:
    """The first restart has no pause, then pauses double up to the largest; then it is given up."""
    counter = RestartCounter(RULE)
    assert live(counter, 0.0, 1.0) == StartAgain(1.0)
    assert live(counter, 1.0, 2.0) == StartAgain(3.0)
    assert counter.next_deadline() == 3.0
    assert live(counter, 3.0, 4.0) == StartAgain(6.0)
    given_up = live(counter, 6.0, 7.0)
    assert given_up == GiveUp("payload died after 4 starts within 100 s, the limit is 4")
    assert counter.next_deadline() is None


def test_largest_pause() -> None:
    """Pauses do not grow beyond the largest."""
    counter = RestartCounter(replace(RULE, starts=100))
    for turn in range(50):
        effect = live(counter, float(turn), float(turn))
    assert effect == StartAgain(49.0 + 3.0)


def test_old_starts_are_forgotten() -> None:
    """A role that dies now and then is restarted for ever."""
    counter = RestartCounter(RULE)
    for turn in range(100):
        now = turn * 60.0
        assert isinstance(live(counter, now, now + 59.0), StartAgain)


def test_given_up_stays() -> None:
    """After giving up nothing leads back, not even time."""
    counter = RestartCounter(replace(RULE, starts=1))
    given_up = live(counter, 0.0, 1.0)
    assert isinstance(given_up, GiveUp)
    assert counter.handle(Died(), 1e6) == given_up
    assert counter.handle(Died(own_fault=False), 1e6) == given_up


def test_death_for_another_role() -> None:
    """A role that we ended for another one's sake starts again at once and uses up nothing."""
    counter = RestartCounter(RULE)
    for turn in range(20):
        counter.handle(Started(), float(turn))
        assert counter.handle(Died(own_fault=False), turn + 0.5) == StartAgain(turn + 0.5)
    assert live(counter, 30.0, 31.0) == StartAgain(31.0)


def test_never_started() -> None:
    """A death without a start (it could not be executed) is no error."""
    counter = RestartCounter(RULE)
    assert counter.handle(Died(own_fault=False), 1.0) == StartAgain(1.0)


@given(st.lists(st.floats(0.0, 50.0), max_size=60), st.integers(1, 6))
def test_intensity(lives: list[float], starts: int) -> None:
    """However long its lives are, no window ever sees more starts than allowed."""
    rule = replace(RULE, starts=starts)
    counter = RestartCounter(rule)
    now, began = 0.0, []
    for length in lives:
        began.append(now)
        counter.handle(Started(), now)
        effect = counter.handle(Died(), now + length)
        if isinstance(effect, GiveUp):
            break
        assert isinstance(effect, StartAgain)
        assert now + length <= effect.at_mono <= now + length + rule.pause_max_s
        now = effect.at_mono
    for first in began:
        assert sum(first <= each < first + rule.window_s for each in began) <= starts


def test_order_of_roles() -> None:
    """Servers start first and stop last, the payload the other way round, stage-out early."""
    assert restart.start_order() == (
        "builtin-server",
        "stageout",
        "event-server",
        "dispatcher",
        "payload",
    )
    assert restart.stop_order() == (
        "payload",
        "dispatcher",
        "stageout",
        "event-server",
        "builtin-server",
    )
    assert all(role == rule.role for role, rule in restart.RULES.items())
