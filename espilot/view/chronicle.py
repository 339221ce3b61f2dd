"""A run as its story tells it: map of ranges, a lane for each worker, sums over time.

Lines of the story come in the order of writing, not of time: what is told late never undoes what
is known to have happened later. Everything kept is bounded, but for the map (`MOST_CELLS`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any

from espilot.view.cells import (
    BACK,
    DONE,
    FAILED,
    FATAL,
    PACKED,
    READY,
    REDONE,
    REPORTED,
    SENT,
    STAGED,
    Cells,
)
from espilot.view.explanation import own_facts
from espilot.view.history import History
from espilot.view.lanes import Lanes

Line = Mapping[str, Any]
MOST_EARLY = 10_000
RECENT = 500
LAST_MARKS = 40


class Chronicle:
    """Takes lines of a story; what it holds is for the page, `top` and the report."""

    def __init__(self) -> None:
        self.cells = Cells()
        self.history = History()
        self.lanes = Lanes(self.history)
        self.marks: deque[tuple[float, str, str]] = deque(maxlen=LAST_MARKS)
        self.storages: Counter[str] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()
        self.example: dict[tuple[str, str], str] = {}
        self.starts = self.returned = self.undecided = 0
        self.first_t = self.last_t = self.last_outcome = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._early: dict[str, list[Line]] = {}
        self._n_early = 0

    @property
    def median_s(self) -> float | None:
        """What a range took lately; None before the first one."""
        return median(self._recent) if self._recent else None

    def take(self, lines: Iterable[Line]) -> None:
        """Take the next lines."""
        for line in sorted(lines, key=lambda each: float(each["t"])):
            t = float(line["t"])
            if not self.first_t:
                self.first_t = t
                self.history.add("made", t, 0.0)  # time begins here, not with the first outcome
            self.last_t = max(self.last_t, t)
            self._take(line, t)
        if self._n_early > MOST_EARLY:
            self.settle()

    def settle(self) -> None:
        """What was told of ranges whose beginning is not in the story gets cells of their own."""
        early, self._early, self._n_early = self._early, {}, 0
        for range_id, lines in early.items():
            cell = self.cells.place(range_id, 0, 0, "")
            for line in lines if cell is not None else ():
                self._apply(range_id, line)

    def reconcile(self, live: Mapping[str, str], finished: int) -> None:
        """Correct what a killed pilot could not tell any more: `live` are letters by range id.

        What was made and is no longer in the queue has left it with its report; so has what was
        in work, as far as `finished` ranges are known to be reported.
        """
        missing = finished - self.cells.count(REPORTED)
        letters, ids = self.cells.letters, self.cells.ids
        for cell, letter in enumerate(letters):
            state = letter | REDONE
            if state in OVER:
                continue
            known = live.get(ids[cell])
            if known is not None:
                self.cells.move(cell, ord(known), self.last_t)
            elif state in MADE or (state == SENT and missing > 0):
                self.cells.move(cell, REPORTED, self.last_t)
                missing -= 1

    def _take(self, line: Line, t: float) -> None:
        what = str(line["what"])
        note = NOTES.get(what)
        if note is not None:
            note(self, line, t)
        elif what == "fetched":
            self._fetched(line, t)
        elif what in MOVES:
            for at, range_id in enumerate(line["ranges"]):
                self._apply(str(range_id), own_facts(line, at))
            if what == "staged":
                self._staged(line, t)

    def _apply(self, range_id: str, facts: Line) -> None:
        cell = self.cells.find(range_id)
        if cell is None:
            self._early.setdefault(range_id, []).append(facts)
            self._n_early += 1
            return
        MOVES[str(facts["what"])](self, cell, facts, float(facts["t"]))

    def _fetched(self, line: Line, t: float) -> None:
        for at, range_id in enumerate(map(str, line["ranges"])):
            facts = own_facts(line, at)
            first, last = first_and_last(facts.get("events"))
            cell = self.cells.place(range_id, first, last, str(facts.get("lfn") or ""))
            if cell is not None:
                self.cells.move(cell, READY, t)
            early = self._early.pop(range_id, ())
            self._n_early -= len(early)
            for each in early if cell is not None else ():
                self._apply(range_id, each)

    def _sent(self, cell: int, facts: Line, t: float) -> None:
        self.cells.move(cell, SENT, t)
        self.cells.sent_at[cell] = t
        client = facts.get("client")
        self.cells.clients[cell] = client if isinstance(client, int) else 0
        self.lanes.begin(cell, self.cells.clients[cell], t)

    def _done(self, cell: int, facts: Line, t: float) -> None:
        self.cells.move(cell, DONE, t)
        self.history.add("made", t)
        self.last_outcome = max(self.last_outcome, t)
        wall_s = facts.get("wall_s")
        wall_s = float(wall_s) if isinstance(wall_s, int | float) else None
        took_s = self.lanes.end(cell, t, "d", wall_s)
        if took_s is not None:
            self.cells.took_s[cell] = took_s
            self._recent.append(took_s)

    def _failed(self, cell: int, facts: Line, t: float) -> None:
        self.cells.move(cell, FATAL if facts["what"] == "fatal" else FAILED, t)
        self.last_outcome = max(self.last_outcome, t)
        self.lanes.end(cell, t, "x")
        self._why(cell, facts)
        self.history.add("failed", t)

    def _why(self, cell: int, facts: Line) -> None:
        diag = str(facts.get("diag") or facts.get("why") or "no reason was given")
        self.cells.diags[cell] = f"{diag} (code {facts.get('code', '?')})"
        key = (str(facts.get("code", "?")), diag)
        if key in self.failures or len(self.failures) < RECENT:
            self.failures[key] += 1
            self.example.setdefault(key, self.cells.ids[cell])

    def _returned(self, cell: int, facts: Line, t: float) -> None:
        self.returned += 1
        self.cells.mark_redone(cell)
        self.cells.move(cell, READY, t)
        self.lanes.end(cell, t, "r")

    def _given_back(self, cell: int, facts: Line, t: float) -> None:
        self.cells.move(cell, BACK, t)
        self.cells.diags[cell] = str(facts.get("why") or "")
        self.lanes.end(cell, t, "r")

    def _packed(self, cell: int, facts: Line, t: float) -> None:
        self.cells.move(cell, PACKED, t)
        self.cells.archives[cell] = str(facts.get("archive") or "")
        self.lanes.begin_archive(self.cells.archives[cell], t)

    def _dropped(self, cell: int, facts: Line, t: float) -> None:
        self.cells.move(cell, FAILED, t)
        self._why(cell, facts)

    def _staged_cell(self, cell: int, facts: Line, t: float) -> None:
        self.cells.move(cell, STAGED, t)

    def _reported(self, cell: int, facts: Line, t: float) -> None:
        letter = {"failed": FAILED, "fatal": FATAL}.get(str(facts.get("status")), REPORTED)
        self.cells.move(cell, letter, t)
        if letter == REPORTED:
            self.history.add("reported", t)

    def _staged(self, line: Line, t: float) -> None:
        size = line.get("size")
        size_bytes = size if isinstance(size, int) else 0
        self.storages[str(line.get("storage") or "?")] += size_bytes
        self.history.add("bytes", t, size_bytes)
        self.lanes.end_archive(str(line.get("archive") or ""), t)

    def _payload_started(self, line: Line, t: float) -> None:
        self.starts += 1
        self.marks.append((t, "start", f"payload started (start {line.get('epoch', '?')})"))

    def _payload_ended(self, line: Line, t: float) -> None:
        epoch, how = line.get("epoch", "?"), line.get("how", "?")
        self.marks.append((t, "end", f"payload of start {epoch} ended: {how}"))

    def _verdict(self, line: Line, t: float) -> None:
        rule, text = line.get("rule", "?"), line.get("text", "?")
        self.marks.append((t, "verdict", f"verdict by rule {rule}: {text}"))

    def _undecided(self, line: Line, t: float) -> None:
        self.undecided += len(line["ranges"])


OVER = frozenset({REPORTED, FAILED, FATAL, BACK})
MADE = frozenset({DONE, PACKED, STAGED})


def first_and_last(events: object) -> tuple[int, int]:
    """First and last event of a range; zeros when they are not told."""
    if isinstance(events, list) and len(events) == 2 and all(isinstance(e, int) for e in events):
        return events[0], events[1]
    return 0, 0


MOVES: Mapping[str, Callable[[Chronicle, int, Line, float], None]] = {
    "sent": Chronicle._sent,
    "done": Chronicle._done,
    "failed": Chronicle._failed,
    "fatal": Chronicle._failed,
    "returned": Chronicle._returned,
    "given-back": Chronicle._given_back,
    "packed": Chronicle._packed,
    "dropped": Chronicle._dropped,
    "staged": Chronicle._staged_cell,
    "reported": Chronicle._reported,
}
"""What concerns each range of a line."""
NOTES: Mapping[str, Callable[[Chronicle, Line, float], None]] = {
    "payload-started": Chronicle._payload_started,
    "payload-ended": Chronicle._payload_ended,
    "verdict": Chronicle._verdict,
    "undecided": Chronicle._undecided,
}
"""What concerns the run."""
