"""Figures that only the story of the ranges has: how long they took and waited, what was in vain.

Its lines come in the order of writing, each role's a little late: they are held back for a moment
and taken in the order of time. What is kept of a range goes with it; of a story whose end of a
range is lost, a bounded number is kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from espilot.histogram import RANGES_S, Histogram

Line = Mapping[str, Any]
MOST_LIVE = 200_000
REASONS = {
    "the client does not read": "client-stalled",
    "the payload ended": "payload-ended",
    "who held it is dead": "pilot-died",
    "its pilot died": "pilot-died",
    "its output is missing or short": "output-lost",
    "the job ends, it was not in work": "job-ended",
    "the job ends, it came back unfinished": "job-ended",
    "the server no longer holds it for this job": "server-gave-up",
    "the server no longer held it for this job": "server-gave-up",
    "the server never booked it": "not-booked",
}
"""Words of the story, and how they are called in labels."""


@dataclass(slots=True)
class Course:
    """Of one range: its events, since when it is ready or sent, whether it was processed."""

    events: int = 1
    ready_at: float = 0.0
    sent_at: float = 0.0
    made: bool = False


class StoryFigures:
    """Takes lines of a story; ranges redispatched and events lost are counted by reason."""

    def __init__(self) -> None:
        self.durations, self.waits = Histogram(RANGES_S), Histogram(RANGES_S)
        self.redispatched: Counter[str] = Counter()
        self.ranges_lost: Counter[str] = Counter()
        self.events_lost: Counter[str] = Counter()
        self._live: dict[str, Course] = {}
        self._held_back: list[Line] = []
        self._moves: dict[str, Callable[[str, Course, Line], None]] = {
            "sent": self._sent,
            "done": self._done,
            "returned": self._returned,
            "dropped": self._dropped,
            "given-back": self._given_back,
            "reported": self._reported,
        }

    def take(self, lines: Iterable[Line], until: float) -> None:
        """Take the next lines; those after that Unix time at a later call."""
        lines = sorted([*self._held_back, *lines], key=lambda line: float(line["t"]))
        number = bisect_right(lines, until, key=lambda line: float(line["t"]))
        self._held_back = lines[number:]
        for line in lines[:number]:
            if line["what"] == "fetched":
                self._fetched(line)
            move = self._moves.get(line["what"])
            for range_id in line["ranges"] if move is not None else ():
                course = self._live.get(range_id)
                if course is not None and move is not None:
                    move(range_id, course, line)

    def facts(self) -> dict[str, Any]:
        """All figures, as they are now."""
        return {
            "durations": self.durations.facts(),
            "waits": self.waits.facts(),
            "redispatched": dict(self.redispatched),
            "ranges_lost": dict(self.ranges_lost),
            "events_lost": dict(self.events_lost),
        }

    def _fetched(self, line: Line) -> None:
        each = line.get("each")
        events = each.get("events") if isinstance(each, dict) else None
        bounds = events if isinstance(events, list) else []
        for at, range_id in enumerate(line["ranges"]):
            if len(self._live) >= MOST_LIVE:
                del self._live[next(iter(self._live))]
            number = events_of(bounds[at]) if at < len(bounds) else 1
            self._live[str(range_id)] = Course(number, float(line["t"]))

    def _sent(self, range_id: str, course: Course, line: Line) -> None:
        course.sent_at = float(line["t"])
        if course.ready_at:
            self.waits.add(max(0.0, course.sent_at - course.ready_at))

    def _done(self, range_id: str, course: Course, line: Line) -> None:
        course.made = True
        if course.sent_at:
            self.durations.add(max(0.0, float(line["t"]) - course.sent_at))

    def _returned(self, range_id: str, course: Course, line: Line) -> None:
        reason = reason_of(line)
        self.redispatched[reason] += 1
        if course.made:
            self._lost(course, reason)
        course.made, course.sent_at, course.ready_at = False, 0.0, float(line["t"])

    def _dropped(self, range_id: str, course: Course, line: Line) -> None:
        self._lost(course, "output-lost")
        course.made = False

    def _given_back(self, range_id: str, course: Course, line: Line) -> None:
        if course.made:
            self._lost(course, reason_of(line))
        del self._live[range_id]

    def _reported(self, range_id: str, course: Course, line: Line) -> None:
        del self._live[range_id]

    def _lost(self, course: Course, reason: str) -> None:
        self.ranges_lost[reason] += 1
        self.events_lost[reason] += course.events


def reason_of(line: Line) -> str:
    """The label of why; what a client's end says has its process in it."""
    why = str(line.get("why"))
    return "client-ended" if why.startswith("client ") else REASONS.get(why, "other")


def events_of(bounds: object) -> int:
    """Events between a first and a last one; 1 where the story is strange."""
    if isinstance(bounds, list) and len(bounds) == 2:
        first, last = bounds
        if isinstance(first, int) and isinstance(last, int) and last >= first:
            return last - first + 1
    return 1
