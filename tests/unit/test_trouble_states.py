"""When the storage counts as sick, and what follows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espilot.core.storage_trouble import (
    TRANSITIONS,
    Effect,
    Event,
    Finding,
    StageoutFailed,
    StageoutSucceeded,
    State,
    StorageTrouble,
    TimePassed,
)

FAILED, SUCCEEDED, TIME = StageoutFailed(), StageoutSucceeded(), TimePassed()


def trouble(*, after: int = 2, wait_s: float = 600.0) -> StorageTrouble:
    return StorageTrouble(give_up_after=after, storage_wait_s=wait_s)


def test_table_is_complete() -> None:
    """Every finding in every state has a row: nothing late or repeated can surprise."""
    assert set(TRANSITIONS) == {(state, finding) for state in State for finding in Finding}


def test_two_failures_in_a_row_stop_the_taking() -> None:
    """The n-th failure in a row, and only that one, stops the taking and sets the deadline."""
    machine = trouble()
    assert machine.handle(FAILED, 10.0) == ()
    assert (machine.taking, machine.next_deadline()) == (True, None)
    assert machine.handle(FAILED, 20.0) == (Effect.STOP_TAKING,)
    assert (machine.taking, machine.next_deadline(), machine.since) == (False, 620.0, 20.0)
    assert machine.handle(FAILED, 30.0) == ()
    assert machine.next_deadline() == 620.0


def test_a_success_between_failures_counts_anew() -> None:
    """Failures that are not in a row are no trouble."""
    machine = trouble()
    for now, event in enumerate([FAILED, SUCCEEDED, FAILED, SUCCEEDED, FAILED]):
        assert machine.handle(event, float(now)) == ()
    assert machine.state is State.OK


def test_recovery_in_time() -> None:
    """A success in trouble takes ranges again, and the next trouble has a new deadline."""
    machine = trouble(after=1)
    machine.handle(FAILED, 0.0)
    assert machine.handle(SUCCEEDED, 5.0) == (Effect.TAKE_AGAIN,)
    assert (machine.taking, machine.next_deadline()) == (True, None)
    assert machine.handle(FAILED, 7.0) == (Effect.STOP_TAKING,)
    assert machine.next_deadline() == 607.0


def test_give_up_after_the_wait_once() -> None:
    """Clients hear *no more* when the wait is over, not before and not twice."""
    machine = trouble(after=1)
    machine.handle(FAILED, 0.0)
    assert machine.handle(TIME, 599.9) == ()
    assert machine.handle(TIME, 600.0) == (Effect.SAY_NO_MORE,)
    assert machine.handle(TIME, 700.0) == ()
    assert machine.handle(FAILED, 701.0) == ()
    assert (machine.state, machine.next_deadline()) == (State.GIVEN_UP, None)


def test_success_after_giving_up() -> None:
    """A storage that recovers late serves who is left."""
    machine = trouble(after=1, wait_s=0.0)
    machine.handle(FAILED, 1.0)
    machine.handle(TIME, 1.0)
    assert machine.handle(SUCCEEDED, 2.0) == (Effect.TAKE_AGAIN,)
    assert machine.state is State.OK


def test_time_alone_changes_nothing_without_trouble() -> None:
    """Time-outs outside trouble are harmless."""
    machine = trouble()
    assert machine.handle(TIME, 1e12) == ()
    assert machine.state is State.OK


def test_limit_below_one_is_refused() -> None:
    """A limit of no failures would be trouble from the start."""
    with pytest.raises(ValueError, match="give_up_after"):
        trouble(after=0)


@given(
    after=st.integers(1, 4),
    steps=st.lists(
        st.tuples(st.sampled_from([FAILED, SUCCEEDED, TIME]), st.floats(0, 400)), max_size=60
    ),
)
def test_invariants_hold_in_any_order(after: int, steps: list[tuple[Event, float]]) -> None:
    """Whatever comes in whatever order: stops and resumptions alternate, invariants hold."""
    machine, now, taking = trouble(after=after), 0.0, True
    for event, pause in steps:
        now += pause
        for effect in machine.handle(event, now):
            if effect is not Effect.SAY_NO_MORE:
                assert taking is (effect is Effect.STOP_TAKING)
                taking = not taking
        machine.check()
        assert machine.taking is taking
