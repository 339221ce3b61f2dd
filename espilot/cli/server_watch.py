"""The built-in server as a source of the live page."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espilot.server.overview import read_overview, read_range_rows
from espilot.view.cells import MOST_CELLS
from espilot.view.page import ROWS_AT_ONCE, number, policy, render
from espilot.view.page_document import changes
from espilot.view.server_page import ServerPage, range_row

FRESH_S = 1.0
REST = 10.0
"""Reading takes at most one part in so many of the time: the server comes first."""


class ServerWatch:
    """Looks at the server's database with a connection of its own."""

    def __init__(self, db: Path, *, lost_after_s: float) -> None:
        self.page = ServerPage("not listening yet")
        self._db = db
        self._lost_after_s = lost_after_s
        self._lock = threading.Lock()
        self._next_look = 0.0
        self._document: Mapping[str, Any] = {}

    def look(self) -> Mapping[str, Any]:
        """The present document; not newer than a second, and older when reading takes long."""
        with self._lock:
            began = time.monotonic()
            if began >= self._next_look:
                o = read_overview(self._db, most=MOST_CELLS)
                self._document = self.page.document(
                    o.tasks, o.jobs, o.storages, o.letters,
                    now=time.time(), lost_after_s=self._lost_after_s,
                )  # fmt: skip
                now = time.monotonic()
                self._next_look = now + max(FRESH_S, REST * (now - began))
            return self._document

    def changes(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
        """What has changed between two documents."""
        return {} if old is new else changes(old, new)

    def rows(self, query: Mapping[str, str]) -> list[Any]:
        """Rows of the map: `from`, `state` (its letter) and `most` of the query."""
        start, most = number(query.get("from")), number(query.get("most")) or ROWS_AT_ONCE
        found = read_range_rows(self._db, start, min(most, ROWS_AT_ONCE), query.get("state", ""))
        return [range_row(event) for event in found]

    def html(self) -> str:
        """The live page."""
        return render()

    def policy(self) -> str:
        """Its content security policy."""
        return policy()
