"""When a service manager hears what: readiness, watchdog, more time."""

from __future__ import annotations

from itertools import pairwise

from espilot.core.vigil import ESSENTIAL, EXTEND_S, Vigil

ALL = dict.fromkeys(ESSENTIAL, 100.0)


def vigil(watchdog_s: float | None = 30.0, stop_max_s: float = 600.0) -> Vigil:
    return Vigil(watchdog_s=watchdog_s, stop_max_s=stop_max_s)


def test_ready_is_honest() -> None:
    """Ready only with every essential role heard and the server tried; said once."""
    v = vigil()
    for missing in ESSENTIAL:
        some = {role: at for role, at in ALL.items() if role != missing}
        assert not v.becomes_ready(some, server_tried=True)
    assert not v.becomes_ready(ALL, server_tried=False)
    assert v.becomes_ready(ALL, server_tried=True)
    assert not v.becomes_ready(ALL, server_tried=True)


def test_watchdog_is_fed_at_a_third() -> None:
    """It is fed when a third of its time has passed, not at every look."""
    v = vigil(30.0)
    fed = [now for now in range(100, 131) if v.feeds(dict.fromkeys(ALL, now), now, closing=False)]
    assert fed == [100, 110, 120, 130]


def test_one_dead_loop_starves_the_watchdog() -> None:
    """A role that was not heard since the last feed stops it, whichever it is."""
    for dead in ESSENTIAL:
        v = vigil(30.0)
        assert v.feeds(ALL, 100.0, closing=False)
        heard = {role: 115.0 for role in ESSENTIAL} | {dead: 99.0}
        assert not v.feeds(heard, 115.0, closing=False)
        assert v.feeds({**heard, dead: 116.0}, 117.0, closing=False)


def test_closing_feeds_on() -> None:
    """While the roles are being ended our own loop counts."""
    v = vigil(30.0)
    assert v.feeds({}, 100.0, closing=True)
    assert not v.feeds({}, 105.0, closing=True)
    assert v.feeds({}, 111.0, closing=True)


def test_no_watchdog() -> None:
    """Nobody who watches is fed."""
    assert not vigil(None).feeds(ALL, 100.0, closing=False)


def test_more_time_at_the_start_until_ready() -> None:
    """Until it is ready the start is extended, each time before half of the last span is over."""
    v = vigil()
    asked = [now for now in range(0, 61) if v.extends_s(float(now), stopping=False)]
    assert asked[0] == 0
    assert max(b - a for a, b in pairwise(asked)) <= EXTEND_S / 2
    v.becomes_ready(ALL, server_tried=True)
    assert v.extends_s(100.0, stopping=False) == 0.0


def test_more_time_while_stopping_has_an_end() -> None:
    """The end is extended at once and on, but not beyond the limit."""
    v = vigil(stop_max_s=100.0)
    v.becomes_ready(ALL, server_tried=True)
    promised = [(now, v.extends_s(float(now), stopping=True)) for now in range(1000, 1300)]
    asked = [(now, span) for now, span in promised if span]
    assert asked[0] == (1000, EXTEND_S)
    assert max(now + span for now, span in asked) == 1100.0
    assert asked[-1][0] < 1100
