"""The life of the payload over its starts: what follows what, and what comes too late."""

from __future__ import annotations

import itertools

import pytest

from espilot.core.payload_life import TRANSITIONS, Effect, Event, Life, channel_mode, handle


def follow(*events: Event) -> tuple[Life, list[Effect]]:
    """The state and all effects after these events."""
    life, effects = Life.IDLE, []
    for event in events:
        life, more = handle(life, event)
        effects += more
    return life, effects


def test_one_start() -> None:
    """The channel is open before the payload starts, and drained after it is reaped."""
    life, effects = follow(Event.WANTED, Event.BOUND, Event.EXITED, Event.ENOUGH, Event.JOB_ENDED)
    assert life is Life.IDLE
    assert effects == [Effect.OPEN_CHANNEL, Effect.START, Effect.SETTLE]


def test_restart() -> None:
    """A payload that ended with work left starts again after a pause, on a new channel."""
    life, effects = follow(
        Event.WANTED, Event.BOUND, Event.EXITED, Event.AGAIN, Event.PAUSE_ENDED, Event.BOUND
    )
    assert life is Life.RUNNING
    assert effects[2:] == [Effect.SETTLE, Effect.PAUSE, Effect.OPEN_CHANNEL, Effect.START]


def test_stop() -> None:
    """A payload that is stopped is terminated, reaped, drained."""
    life, effects = follow(Event.WANTED, Event.BOUND, Event.STOP, Event.EXITED)
    assert life is Life.SETTLING
    assert effects[2:] == [Effect.TERMINATE, Effect.SETTLE]


def test_stop_comes_again() -> None:
    """A second stop does not terminate twice."""
    assert follow(Event.WANTED, Event.BOUND, Event.STOP, Event.STOP)[1].count(Effect.TERMINATE) == 1


def test_stop_before_the_start() -> None:
    """Stopped while its channel is opened, it never starts, although the channel opens later."""
    life, effects = follow(Event.WANTED, Event.STOP, Event.BOUND, Event.ENOUGH)
    assert life is Life.OVER
    assert Effect.START not in effects


@pytest.mark.parametrize("event", [Event.STOP, Event.ENOUGH])
def test_stop_in_a_pause(event: Event) -> None:
    """Stopped while it waits for its next start, it is over; the end of the pause comes late."""
    life, effects = follow(
        Event.WANTED, Event.BOUND, Event.EXITED, Event.AGAIN, event, Event.PAUSE_ENDED
    )
    assert life is Life.OVER
    assert effects.count(Effect.OPEN_CHANNEL) == 1


def test_what_is_not_listed_changes_nothing() -> None:
    """Late and repeated events leave the state alone, and have no effect."""
    for life, event in itertools.product(Life, Event):
        if (life, event) not in TRANSITIONS:
            assert handle(life, event) == (life, ())


def test_every_state_can_be_left_for_idle() -> None:
    """From everywhere some course of events leads to the end of the job: nothing is stuck."""
    reached = {Life.IDLE}
    while more := {a for (a, _), (b, _) in TRANSITIONS.items() if b in reached} - reached:
        reached |= more
    assert reached == set(Life)


def test_start_only_from_a_bound_channel() -> None:
    """Nothing starts a payload but an open channel, and nothing settles one that runs."""
    for (life, event), (after, effects) in TRANSITIONS.items():
        if Effect.START in effects:
            assert (life, event) == (Life.BINDING, Event.BOUND)
        if Effect.SETTLE in effects:
            assert after is Life.SETTLING


@pytest.mark.parametrize(
    ("life", "draining", "storage", "mode"),
    [
        (Life.RUNNING, False, "ok", ("serve", "")),
        (Life.BINDING, False, "ok", ("serve", "")),
        (Life.RUNNING, False, "trouble", ("outcomes", "")),
        (Life.RUNNING, False, "given-up", ("no-more", "storage")),
        (Life.RUNNING, True, "ok", ("no-more", "drain")),
        (Life.RUNNING, True, "given-up", ("no-more", "drain")),
        (Life.STOPPING, False, "ok", ("outcomes", "")),
        (Life.STOPPING, True, "given-up", ("outcomes", "")),
        (Life.SETTLING, False, "ok", ("settle", "")),
        (Life.SETTLING, True, "trouble", ("settle", "")),
        (Life.PAUSING, False, "ok", ("settle", "")),
    ],
)
def test_channel_mode(life: Life, draining: bool, storage: str, mode: tuple[str, str]) -> None:
    """Requests are served only from a payload that runs, with storage and without a drain."""
    assert channel_mode(life, draining=draining, storage=storage) == mode
