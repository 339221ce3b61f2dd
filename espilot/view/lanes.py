"""Who worked on what and when: a lane for each process of the payload, one for the stage-out.

A lane has boxes (one range or archive each) as long as they are few, and always the share of each
bin of time in which it was busy. A client may hold ranges ahead: the next one begins when it has
ended the one before. A client that works on several at once has several lanes: it is found out when
a range took longer, as the payload tells, than since the end of the one before.
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
MOST_AT_ONCE = 32
"""Lanes of one client."""
OVERLAP_SHARE = 0.1
"""So much of its time a range may seem to begin before the end of the one before: clocks differ."""


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
        self._lanes: OrderedDict[int, list[Lane]] = OrderedDict()
        self._open: dict[int, tuple[int, float]] = {}
        self.stageout = Lane()
        self._archives: OrderedDict[str, float] = OrderedDict()

    def begin(self, cell: int, client: int, t: float) -> None:
        """A range went to a client."""
        self._of(client)
        self._open[cell] = (client, t)

    def end(self, cell: int, t: float, how: str, wall_s: float | None = None) -> float | None:
        """It is no longer there; the seconds that it took, None when its begin is not known.

        `wall_s` is what the payload says that it took.
        """
        client, sent_at = self._open.pop(cell, (0, None))
        if sent_at is None or t < sent_at:
            return None
        lanes = self._of(client)
        at, begin = place(lanes, sent_at, t, wall_s)
        if at == len(lanes):
            lanes.append(Lane())
            self._drop_oldest()
        lane = lanes[at]
        begin = begin if begin <= t else sent_at
        lane.free_at = t
        lane.boxes.append((begin, t, how))
        lane.busy_s += t - begin
        lane.ended += 1
        lane.failed += how == "x"
        self._history.add_span(series_of(client, at), begin, t)
        return t - begin

    def running(self) -> list[tuple[int, float]]:
        """Cells in work and since when (Unix s), the longest first: of each client as many as it
        has lanes, those that it has held longest; the others are held ahead."""
        found = [(cell, since) for client in self._lanes for cell, since in self._work_of(client)]
        return sorted(found, key=lambda each: each[1])[:MOST_RUNNING]

    def _work_of(self, client: int) -> list[tuple[int, float]]:
        """Cells in work at a client and since when, in the order of its lanes' last ends."""
        held = sorted((t, cell) for cell, (who, t) in self._open.items() if who == client)
        ends = sorted(lane.free_at for lane in self._lanes[client])
        return [(cell, max(t, end)) for (t, cell), end in zip(held, ends, strict=False)]

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
        n_boxes = sum(lane.ended for lanes in self._lanes.values() for lane in lanes)
        few = n_boxes + self.stageout.ended <= MOST_BOXES
        lanes = [
            {
                "name": name_of(client, at, len(own)),
                "ended": lane.ended,
                "failed": lane.failed,
                "busy_s": round(lane.busy_s, 1),
                "now": None if since is None else round(since - start, 2),
                **self._content(series_of(client, at), lane, start, few=few),
            }
            for client, own in sorted(self._lanes.items())
            for at, (lane, since) in enumerate(zip(own, self._since(client), strict=True))
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

    def _since(self, client: int) -> list[float | None]:
        """Since when each lane of a client is at work now; None: it is not."""
        lanes = self._lanes[client]
        since: list[float | None] = [None] * len(lanes)
        order = sorted(range(len(lanes)), key=lambda at: lanes[at].free_at)
        for at, (_, begin) in zip(order, self._work_of(client), strict=False):
            since[at] = begin
        return since

    def _content(self, series: str, lane: Lane, start: float, *, few: bool) -> dict[str, Any]:
        if few:
            boxes = [(round(a - start, 2), round(b - start, 2), how) for a, b, how in lane.boxes]
            return {"boxes": boxes}
        sums = self._history.series.get(series, [])
        width_s = self._history.width_s
        return {"bins": "".join(str(min(9, round(9 * s / width_s))) for s in sums)}

    def _of(self, client: int) -> list[Lane]:
        lanes = self._lanes.get(client)
        if lanes is None:
            lanes = self._lanes[client] = [Lane()]
            self._drop_oldest()
        self._lanes.move_to_end(client)
        return lanes

    def _drop_oldest(self) -> None:
        while len(self._lanes) > 1 and sum(map(len, self._lanes.values())) > MOST_LANES:
            oldest, lanes = self._lanes.popitem(last=False)
            for at in range(len(lanes)):
                self._history.forget(series_of(oldest, at))
            self.dropped += 1


def place(lanes: list[Lane], sent_at: float, t: float, wall_s: float | None) -> tuple[int, float]:
    """The lane of a range that ended at `t`, and when it began there; one more lane than there are
    when it overlaps what is on all of them."""
    free = min(range(len(lanes)), key=lambda at: lanes[at].free_at)
    begin = max(sent_at, lanes[free].free_at)
    told = begin if wall_s is None else max(sent_at, t - wall_s)
    if wall_s is None and len(lanes) > 1:
        told = sent_at  # who works on several at once holds none ahead
    slack_s = OVERLAP_SHARE * (t - told)
    if told + slack_s < begin and wall_s is not None:
        return (len(lanes), told) if len(lanes) < MOST_AT_ONCE else (free, begin)
    fitting = [at for at, lane in enumerate(lanes) if lane.free_at <= told + slack_s]
    if len(lanes) == 1 or not fitting:
        return free, begin
    best = max(fitting, key=lambda at: lanes[at].free_at)
    return best, max(told, lanes[best].free_at)


def series_of(client: int, at: int) -> str:
    """The name of a lane's series in the history."""
    return f"lane {client}/{at}" if at else f"lane {client}"


def name_of(client: int, at: int, lanes: int) -> str:
    """What people call a lane."""
    name = f"process {client}" if client else "payload"
    return f"{name} #{at + 1}" if lanes > 1 else name
