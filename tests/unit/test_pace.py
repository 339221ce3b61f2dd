"""How fast things go."""

from __future__ import annotations

import pytest

from espilot.core.pace import Rate, Residence, Smoothed


def test_rate_follows_the_newest_transfers() -> None:
    """A rate is bytes per second; after some transfers at another speed it is that speed."""
    rate = Rate()
    assert rate.value is None
    rate.add(1e6, 1.0)
    assert rate.value == pytest.approx(1e6)
    for _ in range(20):
        rate.add(1e6, 10.0)
    assert rate.value == pytest.approx(1e5, rel=0.05)


def test_instant_transfer_is_no_division_by_zero() -> None:
    """A transfer without measurable duration is taken as a very short one."""
    rate = Rate()
    rate.add(100.0, 0.0)
    assert rate.value is not None
    assert rate.value > 1e6


def test_smoothed_duration() -> None:
    """One slow call does not make all calls slow."""
    call = Smoothed()
    for _ in range(10):
        call.add(1.0)
    call.add(11.0)
    assert call.value == pytest.approx(4.0)


def test_residence_is_the_mean_duration() -> None:
    """With 8 ranges in work of which 4 end each second, a range takes 2 s."""
    residence = Residence()
    assert residence.mean_s is None
    for second in range(30):
        residence.observe(100.0 + second, inside=8, ended=50 + 4 * second)
    assert residence.mean_s == pytest.approx(2.0)


def test_residence_without_an_end_is_unknown() -> None:
    """As long as no range ended nothing is known of their duration."""
    residence = Residence()
    for second in range(5):
        residence.observe(float(second), inside=3, ended=0)
    assert residence.mean_s is None
