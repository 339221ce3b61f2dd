"""Measurements in a thread: the owner never waits, whatever hangs."""

from __future__ import annotations

import threading
import time

import pytest
from patience import eventually

from espilot.adapters.background import Background
from espilot.errors import LocalError


def take(background: Background[int]) -> int:
    found: list[int] = []

    def look() -> bool:
        value = background.take()
        found.extend(() if value is None else (value,))
        return bool(found)

    eventually(look, "a result")
    return found[0]


def test_results_come_later() -> None:
    """One call at a time; its result is taken once, and then the next one may start."""
    background: Background[int] = Background("test")
    try:
        gate = threading.Event()

        def call() -> int:
            gate.wait(10)
            return 7

        assert background.start(call)
        assert background.take() is None
        assert not background.start(call)
        assert background.busy_s(time.monotonic() + 100.0) > 99.0
        gate.set()
        assert take(background) == 7
        assert background.take() is None
        assert background.busy_s(time.monotonic()) == 0.0
        assert background.start(call)
        assert take(background) == 7
    finally:
        assert background.close(10.0)


def test_errors_come_where_the_result_is_taken() -> None:
    """What the call raises is raised in the owner, and the thread goes on."""
    background: Background[int] = Background("test")
    try:

        def fail() -> int:
            raise LocalError("no such disk")

        background.start(fail)
        with pytest.raises(LocalError, match="no such disk"):
            take(background)
        background.start(lambda: 3)
        assert take(background) == 3
    finally:
        assert background.close(10.0)


def test_a_call_that_hangs_is_left_behind() -> None:
    """Closing does not wait for ever."""
    background: Background[int] = Background("test")
    gate = threading.Event()
    background.start(lambda: int(gate.wait(10)))
    assert not background.close(0.01)
    gate.set()
    assert background.close(10.0)
