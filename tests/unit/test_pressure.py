"""What waits for the storage holds back packing, then the hand-out."""

from __future__ import annotations

from espilot.core.pressure import Pressure


def test_packing_waits_at_the_bound() -> None:
    """At the bound no further archive is made; without a bound one always may."""
    pressure = Pressure(100)
    assert [pressure.packing_waits(waiting) for waiting in (0, 99, 100, 500)] == [
        False,
        False,
        True,
        True,
    ]
    assert not Pressure(0).packing_waits(10**15)


def test_hand_out_stops_at_twice_the_bound() -> None:
    """The hand-out stops at twice the bound, and goes on only when a good part is gone."""
    pressure = Pressure(100)
    seen = []
    for held in (199, 200, 161, 160, 159, 199, 200):
        pressure.observe(held)
        seen.append(pressure.is_open)
    assert seen == [True, False, False, False, True, True, False]


def test_reason_tells_both_figures() -> None:
    """The reason names what waits, the limit and the setting; there is none while it is open."""
    pressure = Pressure(2 * 10**9)
    assert pressure.reason == ""
    pressure.observe(5 * 10**9)
    assert "stageout.waiting_bytes" in pressure.reason
    assert pressure.reason.count("GB") == 2


def test_without_a_bound() -> None:
    """Without a bound the hand-out never stops."""
    pressure = Pressure(0)
    pressure.observe(10**15)
    assert pressure.is_open
