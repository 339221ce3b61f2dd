"""The jobs of a server over time, as they were seen by looking again and again: a lane for each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_LANES = 40
Row = Mapping[str, Any]


@dataclass(slots=True)
class JobLane:
    """When a job was first seen at work and, at its end, last (Unix s); what came of it."""

    began: float
    ended: float | None = None
    failed: bool = False
    ranges: int = 0


class JobLanes:
    """The newest jobs; of those that were over before the first look nothing is known."""

    def __init__(self) -> None:
        self.dropped = 0
        self._lanes: OrderedDict[int, JobLane] = OrderedDict()
        self._since: float | None = None

    def take(self, jobs: Iterable[Row], now: float) -> None:
        """Look at the rows of jobs, in any order; `now` is Unix time."""
        self._since = now if self._since is None else self._since
        for job in sorted(jobs, key=lambda each: int(each["panda_id"])):
            at_work = bool(job["active"]) and job["status"] != "activated"
            lane = self._lanes.get(job["panda_id"])
            if lane is None and not at_work and job["updated_at"] <= self._since:
                continue
            if lane is None and (at_work or not job["active"]):
                lane = self._lanes[job["panda_id"]] = JobLane(now)
            if lane is not None:
                lane.ranges = job["ranges_finished"]
                lane.failed = job["status"] == "failed"
                if not at_work and lane.ended is None:
                    lane.ended = max(lane.began, min(now, job["updated_at"]))
        while len(self._lanes) > MOST_LANES:
            self._lanes.pop(next(iter(sorted(self._lanes, key=self._age))))
            self.dropped += 1

    def _age(self, panda_id: int) -> tuple[bool, int]:
        """What is over goes first, the oldest first of all."""
        return self._lanes[panda_id].ended is None, panda_id

    def document(self, start: float, now: float) -> dict[str, Any]:
        """For the page, in s since `start`; the same fields as the lanes of a pilot."""
        lanes = [
            {
                "name": f"job {panda_id}",
                "ended": lane.ranges,
                "failed": int(lane.failed),
                "busy_s": round((lane.ended or now) - lane.began, 1),
                "now": round(lane.began - start, 2) if lane.ended is None else None,
                "boxes": []
                if lane.ended is None
                else [(round(lane.began - start, 2), round(lane.ended - start, 2),
                       "x" if lane.failed else "d")],
            }
            for panda_id, lane in sorted(self._lanes.items())
        ]  # fmt: skip
        return {"from": start, "width_s": 1.0, "noun": "job", "lanes": lanes,
                "dropped": self.dropped}  # fmt: skip
