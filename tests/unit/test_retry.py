"""How long to wait before the next try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espilot.core.retry import Backoff


@given(attempt=st.integers(1, 10**6), chance=st.floats(0, 1))
def test_pause_stays_within_bounds(attempt: int, chance: float) -> None:
    """No pause is shorter than the shortest or longer than the longest, however many tries."""
    delay = Backoff(1.0, 60.0).next_delay(attempt, chance)
    assert delay is not None
    assert 1.0 <= delay <= 60.0


def test_pause_grows_and_spreads() -> None:
    """Pauses double, and chance spreads each over half of its length."""
    backoff = Backoff(1.0, 60.0)
    pauses = [
        (backoff.next_delay(attempt, 0.0), backoff.next_delay(attempt, 1.0))
        for attempt in (1, 2, 3, 10)
    ]
    assert pauses == [(1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (30.0, 60.0)]


def test_attempts_are_tries_in_all() -> None:
    """With three attempts there are two pauses; with zero there is no end."""
    backoff = Backoff(1.0, 60.0, attempts=3)
    assert backoff.next_delay(2, 0.5) is not None
    assert backoff.next_delay(3, 0.5) is None
    assert backoff.next_delay(99, 0.5) is None
    assert Backoff(1.0, 60.0).next_delay(99, 0.5) is not None


def test_chance_outside_its_range_is_bounded() -> None:
    """A bad random number cannot make a negative or endless pause."""
    backoff = Backoff(2.0, 8.0)
    assert backoff.next_delay(1, -5.0) == 2.0
    assert backoff.next_delay(1, 5.0) == 4.0


@pytest.mark.parametrize("bounds", [(-1.0, 5.0), (5.0, 1.0)])
def test_impossible_bounds(bounds: tuple[float, float]) -> None:
    """Bounds that make no range are refused when the value is made."""
    with pytest.raises(ValueError, match="make no range"):
        Backoff(*bounds)
    with pytest.raises(ValueError, match="too small"):
        Backoff(1.0, 2.0, factor=0.5)


def test_zero_pause() -> None:
    """A back-off of nothing is allowed and pauses for nothing."""
    assert Backoff(0.0, 0.0).next_delay(5, 0.7) == 0.0


def test_a_longest_pause_below_the_shortest_counts_as_equal() -> None:
    """As it comes when one of two settings was changed alone."""
    assert Backoff.between(1.0, 0.5, attempts=3) == Backoff(1.0, 1.0, attempts=3)
