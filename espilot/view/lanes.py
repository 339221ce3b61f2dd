"""Who worked on what and when: a lane for each process of the payload, one for the stage-out.

A lane has boxes (one range or archive each) as long as they are few, and always the share of each
bin of time in which it was busy. A client may hold ranges ahead: the next one begins when it has
ended the one before.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from espilot.view.history import History

MOST_LANES = 64
MOST_BOXES = 600
"""Of all lanes together, for boxes to be shown; and kept of each."""
MOST_ARCHIVES = 1000
MOST_RUNNING = 500


@dataclass(slots=True)
class Lane:
    """Boxes are begin, end (Unix s), and how it ended: `d` done, `x` failed, `r` taken back."""

    boxes: deque[tuple[float, float, str]] = field(default_factory=lambda: deque(maxlen=MOST_BOXES))
    ended: int = 0
    failed: int = 0
    free_at: float = 0.0
    busy_s: float = 0.0


class Lanes:
    """All lanes; those of processes that did nothing for longest are dropped first."""

    def __init__(self, history: History) -> None:
        self.dropped = 0
        self._history = history
        self._lanes: OrderedDict[int, Lane] = OrderedDict()
        self._open: dict[int, tuple[int, float]] = {}
        self.stageout = Lane()
        self._archives: OrderedDict[str, float] = OrderedDict()

    def begin(self, cell: int, client: int, t: float) -> None:
        """A range went to a client."""
        self._lane(client)
        self._open[cell] = (client, t)

    def end(self, cell: int, t: float, how: str) -> float | None:
        """It is no longer there; the seconds that it took, None when its begin is not known."""
        client, sent_at = self._open.pop(cell, (0, None))
        if sent_at is None or t < sent_at:
            return None
        lane = self._lane(client)
        begin = max(sent_at, lane.free_at)
        begin = begin if begin <= t else sent_at
        lane.free_at = t
        lane.boxes.append((begin, t, how))
        lane.busy_s += t - begin
        lane.ended += 1
        lane.failed += how == "x"
        self._history.add_span(f"lane {client}", begin, t)
        return t - begin

    def running(self) -> list[tuple[int, float]]:
        """Cells in work and since when (Unix s), the longest first: of each client only the range
        that it has held longest, as others are held ahead."""
        oldest: dict[int, tuple[float, int]] = {}
        for cell, (client, sent_at) in self._open.items():
            oldest[client] = min(oldest.get(client, (sent_at, cell)), (sent_at, cell))
        found = [
            (cell, max(sent_at, self._lanes[client].free_at if client in self._lanes else 0.0))
            for client, (sent_at, cell) in oldest.items()
        ]
        return sorted(found, key=lambda each: each[1])[:MOST_RUNNING]

    def begin_archive(self, name: str, t: float) -> None:
        """An archive waits for the storage."""
        if name not in self._archives:
            self._archives[name] = t
            if len(self._archives) > MOST_ARCHIVES:
                self._archives.popitem(last=False)

    def end_archive(self, name: str, t: float) -> None:
        """It is there."""
        begin = self._archives.pop(name, None)
        if begin is not None and begin <= t:
            self.stageout.boxes.append((begin, t, "d"))
            self.stageout.ended += 1
            self._history.add_span("stage-out", begin, t)

    def document(self, now: float) -> dict[str, Any]:
        """For the page: `from`, `width_s` of a bin, lanes with boxes or bins, in s since `from`."""
        start, width_s = self._history.start or now, self._history.width_s
        n_boxes = sum(lane.ended for lane in self._lanes.values()) + self.stageout.ended
        few = n_boxes <= MOST_BOXES
        current = {client: sent_at for client, sent_at in self._open.values()}
        lanes = [
            {
                "name": f"process {client}" if client else "payload",
                "ended": lane.ended,
                "failed": lane.failed,
                "busy_s": round(lane.busy_s, 1),
                "now": round(max(current[client], lane.free_at) - start, 2)
                if client in current
                else None,
                **self._content(f"lane {client}", lane, start, few=few),
            }
            for client, lane in sorted(self._lanes.items())
        ]
        waiting = min(self._archives.values(), default=None)
        stageout = {
            "name": "stage-out",
            "ended": self.stageout.ended,
            "failed": 0,
            "busy_s": 0,
            "now": None if waiting is None else round(waiting - start, 2),
            **self._content("stage-out", self.stageout, start, few=few),
        }
        return {
            "from": start,
            "width_s": width_s,
            "lanes": [*lanes, stageout],
            "dropped": self.dropped,
        }

    def _content(self, series: str, lane: Lane, start: float, *, few: bool) -> dict[str, Any]:
        if few:
            boxes = [(round(a - start, 2), round(b - start, 2), how) for a, b, how in lane.boxes]
            return {"boxes": boxes}
        sums = self._history.series.get(series, [])
        width_s = self._history.width_s
        return {"bins": "".join(str(min(9, round(9 * s / width_s))) for s in sums)}

    def _lane(self, client: int) -> Lane:
        lane = self._lanes.get(client)
        if lane is None:
            lane = self._lanes[client] = Lane()
            if len(self._lanes) > MOST_LANES:
                oldest, _ = self._lanes.popitem(last=False)
                self._history.forget(f"lane {oldest}")
                self.dropped += 1
        self._lanes.move_to_end(client)
        return lane
