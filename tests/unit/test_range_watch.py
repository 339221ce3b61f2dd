"""The watch over ranges in hand: what is held far longer than ranges take here is found."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence

from espilot.core.hang import Durations, Held, RangeWatch

Hands = Mapping[str, Sequence[str]]


class Looks:
    """A watch that is looked at once a second."""

    def __init__(self, *, factor: float = 10.0, floor_s: float = 20.0, cap_s: float = 1000.0):
        self.watch = RangeWatch(factor=factor, floor_s=floor_s, cap_s=cap_s)
        self.now = 50.0
        self.ended = 0

    def look(self, hands: Hands, seconds: int = 1, *, ended: int = 0) -> list[Held]:
        self.ended += ended
        found: list[Held] = []
        for _ in range(seconds):
            found = self.watch.look(self.now, hands, self.ended)
            self.now += 1.0
        return found

    def learn(self, duration: int, times: int = 10) -> None:
        """One client holds so many ranges for so long each."""
        for number in range(times):
            assert self.look({"a": [f"learn-{duration}-{number}"]}, duration) == []
            self.ended += 1
        self.look({"a": []})


def test_durations_keep_their_median() -> None:
    """The median is that of the last ones, and no more than those are kept."""
    chance = random.Random(1)
    durations, model = Durations(kept=51), [0.0]
    model.clear()
    for _ in range(500):
        value = chance.choice([chance.random() * 100, 7.0])
        durations.add(value)
        model = [*model, value][-51:]
        assert len(durations) == len(model)
        assert durations.quantile(0.0) == min(model)
        assert durations.quantile(1.0) == max(model)
        assert durations.median_s == statistics.median_high(model)
    assert Durations().median_s == 0.0


def test_limit_is_the_cap_until_enough_is_known() -> None:
    """Before enough ranges have ended the limit is the cap; then factor times median, or floor."""
    looks = Looks()
    looks.learn(5, times=4)
    assert looks.watch.limit_s == 1000.0
    looks.learn(5, times=4)
    assert looks.watch.limit_s == 50.0
    fast = Looks()
    fast.learn(1, times=8)
    assert fast.watch.limit_s == 20.0
    slow = Looks(cap_s=40.0)
    slow.learn(5)
    assert slow.watch.limit_s == 40.0


def test_held_too_long_is_found_and_the_others_are_not() -> None:
    """Both sides of the limit; the verdict names the range, both numbers, action and code."""
    looks = Looks()
    looks.learn(5)
    hands = {"a": ["r1"], "b": []}
    assert looks.look(hands, 51) == []
    (held,) = looks.look(hands)
    assert (held.client, held.range_id, held.held_s, held.limit_s) == ("a", "r1", 51.0, 50.0)
    verdict = held.verdict()
    assert (verdict.rule, verdict.action, verdict.code) == ("range-hang", "end-client", 1227)
    assert verdict.text == "range r1 is in work for 51 s, the limit is 50 s"
    assert looks.look(hands) != [], "it is told again until it is gone"
    assert looks.look({"a": [], "b": []}) == []


def test_a_busy_client_hangs_too() -> None:
    """Other ranges of the same client that come and go do not hide the one that stays."""
    looks = Looks()
    looks.learn(5)
    found: list[Held] = []
    for number in range(60):
        found = looks.look({"a": ["stays", f"r{number}"]}, ended=1)
    assert [held.range_id for held in found] == ["stays"]


def test_ranges_held_ahead_do_not_hang() -> None:
    """A range that waits for others of its client has no clock before it is the oldest."""
    looks = Looks()
    looks.learn(5)
    ids = [f"r{n}" for n in range(20)]
    while ids:
        assert looks.look({"a": ids}, 5) == []
        ids = ids[1:]
        looks.ended += 1


def test_ranges_that_no_look_saw_are_short() -> None:
    """Of ranges that come and go between two looks it is known how long they take on average."""
    looks = Looks()
    looks.look({"a": ["r1"], "b": ["r2"]})
    looks.look({"a": ["r3"], "b": ["r4"]}, ended=102)
    assert looks.watch.durations.quantile(0.0) == 0.02
    assert len(looks.watch.durations) == RangeWatch.FAST + 2
    assert looks.watch.limit_s == 20.0


def test_a_dead_client_gives_no_duration() -> None:
    """Ranges that leave with their client have not ended."""
    looks = Looks()
    looks.look({"a": ["r1"]}, 30)
    looks.look({})
    assert len(looks.watch.durations) == 0


def test_suspension_does_not_count() -> None:
    """Hours between two looks are no time in work."""
    looks = Looks()
    looks.learn(5)
    looks.look({"a": ["r1"]}, 40)
    looks.now += 7200.0
    assert looks.look({"a": ["r1"]}, 12) == []
    assert looks.look({"a": ["r1"]}) != []


def test_no_cap_means_no_limit() -> None:
    """A cap of 0 switches the rule off."""
    looks = Looks(cap_s=0.0)
    looks.learn(1, times=10)
    assert looks.look({"a": ["r1"]}, 5000) == []


def test_looks_that_come_fast_cost_nothing() -> None:
    """Looks within the least pause are left out."""
    watch = RangeWatch(factor=10.0, floor_s=0.0, cap_s=0.1)
    assert watch.look(0.0, {"a": ["r1"]}, 0) == []
    assert watch.look(0.4, {"a": ["r1"]}, 0) == []
    assert len(watch.look(0.6, {"a": ["r1"]}, 0)) == 1


def test_memory_of_the_watch_is_bounded() -> None:
    """A million ranges leave nothing but the last durations."""
    looks = Looks()
    for number in range(2000):
        looks.look({"a": [f"r{number}"], "b": [f"s{number}"]}, ended=500)
    looks.look({"a": [], "b": []})
    assert len(looks.watch.durations) <= 501
    assert not looks.watch._since
    assert not looks.watch._oldest
