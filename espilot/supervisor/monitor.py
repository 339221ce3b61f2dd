"""Samples of the payload and the work directory, judged by the rules in `core/`."""

from __future__ import annotations

import time

from espilot.adapters.disk import SizeWalker, file_size
from espilot.core import limits
from espilot.core.hang import HangClock
from espilot.errors import LocalError
from espilot.logs import Log
from espilot.model import Counts, Verdict
from espilot.supervisor.payload import PayloadProcess
from espilot.workers.context import Context

TREE_EVERY_S = 5.0
WALK_ENTRIES = 5000
"""Directory entries looked at per second: a million files must not stall anything."""
LINGERING = 1227
"""Pilot error code of an event payload that hangs at its end."""


class Monitor:
    """Looks once a second; each look costs little."""

    def __init__(self, context: Context, log: Log) -> None:
        self._context = context
        self._settings = context.settings
        self._log = log
        storage = context.private[3:]
        self._walker = SizeWalker(context.workdir, exclude=storage)
        self._started = time.monotonic()
        self._suspended_s = 0.0
        self._hang: HangClock | None = None
        self._next_tree = 0.0
        self._idle_since: float | None = None
        self._seen: tuple[str, Counts] | None = None
        self._seen_mono = 0.0

    def suspended(self, gap_s: float) -> None:
        """The machine slept: no clock of ours ran."""
        self._suspended_s += gap_s
        self._started += gap_s
        self._seen_mono += gap_s
        if self._idle_since is not None:
            self._idle_since += gap_s

    def payload_started(self) -> None:
        """A new start has new clocks."""
        self._hang = HangClock(self._settings.payload.hang_s)
        self._next_tree = 0.0
        self._idle_since = None

    def look(
        self, payload: PayloadProcess | None, *, last_message_mono: float, now: float
    ) -> Verdict | None:
        """Measure what is due; the first verdict found."""
        verdict = self._look_at_run(now) or self._look_at_workdir()
        if verdict is None and payload is not None:
            verdict = self._look_at_logs(payload)
            if verdict is None and now >= self._next_tree:
                self._next_tree = now + TREE_EVERY_S
                verdict = self._look_at_tree(payload, last_message_mono, now)
        return verdict

    def look_at_end(self, counts: Counts, phase: str, now: float) -> Verdict | None:
        """A payload that heard *no more* and has no range in hand must end."""
        grace_s = self._settings.payload.exit_grace_s
        if phase != "exhausted" or counts.ready or counts.sent:
            self._idle_since = None
            return None
        if self._idle_since is None:
            self._idle_since = now
        waited = now - self._idle_since
        if waited <= grace_s:
            return None
        text = f"the payload lives {waited:.0f} s after its last range, the limit is {grace_s:g} s"
        return Verdict("payload-end", waited, grace_s, "end-payload", LINGERING, text)

    def hopeless_end(self, counts: Counts, phase: str, *, no_storage: bool, now: float) -> str:
        """Why the end of the job is not waited for any longer; "" when it is."""
        unshipped = counts.packed and counts.packed == counts.live
        if phase == "settling" and unshipped and no_storage:
            return (
                f"{counts.packed} ranges are in archives that the storage does not take; they are "
                f"kept in {self._context.archives}, run again to ship them"
            )
        seen, limit_s = (phase, counts), self._settings.limits.settle_s
        if phase not in ("settling", "ending") or seen != self._seen:
            self._seen, self._seen_mono = seen, now
        if now - self._seen_mono <= limit_s:
            return ""
        return (
            f"the end of the job has made no progress for {now - self._seen_mono:.0f} s, "
            f"the limit is {limit_s:g} s; run again to go on"
        )

    def _look_at_run(self, now: float) -> Verdict | None:
        return limits.wall_time(now - self._started, self._settings.limits.wall_s)

    def _look_at_workdir(self) -> Verdict | None:
        if not self._walker.step(WALK_ENTRIES) or self._walker.result is None:
            return None
        result = self._walker.result
        for error in result.errors:
            self._log.warning("verdict", "work directory not fully measured", error=error)
        return limits.work_dir(result.size_bytes, self._settings.limits.workdir_bytes)

    def _look_at_logs(self, payload: PayloadProcess) -> Verdict | None:
        for path in payload.logs():
            try:
                size_bytes = file_size(path)
            except LocalError as error:
                self._log.warning("verdict", "payload log not measured", error=error)
                continue
            limit_bytes = self._settings.payload.stdout_limit_bytes
            verdict = limits.payload_log(path.name, size_bytes or 0, limit_bytes)
            if verdict is not None:
                return verdict
        return None

    def _look_at_tree(
        self, payload: PayloadProcess, last_message_mono: float, now: float
    ) -> Verdict | None:
        assert self._hang is not None
        return self._hang.observe(
            now,
            last_message_mono=last_message_mono,
            cpu_s=payload.sample().cpu_s,
            suspended_s=self._suspended_s,
        )
