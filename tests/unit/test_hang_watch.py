"""The dispatcher's watch: who hangs is told to the supervisor, and nobody whose result waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from espilot.config import PayloadConfig
from espilot.core.clients import Client, Tally
from espilot.wire.messages import Overdue
from espilot.workers.hang_watch import HangWatch


class Hands:
    """What the watch needs of the dispatch."""

    def __init__(self) -> None:
        self.epoch = 3
        self.tally = Tally()
        self.held: dict[str, Sequence[str]] = {"a": ["r1"], "b": []}

    def hands(self) -> list[tuple[Client, Sequence[str]]]:
        return [
            (Client(key.encode(), key, 4711 if key == "a" else None, native=False), ids)
            for key, ids in self.held.items()
        ]


def watch(read_pending: Callable[[Hands], None]) -> list[Overdue]:
    """Look for 20 seconds with a cap of 10; what was told."""
    dispatch, told = Hands(), list[Overdue]()
    config = PayloadConfig(range_hang_cap_s=10.0)
    hang_watch = HangWatch(config, cast(Any, dispatch), told.append)
    for second in range(20):
        hang_watch.look(float(second), lambda: read_pending(dispatch))
    return told


def test_overdue_is_told() -> None:
    """The message names epoch, process, range and both numbers, and is repeated."""
    told = watch(lambda dispatch: None)
    assert told[0] == Overdue(3, 4711, "r1", 11.0, 10.0)
    assert len(told) == 9


def test_a_result_that_waits_is_no_hang() -> None:
    """What is found on the channel at the last moment counts."""

    def read(dispatch: Hands) -> None:
        dispatch.held = {"a": []}

    assert watch(read) == []


def test_unknown_process() -> None:
    """A client whose process is not known has number 0."""

    def read(dispatch: Hands) -> None:
        dispatch.held = {"b": ["r1"], "a": ["r1"]}

    assert watch(read)[0].pid == 4711
    dispatch = Hands()
    dispatch.held = {"b": ["r1"]}
    told: list[Overdue] = []
    hang_watch = HangWatch(PayloadConfig(range_hang_cap_s=1.0), cast(Any, dispatch), told.append)
    for second in range(3):
        hang_watch.look(float(second), lambda: None)
    assert told[0].pid == 0


def test_durations_are_facts() -> None:
    """Median and 95th percentile are for whoever plans with them; nothing before they are known."""
    dispatch = Hands()
    hang_watch = HangWatch(PayloadConfig(), cast(Any, dispatch), lambda overdue: None)
    hang_watch.look(0.0, lambda: None)
    assert hang_watch.facts == {}
    dispatch.tally.outcomes = 1
    dispatch.held = {"a": []}
    hang_watch.look(3.0, lambda: None)
    assert hang_watch.facts == {"range_median_s": 3.0, "range_p95_s": 3.0}
