"""When the storage counts as sick, and what follows for the payload.

Rules:
* A stage-out has failed when all its retries are spent. `give_up_after` failures in a row, in
  the order in which they end, are storage trouble: no more ranges are taken.
* In trouble, clients wait. After `storage_wait_s` they hear that no more ranges come.
* One success at any time ends the trouble, also after clients were sent away: ranges are taken
  again for whoever is left.
* Late and repeated messages are rows of the table. Times come from one clock, any clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class State(Enum):
    """What is thought of the storage."""

    OK = "ok"
    """Stage-outs succeed, or too few have failed in a row."""
    TROUBLE = "trouble"
    """Enough stage-outs failed in a row; no ranges are taken, clients wait."""
    GIVEN_UP = "given-up"
    """The trouble lasted too long; clients heard that no more ranges come."""


@dataclass(frozen=True, slots=True)
class StageoutSucceeded:
    """An archive is verified on the storage."""


@dataclass(frozen=True, slots=True)
class StageoutFailed:
    """All retries of one archive are spent."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The deadline may have come; harmless at any time."""


Event = StageoutSucceeded | StageoutFailed | TimePassed


class Effect(Enum):
    """What is to be done."""

    STOP_TAKING = "stop-taking"
    """Take no more ranges from the server; let clients wait."""
    SAY_NO_MORE = "say-no-more"
    """Tell the waiting clients that no more ranges come."""
    TAKE_AGAIN = "take-again"
    """Take ranges again and serve who is left."""


class Finding(Enum):
    """What an event means once failures are counted and the time is known."""

    SUCCESS = "success"
    """A stage-out succeeded."""
    FAILURE = "failure"
    """A stage-out failed, and the limit of failures in a row is not reached."""
    LIMIT = "limit"
    """A stage-out failed, and the limit is reached or passed."""
    WAITING = "waiting"
    """The deadline has not come, or there is none."""
    EXPIRED = "expired"
    """The deadline of the trouble has come."""


# FAILURE and WAITING in GIVEN_UP, EXPIRED outside TROUBLE: late or repeated, and harmless.
TRANSITIONS = MappingProxyType(
    {
        (State.OK, Finding.SUCCESS): (State.OK, ()),
        (State.OK, Finding.FAILURE): (State.OK, ()),
        (State.OK, Finding.LIMIT): (State.TROUBLE, (Effect.STOP_TAKING,)),
        (State.OK, Finding.WAITING): (State.OK, ()),
        (State.OK, Finding.EXPIRED): (State.OK, ()),
        (State.TROUBLE, Finding.SUCCESS): (State.OK, (Effect.TAKE_AGAIN,)),
        (State.TROUBLE, Finding.FAILURE): (State.TROUBLE, ()),
        (State.TROUBLE, Finding.LIMIT): (State.TROUBLE, ()),
        (State.TROUBLE, Finding.WAITING): (State.TROUBLE, ()),
        (State.TROUBLE, Finding.EXPIRED): (State.GIVEN_UP, (Effect.SAY_NO_MORE,)),
        (State.GIVEN_UP, Finding.SUCCESS): (State.OK, (Effect.TAKE_AGAIN,)),
        (State.GIVEN_UP, Finding.FAILURE): (State.GIVEN_UP, ()),
        (State.GIVEN_UP, Finding.LIMIT): (State.GIVEN_UP, ()),
        (State.GIVEN_UP, Finding.WAITING): (State.GIVEN_UP, ()),
        (State.GIVEN_UP, Finding.EXPIRED): (State.GIVEN_UP, ()),
    }
)


class StorageTrouble:
    """Counts failures in a row and watches the time; decides, does nothing."""

    __slots__ = ("_failures", "_give_up_after", "_since", "_state", "_storage_wait_s")

    def __init__(self, *, give_up_after: int, storage_wait_s: float) -> None:
        if give_up_after < 1:
            raise ValueError(f"give_up_after {give_up_after} is less than 1")
        self._give_up_after = give_up_after
        self._storage_wait_s = storage_wait_s
        self._state = State.OK
        self._failures = 0
        self._since: float | None = None

    @property
    def state(self) -> State:
        """What is thought of the storage now."""
        return self._state

    @property
    def failures(self) -> int:
        """Failed stage-outs in a row."""
        return self._failures

    @property
    def since(self) -> float | None:
        """When the trouble began; None without trouble."""
        return self._since

    @property
    def taking(self) -> bool:
        """Whether ranges may be taken from the server."""
        return self._state is State.OK

    def next_deadline(self) -> float | None:
        """Tell when `TimePassed` is wanted; None when nothing waits for the time."""
        if self._state is not State.TROUBLE or self._since is None:
            return None
        return self._since + self._storage_wait_s

    def handle(self, event: Event, now: float) -> tuple[Effect, ...]:
        """Take one event and tell what is to be done."""
        finding = self._find(event, now)
        before = self._state
        self._state, effects = TRANSITIONS[before, finding]
        if self._state is State.OK:
            self._since = None
        elif before is State.OK:
            self._since = now
        return effects

    def check(self) -> None:
        """Assert the invariants."""
        assert (self._since is None) == (self._state is State.OK)
        assert self._state is not State.OK or self._failures < self._give_up_after
        assert self._state is State.OK or self._failures >= self._give_up_after

    def _find(self, event: Event, now: float) -> Finding:
        """Count the failures and tell what the event means."""
        if isinstance(event, StageoutSucceeded):
            self._failures = 0
            return Finding.SUCCESS
        if isinstance(event, StageoutFailed):
            self._failures += 1
            return Finding.LIMIT if self._failures >= self._give_up_after else Finding.FAILURE
        deadline = self.next_deadline()
        expired = deadline is not None and now >= deadline
        return Finding.EXPIRED if expired else Finding.WAITING
