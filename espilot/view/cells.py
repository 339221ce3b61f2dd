"""The map of ranges: one letter for each range of a task, wherever it is.

A cell is a piece of the input (file and first event), so a range that is done again, by another
attempt or job, keeps its cell. Cells are in the order in which the server handed them out first.
A capital letter says that the range was taken back or handed out again.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

MOST_CELLS = 250_000
"""More are counted, but not on the map."""


@dataclass(frozen=True, slots=True)
class CellState:
    """How a state looks: `glyph` for terminals, `tone` names its colour, `name` is for people."""

    letter: str
    glyph: str
    name: str
    tone: str
    meaning: str


STATES = (
    CellState("w", "·", "waiting", "idle", "at the server, not handed out to this pilot"),
    CellState("r", "○", "ready", "idle", "on this node, in nobody's hands"),
    CellState("s", "▸", "sent", "work", "in the hands of the payload"),
    CellState("d", "◐", "done", "risk", "its output is on this node only"),
    CellState("p", "◧", "packed", "risk", "its output is in an archive on this node only"),
    CellState("t", "◆", "staged", "safe", "on the storage, the server is to be told"),
    CellState("f", "●", "reported", "safe", "on the storage, and the server knows it"),
    CellState("x", "✗", "failed", "lost", "the payload could not process it"),
    CellState("z", "▼", "fatal", "lost", "it can never be processed"),
    CellState("b", "↩", "given back", "back", "the server's again"),
)
IN_QUEUE = frozenset({"ready", "sent", "done", "packed", "staged", "failed", "fatal"})
BY_LETTER = {state.letter: state for state in STATES}
WAITING, READY, SENT, DONE, PACKED, STAGED, REPORTED, FAILED, FATAL, BACK = (
    ord(state.letter) for state in STATES
)
REDONE = 0x20
"""The bit by which a capital differs."""


class Cells:
    """What is known of each cell; times are Unix seconds, 0: not known."""

    def __init__(self) -> None:
        self.letters = bytearray()
        self.ids: list[str] = []
        self.since = array("d")
        self.sent_at = array("d")
        self.took_s = array("d")
        self.clients = array("q")
        self.diags: dict[int, str] = {}
        self.archives: list[str] = []
        self._events: list[tuple[int, int, str]] = []
        self._by_id: dict[str, int] = {}
        self._by_place: dict[tuple[str, int], int] = {}
        self.beyond = 0

    def __len__(self) -> int:
        return len(self.letters)

    def find(self, range_id: str) -> int | None:
        """The cell that has this id now."""
        return self._by_id.get(range_id)

    def place(self, range_id: str, first: int, last: int, lfn: str) -> int | None:
        """The cell of these events, with its new id; None when the map is full."""
        cell = self._by_place.get((lfn, first)) if lfn else None
        if cell is None:
            cell = self._by_id.get(range_id)
        if cell is None:
            cell = self._new(range_id)
        if cell is None:
            return None
        if self.ids[cell] != range_id:
            self._by_id.pop(self.ids[cell], None)
            self.mark_redone(cell)
        self.ids[cell] = range_id
        self._by_id[range_id] = cell
        self._events[cell] = (first, last, lfn)
        if lfn:
            self._by_place[lfn, first] = cell
        return cell

    def _new(self, range_id: str) -> int | None:
        if len(self.letters) >= MOST_CELLS:
            self.beyond += 1
            return None
        self.letters.append(READY)
        self.ids.append(range_id)
        for each in (self.since, self.sent_at, self.took_s):
            each.append(0.0)
        self.clients.append(0)
        self.archives.append("")
        self._events.append((0, 0, ""))
        return len(self.letters) - 1

    def move(self, cell: int, letter: int, t: float) -> None:
        """Put the cell into a state, unless something later is known of it."""
        if t >= self.since[cell]:
            self.since[cell] = t
            redone = not self.letters[cell] & REDONE
            self.letters[cell] = letter & ~REDONE if redone else letter

    def mark_redone(self, cell: int) -> None:
        """It was not done in one go."""
        self.letters[cell] &= ~REDONE & 0xFF

    def count(self, letter: int) -> int:
        """How many cells are in a state."""
        return self.letters.count(letter) + self.letters.count(letter & ~REDONE)

    def row(self, cell: int) -> dict[str, Any]:
        """All of one cell, for people."""
        first, last, lfn = self._events[cell]
        letter = chr(self.letters[cell])
        return {
            "n": cell,
            "id": self.ids[cell],
            "first": first,
            "last": last,
            "lfn": lfn,
            "state": BY_LETTER[letter.lower()].name,
            "redone": letter.isupper(),
            "since": round(self.since[cell], 3),
            "took_s": round(self.took_s[cell], 3),
            "client": self.clients[cell],
            "archive": self.archives[cell],
            "diag": self.diags.get(cell, ""),
        }


def count_states(letters: bytes, waiting: int = 0) -> dict[str, int]:
    """How many cells are in each state, by letter; `waiting` are not handed out."""
    counts = {
        state.letter: letters.count(state.letter.encode())
        + letters.count(state.letter.upper().encode())
        for state in STATES
    }
    counts["w"] += max(0, waiting)
    return counts
