"""Looks at everything that may tell an end: wall time, features, drain file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from espilot.adapters.machine_features import read_features, read_small_file, remove_file
from espilot.core import deadline
from espilot.core.deadline import Deadline, Deadlines
from espilot.core.slot import CPU_KEY, Slot, cpu_left_s, read_slot
from espilot.errors import UsageError
from espilot.logs import Log
from espilot.wire.messages import Alive
from espilot.workers.context import Context

WALL, SIGNAL, REQUEST, FILE = "wall-time", "signal", "request", "drain-file"
CREDENTIAL, CREDENTIAL_ENDS = "credential", "credential_ends"


class DeadlineWatch:
    """The deadlines of this run. `look` is called about once a second."""

    def __init__(
        self, context: Context, log: Log, cpu_used_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._log = log
        self._cpu_used_s, self._cores = cpu_used_s, context.settings.payload.cores
        self._slot = Slot()
        self._deadlines = Deadlines()
        self._started_unix = time.time()
        self._features_due = 0.0
        self._feature_sources: set[str] = set()
        self._warned: set[str] = set()
        self._file, self._file_is_ours = drain_file(context)
        self._file_text: str | None = None
        wall_s = context.settings.limits.wall_s
        if wall_s:
            at_mono = time.monotonic() + wall_s
            text = f"the wall time of {wall_s:g} s"
            self._deadlines.order(Deadline(WALL, at_mono, text, is_duration=True))
        # Before the first job is asked for.
        self._look_at_features(time.monotonic())

    def earliest(self) -> Deadline | None:
        """The one that counts."""
        return self._deadlines.earliest()

    def order(self, source: str, left_s: float, text: str) -> None:
        """A signal or a request: over in so many seconds."""
        at_mono = time.monotonic() + left_s
        self._deadlines.order(Deadline(source, at_mono, text, is_duration=True))

    def suspended(self, gap_s: float) -> None:
        """The machine slept: durations go on; what is a time of the outer world is read again."""
        self._deadlines.suspended(gap_s)
        self._features_due = 0.0

    def look(self, now: float) -> str:
        """Look what is due; returns why a drain shall begin at once, or ""."""
        if now >= self._features_due:
            self._look_at_features(now)
        self._look_at_cpu(now)
        return self._look_at_file(now)

    def heard(self, alive: Alive) -> None:
        """A worker may tell until when the credential that it shows the server is good."""
        if CREDENTIAL_ENDS in alive.facts:
            at_unix = alive.facts[CREDENTIAL_ENDS]
            self._follow(CREDENTIAL, at_unix, "the end of the credential", time.monotonic())

    def _follow(self, source: str, at_unix: float | None, text: str, now: float) -> None:
        at_mono = None if at_unix is None else now + at_unix - time.time()
        notice = None if at_mono is None else Deadline(source, at_mono, text)
        self._deadlines.notice(source, notice)

    def _look_at_features(self, now: float) -> None:
        machine = read_features(os.environ.get("MACHINEFEATURES", ""))
        job = read_features(os.environ.get("JOBFEATURES", ""))
        self._features_due = now + deadline.look_again_s(machine, job)
        notices = deadline.read_features(machine, job, started_unix=self._started_unix)
        self._slot = read_slot(job)
        for warning in (*notices.warnings, *self._slot.warnings):
            self._warn(warning)
        for source in self._feature_sources - set(notices.ends_unix):
            self._deadlines.notice(source, None)
        self._feature_sources = set(notices.ends_unix)
        for source, at_unix in notices.ends_unix.items():
            self._follow(source, at_unix, f"{source} of the machine or job features", now)

    def _look_at_cpu(self, now: float) -> None:
        left_s = cpu_left_s(self._slot, self._cpu_used_s(), self._cores)
        text = f"the CPU time of {self._slot.cpu_s:g} s of the job features"
        notice = None if left_s is None else Deadline(CPU_KEY, now + left_s, text)
        self._deadlines.notice(CPU_KEY, notice)

    def _look_at_file(self, now: float) -> str:
        text = read_small_file(self._file)
        if text is None or text == self._file_text:
            return ""
        self._file_text = text
        try:
            left_s = deadline.read_left(text, time.time())
        except UsageError as error:
            self._warn(f"{self._file}: {error}")
            left_s = None
        if left_s is not None:
            self._deadlines.order(Deadline(FILE, now + left_s, str(self._file)))
        if self._file_is_ours:
            # The next run in this work directory is not to be drained by it.
            remove_file(self._file)
        return f"drain file {self._file}"

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._log.warning("deadline", text)


def drain_file(context: Context) -> tuple[Path, bool]:
    """The drain file, and whether it is in our own work directory."""
    configured = context.settings.drain.file
    return (Path(configured), False) if configured else (context.workdir / "drain", True)
