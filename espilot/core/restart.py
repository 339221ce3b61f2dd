"""Roles: the one table of start order, stop order, restart intensity and back-off.

* A role that dies is started again at once the first time, then after pauses that double.
* After `starts` starts within `window_s` a further death means: give up. Older starts are
  forgotten, and with them their pauses.
* A death that was not the role's own doing (we stopped it because another one died) takes its start
  back: it never uses up the intensity.
* Roles start in ascending `start_order`: first the server that others call, then what takes long to
  import, last the payload. They stop in ascending `stop_order`: first who makes outputs, then who
  takes them over, last who reports.
* After giving up, nothing leads back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

EVENT_SERVER = "event-server"
DISPATCHER = "dispatcher"
STAGEOUT = "stageout"
BUILTIN_SERVER = "builtin-server"
PAYLOAD = "payload"


@dataclass(frozen=True, slots=True)
class RestartRule:
    """How one role is started, stopped, and started again."""

    role: str
    start_order: int
    stop_order: int
    starts: int
    window_s: float
    pause_min_s: float
    pause_max_s: float


def _rule(role: str, start_order: int, stop_order: int) -> RestartRule:
    return RestartRule(
        role=role,
        start_order=start_order,
        stop_order=stop_order,
        starts=5,
        window_s=60.0 if role != PAYLOAD else 600.0,
        pause_min_s=0.25,
        pause_max_s=10.0,
    )


RULES: Mapping[str, RestartRule] = MappingProxyType(
    {
        rule.role: rule
        for rule in (
            _rule(BUILTIN_SERVER, start_order=1, stop_order=5),
            _rule(STAGEOUT, start_order=2, stop_order=3),
            _rule(EVENT_SERVER, start_order=3, stop_order=4),
            _rule(DISPATCHER, start_order=4, stop_order=2),
            _rule(PAYLOAD, start_order=5, stop_order=1),
        )
    }
)


def start_order() -> tuple[str, ...]:
    """All roles, the first to be started first."""
    return tuple(sorted(RULES, key=lambda role: RULES[role].start_order))


def stop_order() -> tuple[str, ...]:
    """All roles, the first to be stopped first."""
    return tuple(sorted(RULES, key=lambda role: RULES[role].stop_order))


@dataclass(frozen=True, slots=True)
class Started:
    """The role was started."""


@dataclass(frozen=True, slots=True)
class Died:
    """The role ended and shall run again; `own_fault` is False when we ended it for another one."""

    own_fault: bool = True


@dataclass(frozen=True, slots=True)
class StartAgain:
    """Start it at this monotonic time."""

    at_mono: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start it again; `text` says why, with number and limit."""

    text: str


class RestartCounter:
    """The starts and deaths of one role."""

    def __init__(self, rule: RestartRule) -> None:
        self._rule = rule
        self._starts: deque[float] = deque()
        self._given_up: GiveUp | None = None
        self._next_mono: float | None = None

    def handle(self, event: Started | Died, now: float) -> StartAgain | GiveUp | None:
        """Take an event at the monotonic time `now`; returns what to do after a death."""
        self._forget(now)
        if isinstance(event, Started):
            self._starts.append(now)
            self._next_mono = None
            return None
        return self._after_death(event, now)

    def next_deadline(self) -> float | None:
        """When the role is to be started again (monotonic); None when nothing is due."""
        return self._next_mono

    def _after_death(self, death: Died, now: float) -> StartAgain | GiveUp:
        if self._given_up is not None:
            return self._given_up
        if not death.own_fault:
            if self._starts:
                self._starts.pop()
            self._next_mono = now
            return StartAgain(now)
        rule = self._rule
        if len(self._starts) >= rule.starts:
            self._next_mono = None
            self._given_up = GiveUp(
                f"{rule.role} died after {len(self._starts)} starts within {rule.window_s:g} s, "
                f"the limit is {rule.starts}"
            )
            return self._given_up
        self._next_mono = now + self._pause_s()
        return StartAgain(self._next_mono)

    def _pause_s(self) -> float:
        """None after the first start of the window, then doubling."""
        earlier = len(self._starts) - 1
        if earlier < 1:
            return 0.0
        return min(self._rule.pause_max_s, self._rule.pause_min_s * 2.0 ** min(earlier - 1, 30))

    def _forget(self, now: float) -> None:
        while self._starts and self._starts[0] <= now - self._rule.window_s:
            self._starts.popleft()
