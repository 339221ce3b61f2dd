"""Files by which a factory's wrapper sees that its pilot lives: the log, and the ids of its jobs.

Only the supervisor's loop writes them, when it has looked at everything: a loop that stands still
lets the log grow old, and the wrapper ends the pilot.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from espilot.logs import Log
from espilot.supervisor.outcome import Snapshot

EVERY_S = 60.0
"""Far below the 600 s that a wrapper's supervisor may be given."""


class Liveness:
    """Shown the run once a second. A path that is None is not written."""

    def __init__(self, pilot_log: Path | None, ids: Path | None, log: Log | None = None) -> None:
        self._pilot_log = pilot_log
        self._ids = ids
        self._log = log
        self._shown: tuple[object, ...] = ()
        self._job = 0
        self._due = 0.0
        self._warned = False

    def show(self, snapshot: Snapshot) -> None:
        """A line when something has changed, and once a minute; the id of each new job."""
        if snapshot.panda_id not in (0, self._job):
            self._job = snapshot.panda_id
            self._append(self._ids, f"{self._job}\n")
        drain = snapshot.drain.get("draining", "")
        shown = (snapshot.panda_id, snapshot.phase, snapshot.storage, drain)
        if shown != self._shown or time.monotonic() >= self._due:
            self._shown = shown
            self.say(describe(snapshot))

    def say(self, text: str) -> None:
        """One line for the wrapper's log file."""
        self._due = time.monotonic() + EVERY_S
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._append(self._pilot_log, f"{stamp} {text}\n")

    def _append(self, path: Path | None, text: str) -> None:
        """Add a line; on a full disk at least the time of the file says that we live."""
        if path is None:
            return
        try:
            with path.open("a") as file:
                file.write(text)
        except OSError as error:
            self._warn(path, error)
            self._touch(path)

    def _touch(self, path: Path) -> None:
        try:
            os.utime(path)
        except OSError as error:
            self._warn(path, error)

    def _warn(self, path: Path, error: OSError) -> None:
        if self._log is not None and not self._warned:
            self._warned = True
            self._log.warning("state", "cannot be written", path=path, error=error.strerror)


def describe(snapshot: Snapshot) -> str:
    """How the run stands, in one line."""
    counts, drain = snapshot.counts, snapshot.drain.get("draining", "")
    job = f"job {snapshot.panda_id} {snapshot.phase}" if snapshot.panda_id else "no job"
    text = (
        f"alive: {job}, ranges ready {counts.ready}, in work {counts.sent}, "
        f"made {counts.done + counts.packed}, safe {counts.staged}, finished {counts.finished}, "
        f"failed {counts.failed_total + counts.fatal_total}, storage {snapshot.storage}"
    )
    return f"{text}, draining: {drain}" if drain else text
