"""When the pilot must be over: everybody who may say so, and the earliest of them.

Rules:
* Deadlines are monotonic times. Who gave a Unix time is converted again at each look, since the two
  clocks go apart when the machine sleeps.
* An order (a signal, a request) starts a clock; a second one never starts it anew, it can only make
  it shorter. A notice (features, a drain file, an expiry) may change or vanish.
* While the machine was suspended no clock of ours ran: what was given as a duration moves on.
* A notice that cannot be, such as an end before our start, is ignored and told as a warning.
* A job without any finished range is told why it ended; who has finished some needs no excuse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from espilot.errors import UsageError

PREEMPTED, NO_PROXY, WALL_TIME = 1379, 1163, 1213
"""Pilot error codes of a job that a drain ended before any of its ranges."""
LEAST_CALL_S = 1.0
CALLS = 4
"""So many calls, one after the other, must fit into the time that is left."""
INTERRUPT = 2
"""Number of SIGINT."""
SAME_MOMENT_S = 1.0
LEAST_UNIX_S = 1e9
"""A number from here on is a Unix time, below it is a duration."""
LONGEST_S = 100 * 365 * 86400.0
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_CHARS = 24


@dataclass(frozen=True, slots=True)
class Deadline:
    """One source's statement; `is_duration` when it moves on with a suspension."""

    source: str
    at_mono: float
    text: str
    is_duration: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a run drains: the code for a job without a finished range, and in words.

    No call to the server may take longer than `call_s`; 0: as usual. `final_by` is the monotonic
    time at which the final update waits for nothing any more; 0: there is none.
    """

    code: int
    text: str
    call_s: float = 0.0
    final_by: float = 0.0


@dataclass(frozen=True, slots=True)
class Horizon:
    """What is known of the end of the run means this for further jobs.

    `over`: the run drains, for this reason; `late`: too little time is left for another job, in
    words; `end_mono`: about when the run must be over, 0 when nobody says.
    """

    over: str = ""
    late: str = ""
    end_mono: float = 0.0


def code_of(source: str) -> int:
    """The pilot error code of a deadline, by who has set it."""
    codes = {
        "wall-time": WALL_TIME,
        "wall_limit_secs": WALL_TIME,
        "cpu_limit_secs": WALL_TIME,
        "credential": NO_PROXY,
    }
    return codes.get(source, PREEMPTED)


class Impatience:
    """Counts how often an end was asked for by signals.

    A site sends the same signal more than once at a time (batch system, wrapper, process group):
    what comes within `SAME_MOMENT_S` is one. Who presses Ctrl-C again means it each time.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._times = 0
        self._last_mono = -math.inf

    def heard(self, number: int, now: float) -> int:
        """One more signal; how often an end was asked for by now."""
        self.numbers.append(number)
        if number == INTERRUPT or now - self._last_mono > SAME_MOMENT_S:
            self._times += 1
        self._last_mono = now
        return self._times


def longest_call_s(left_s: float | None) -> float:
    """How long one call to the server may take in a drain; 0 without a deadline: as usual."""
    return 0.0 if left_s is None else max(LEAST_CALL_S, left_s / CALLS)


@dataclass(slots=True)
class Deadlines:
    """The deadlines by source."""

    _by_source: dict[str, Deadline] = field(default_factory=dict)

    def order(self, deadline: Deadline) -> None:
        """An order came; the earlier one of the same source stays."""
        former = self._by_source.get(deadline.source)
        if former is None or deadline.at_mono < former.at_mono:
            self._by_source[deadline.source] = deadline

    def notice(self, source: str, deadline: Deadline | None) -> None:
        """What a source says now; None: nothing any more."""
        if deadline is None:
            self._by_source.pop(source, None)
        else:
            self._by_source[source] = deadline

    def suspended(self, gap_s: float) -> None:
        """Durations go on where they stopped."""
        for source, each in self._by_source.items():
            if each.is_duration:
                self._by_source[source] = replace(each, at_mono=each.at_mono + gap_s)

    def earliest(self) -> Deadline | None:
        """The one that counts; None when no end is known."""
        return min(self._by_source.values(), key=lambda each: each.at_mono, default=None)


def read_left(text: str, now_unix: float) -> float | None:
    """Seconds left by a text: `30s`, `5 min`, `1.5h`, `90`, or a Unix time; None for no text.

    `UsageError` when it is neither.
    """
    text = text.strip()
    if not text:
        return None
    number = text.rstrip("adhimns")
    unit = text[len(number) :]
    value = _read_number(number.rstrip(" "))
    if value is None or unit not in _UNITS_S or (not unit and number.endswith(" ")):
        raise UsageError(
            f"{text[:40]!r} is no deadline; give a duration such as 30s, 5min, 2h, or a Unix time"
        )
    if not unit and value >= LEAST_UNIX_S:
        return max(0.0, value - now_unix)
    return min(value * _UNITS_S[unit], LONGEST_S)


@dataclass(frozen=True, slots=True)
class Notices:
    """What machine and job features say: Unix times of the end by key, and what is unusable."""

    ends_unix: Mapping[str, float]
    warnings: tuple[str, ...]


def read_features(
    machine: Mapping[str, str], job: Mapping[str, str], *, started_unix: float
) -> Notices:
    """The ends in the keys of MACHINEFEATURES and JOBFEATURES (HSF-TN-2016-02).

    The wall time of the slot counts from `jobstart_secs`, without it from our own start.
    """
    ends: dict[str, float] = {}
    warnings: list[str] = []
    for key, table in (("shutdowntime", machine), ("shutdowntime_job", job)):
        end = number_of(key, table, warnings)
        if end is not None:
            ends[key] = end
    limit_s = number_of("wall_limit_secs", job, warnings)
    if limit_s:
        start = number_of("jobstart_secs", job, warnings)
        if start is not None and not 0 < start <= started_unix + 60.0:
            warnings.append(f"jobstart_secs {start:.0f} is after our start, which is taken instead")
            start = None
        ends["wall_limit_secs"] = (started_unix if start is None else start) + limit_s
    for key, end in list(ends.items()):
        if end <= started_unix:
            warnings.append(f"{key}: the end {end:.0f} was before our start, it is ignored")
            del ends[key]
    return Notices(ends, tuple(warnings))


def look_again_s(
    machine: Mapping[str, str], job: Mapping[str, str], *, usual_s: float = 60.0
) -> float:
    """How soon the features are read again: a shutdown may be told `grace_secs` ahead only."""
    graces = [
        number_of(key, table, [])
        for key, table in (("grace_secs", machine), ("grace_secs_job", job))
    ]
    shortest_s = min((each for each in graces if each), default=math.inf)
    return min(usual_s, max(1.0, shortest_s / 4.0))


def number_of(key: str, table: Mapping[str, str], warnings: list[str]) -> float | None:
    """The number under a key; None without one, and with a warning where it is none."""
    text = table.get(key)
    if text is None or not text.strip():
        return None
    value = _read_number(text.strip())
    if value is None:
        warnings.append(f"{key}: {text.strip()[:40]!r} is no number, it is ignored")
    return value


def _read_number(text: str) -> float | None:
    """A number of digits with at most one point; no sign, exponent or infinity."""
    digits = text.replace(".", "", 1)
    plain = digits.isascii() and digits.isdecimal() and len(text) <= _MOST_CHARS
    return float(text) if plain else None
