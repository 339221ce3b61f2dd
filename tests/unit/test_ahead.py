"""How many ranges are taken ahead."""

from __future__ import annotations

from espilot.core.ahead import Ahead
from espilot.model import EventRange

RANGE = EventRange("1", 1, 1, "lfn", "guid", "scope")


def test_quick_requests() -> None:
    """Twice as many as went out since a commit a moment ago, at most the bound."""
    ahead = Ahead(10)
    assert ahead.missing(3, 100.0) == 1
    assert ahead.missing(6, 100.002) == 6
    assert ahead.missing(66, 100.004) == 10


def test_slow_requests() -> None:
    """One, where ranges take long, and where the clock jumped back."""
    ahead = Ahead(10)
    ahead.missing(8, 100.0)
    assert ahead.missing(16, 101.0) == 1
    assert ahead.missing(24, 50.0) == 1


def test_what_is_there_counts() -> None:
    """Only what is missing is taken; without a bound nothing is."""
    ahead = Ahead(10)
    ahead.ranges.append(RANGE)
    assert ahead.missing(1, 100.0) == 0
    assert ahead.pop(5) == [RANGE]
    assert ahead.missing(1, 100.1) == 1
    assert Ahead(0).missing(5, 100.0) == 0
