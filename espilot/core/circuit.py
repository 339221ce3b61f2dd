"""Whether an endpoint is worth a try: a circuit breaker.

Rules:
* `limit` failures in a row open the circuit: the endpoint is left alone for `open_s`, while there
  is another one to go to.
* After that one probe goes through. Its success closes the circuit, its failure opens it again.
* A success at any time closes it. Late and repeated outcomes are rows of the table.
"""

from __future__ import annotations

import math
from enum import Enum
from types import MappingProxyType


class CircuitState(Enum):
    """What is thought of the endpoint."""

    CLOSED = "closed"
    """It works, or too few tries have failed in a row."""
    OPEN = "open"
    """It failed too often; it is left alone until the pause is over."""
    PROBING = "probing"
    """The pause is over and one try is on its way."""


class Finding(Enum):
    """What happened at the endpoint."""

    SUCCESS = "success"
    """A transfer succeeded."""
    FAILURE = "failure"
    """A transfer failed, and the limit of failures in a row is not reached."""
    LIMIT = "limit"
    """A transfer failed, and the limit is reached or passed."""
    BEGUN_IN_TIME = "begun-in-time"
    """A try begins, and no pause is running."""
    BEGUN_EARLY = "begun-early"
    """A try begins within the pause, since there is nowhere else to go."""


_S, _F = CircuitState, Finding
TRANSITIONS = MappingProxyType(
    {
        (_S.CLOSED, _F.SUCCESS): _S.CLOSED,
        (_S.CLOSED, _F.FAILURE): _S.CLOSED,
        (_S.CLOSED, _F.LIMIT): _S.OPEN,
        (_S.CLOSED, _F.BEGUN_IN_TIME): _S.CLOSED,
        (_S.CLOSED, _F.BEGUN_EARLY): _S.CLOSED,
        (_S.OPEN, _F.SUCCESS): _S.CLOSED,
        (_S.OPEN, _F.FAILURE): _S.OPEN,
        (_S.OPEN, _F.LIMIT): _S.OPEN,
        (_S.OPEN, _F.BEGUN_IN_TIME): _S.PROBING,
        (_S.OPEN, _F.BEGUN_EARLY): _S.OPEN,
        (_S.PROBING, _F.SUCCESS): _S.CLOSED,
        (_S.PROBING, _F.FAILURE): _S.OPEN,
        (_S.PROBING, _F.LIMIT): _S.OPEN,
        (_S.PROBING, _F.BEGUN_IN_TIME): _S.PROBING,
        (_S.PROBING, _F.BEGUN_EARLY): _S.PROBING,
    }
)


class Circuit:
    """The breaker of one endpoint; decides, does nothing. Times come from one clock."""

    __slots__ = ("_failures", "_limit", "_open_s", "_state", "_until")

    def __init__(self, *, limit: int, open_s: float) -> None:
        if limit < 1 or open_s < 0:
            raise ValueError(f"limit {limit} or pause of {open_s} s too small")
        self._limit = limit
        self._open_s = open_s
        self._state = CircuitState.CLOSED
        self._failures = 0
        self._until = -math.inf

    @property
    def state(self) -> CircuitState:
        """What is thought of the endpoint now."""
        return self._state

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    def allows(self, now: float) -> bool:
        """Whether a try may begin: always when closed, else one when the pause is over."""
        if self._state is CircuitState.OPEN:
            return now >= self._until
        return self._state is CircuitState.CLOSED

    def begin(self, now: float) -> None:
        """Note that a try begins."""
        in_time = now >= self._until
        self._move(Finding.BEGUN_IN_TIME if in_time else Finding.BEGUN_EARLY)

    def succeeded(self) -> None:
        """Note that a transfer succeeded."""
        self._failures = 0
        self._move(Finding.SUCCESS)

    def failed(self, now: float) -> None:
        """Note that a transfer failed."""
        self._failures += 1
        before = self._state
        self._move(Finding.LIMIT if self._failures >= self._limit else Finding.FAILURE)
        if self._state is CircuitState.OPEN and before is not CircuitState.OPEN:
            self._until = now + self._open_s

    def _move(self, finding: Finding) -> None:
        self._state = TRANSITIONS[self._state, finding]
