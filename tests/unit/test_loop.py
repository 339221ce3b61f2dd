"""The one poller of a process."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from espilot.adapters.loop import Loop


def ready_pipe() -> tuple[int, int]:
    """Both ends of a pipe that holds a byte."""
    ends = os.pipe()
    os.write(ends[1], b"x")
    return ends


def test_a_number_that_was_given_anew_is_another_source() -> None:
    """One source's callback closes the other, and what it opens gets that number: it was not
    readable, so it is not called."""
    loop = Loop()
    pipes = [ready_pipe(), ready_pipe()]
    called: list[str] = []
    extra: list[int] = []

    def first_of(own: int) -> Callable[[], None]:
        def callback() -> None:
            called.append("first")
            other = pipes[1 - own][0]
            loop.forget(other)
            os.close(other)
            read_end, write_end = os.pipe()
            extra.extend((read_end, write_end))
            assert other in (read_end, write_end)
            loop.on_readable(other, lambda: called.append("new"))

        return callback

    for own, pipe in enumerate(pipes):
        loop.on_readable(pipe[0], first_of(own))
    loop.turn()
    assert called == ["first"]
    served = next(own for own, pipe in enumerate(pipes) if pipe[0] not in extra)
    for fd in (pipes[served][0], pipes[0][1], pipes[1][1], *extra):
        os.close(fd)


def test_who_is_forgotten_in_the_same_turn_is_not_called() -> None:
    """A callback may forget a source that was readable too."""
    loop = Loop()
    pipes = [ready_pipe(), ready_pipe()]
    called: list[int] = []

    def callback(own: int) -> None:
        called.append(own)
        loop.forget(pipes[1 - own][0])

    loop.on_readable(pipes[0][0], lambda: callback(0))
    loop.on_readable(pipes[1][0], lambda: callback(1))
    loop.turn()
    assert len(called) == 1
    for fd in (*pipes[0], *pipes[1]):
        os.close(fd)


@pytest.mark.parametrize("delay_s", [0.0, 0.01])
def test_a_cancelled_timer_never_calls(delay_s: float) -> None:
    """Only the timer that was not cancelled calls, once."""
    loop = Loop()
    called: list[str] = []
    loop.call_later(delay_s, lambda: called.append("cancelled")).cancel()
    loop.call_later(delay_s, lambda: called.append("due"))
    while not called:
        loop.turn()
    assert called == ["due"]
