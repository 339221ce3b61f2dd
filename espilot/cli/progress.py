"""Progress of a run: one line that renews itself on a terminal, plain lines in a log."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from espilot.config import TaskConfig
from espilot.supervisor.outcome import Snapshot

LINE_EVERY_S = 5.0
WIDTH = 24


class Progress:
    """Shows snapshots as they come, at most one a second."""

    def __init__(self, task: TaskConfig, out: TextIO) -> None:
        self._task = task
        self._out = out
        self._terminal = out.isatty()
        self._total = task.total_ranges
        self._started = time.monotonic()
        self._last = ""
        self._next_line = 0.0

    def show(self, snapshot: Snapshot) -> None:
        """Show where the run is."""
        now = time.monotonic()
        text = self._line(snapshot, now - self._started)
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            self._out.write(f"\r{text[: columns - 1]}\x1b[K")
        elif now >= self._next_line and text != self._last:
            self._next_line = now + LINE_EVERY_S
            self._out.write(text + "\n")
        self._last = text
        self._out.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._terminal and self._last:
            self._out.write("\n")
            self._out.flush()

    def _line(self, snapshot: Snapshot, elapsed_s: float) -> str:
        c = snapshot.counts
        safe = c.finished + c.staged
        made = c.done + c.packed
        bar = "#" * (WIDTH * safe // self._total) if self._total else ""
        storage = "" if snapshot.storage == "ok" else f"  storage: {snapshot.storage}"
        failed = c.failed + c.failed_total + c.fatal + c.fatal_total
        return (
            f"{self._task.name} [{bar:.<{WIDTH}}] {safe}/{self._total} ranges safe, "
            f"{c.finished} reported, {made} to ship, {c.sent} in work"
            f"{f', {failed} failed' if failed else ''}  {elapsed_s:.0f} s{storage}"
        )
