"""Looks at a pilot again and again, alive or dead, for the page, `top` and the report."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from espilot.adapters.story import NAME, StoryReader
from espilot.errors import LocalError, UsageError
from espilot.model import RangeState
from espilot.queue.reading import QueueReader
from espilot.supervisor.observation import observe
from espilot.supervisor.resume import read_run
from espilot.view.cells import IN_QUEUE, STATES
from espilot.view.chronicle import Chronicle
from espilot.view.page import ROWS_AT_ONCE, frozen_rows, number, policy, render, rows
from espilot.view.page_document import changes, document
from espilot.view.snapshot import Snapshot

FRESH_S = 0.5
"""Who looks again within that time sees the same."""
LOG_BYTES = 512 << 10
LOG_LINES = 60
LETTERS = {RangeState(state.name): state.letter for state in STATES if state.name in IN_QUEUE}


class PilotWatch:
    """A pilot by its state directory; looking changes nothing of it."""

    def __init__(self, state: Path) -> None:
        self.chronicle = Chronicle()
        self._state = state
        self._story = StoryReader(state / NAME)
        self._lock = threading.Lock()
        self._looked = -FRESH_S
        self._document: dict[str, Any] = {}
        self._run = read_run(state).get("run")

    def close(self) -> None:
        """Let go of the story."""
        with self._lock:
            self._story.close()

    def read(self) -> Snapshot:
        """Take what has happened; how the pilot stands. `LocalError` when nothing can be read."""
        snapshot = observe(self._state, now=time.time())
        self._follow_run()
        try:
            while lines := self._story.read():
                self.chronicle.take(lines)
        except OSError as error:
            text = f"cannot read the story in {self._state}: {error.strerror}"
            raise LocalError(text) from error
        if not snapshot.running:
            self.chronicle.settle()
            self.chronicle.reconcile(read_queue(self._state), snapshot.counts.finished)
        return snapshot

    def _follow_run(self) -> None:
        """Where another run has begun, its story is another one."""
        run = read_run(self._state).get("run")
        if run != self._run:
            self._run = run
            self._story.close()
            self._story, self.chronicle = StoryReader(self._state / NAME), Chronicle()

    def look(self) -> Mapping[str, Any]:
        """The present document; no newer one within half a second."""
        with self._lock:
            if time.monotonic() - self._looked >= FRESH_S:
                snapshot = self.read()
                began = read_run(self._state).get("began")
                since = float(began) if isinstance(began, int | float) else 0.0
                log = read_warnings(Path(snapshot.places.log), since)
                self._document = document(snapshot, self.chronicle, log)
                self._looked = time.monotonic()
            return self._document

    def changes(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
        """What has changed between two documents."""
        return {} if old is new else changes(old, new)

    def rows(self, query: Mapping[str, str]) -> list[Any]:
        """Rows of the map: `from`, `state` (its letter) and `most` of the query."""
        start, most = number(query.get("from")), number(query.get("most")) or ROWS_AT_ONCE
        with self._lock:
            return rows(
                self.chronicle.cells, start, query.get("state", ""), min(most, ROWS_AT_ONCE)
            )

    def html(self) -> str:
        """The live page."""
        return render()

    def policy(self) -> str:
        """Its content security policy."""
        return policy()

    def report(self) -> str:
        """The page as it is now, frozen."""
        shown = self.look()
        return render({"document": shown, "rows": frozen_rows(self.chronicle.cells)})


def read_queue(state: Path) -> Mapping[str, str]:
    """Letters of the map for the ranges in the queue; none when there is no queue."""
    try:
        with closing(QueueReader(state / "queue")) as queue:
            return {range_id: LETTERS[each] for range_id, each in queue.states().items()}
    except UsageError:
        return {}


def read_warnings(log: Path, since: float = 0.0) -> list[str]:
    """The last warnings and errors of a pilot's log since a Unix time; none when it cannot be
    read."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            text = file.read(LOG_BYTES).decode(errors="replace")
    except OSError:
        return []
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since))
    lines = [line for line in text.splitlines() if is_serious(line) and line >= stamp]
    return lines[-LOG_LINES:]


def is_serious(line: str) -> bool:
    """Whether a line of the log is a warning or an error: its second word says so."""
    words = line.split(" ", 2)
    return len(words) > 2 and words[1] in ("warning", "error", "critical")
