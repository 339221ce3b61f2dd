"""The final update of an event job waits for its log archive, but not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from espilot.adapters.state_files import read_log_fate
from espilot.core.job import without_log
from espilot.model import Job, JobUpdate, LogFate
from espilot.wire.messages import Work
from espilot.workers.child import BEAT_S, Child
from espilot.workers.job_log import log_wanted


class LogWait:
    """Looks into the state directory; `look` has it asked again at the end of the wait.

    The worker asks at each beat, and when the stage-out worker rings.
    """

    def __init__(self, child: Child, look: Callable[[], None]) -> None:
        self._child = child
        self._look = look
        self._since: float | None = None

    def fate_of(self, job: Job, work: Work) -> LogFate | None:
        """What became of the log archive; None while it is still waited for."""
        nothing = LogFate(job.panda_id, job.attempt_nr)
        if not log_wanted(self._child.context, job):
            return nothing
        fate = read_log_fate(self._child.context.log_fate_file, job)
        if fate is None and self._over(work):
            fate = replace(nothing, lost="there was no time to ship it")
        if fate is not None:
            self._since = None
        return fate

    def _over(self, work: Work) -> bool:
        now = time.monotonic()
        if self._since is None:
            self._since = now
        settings = self._child.settings
        # Before the supervisor gives up a job that makes no progress.
        end = self._since + min(settings.stageout.log_wait_s, settings.limits.settle_s / 2)
        if work.final_by:
            end = min(end, work.final_by)
        if now < end < now + BEAT_S:
            self._child.loop.call_at(end, self._look)
        return now >= end


def with_log(update: JobUpdate, job: Job, fate: LogFate) -> JobUpdate:
    """The final update of an event job, with the only file of its output report."""
    if fate.lost:
        update = without_log(update, fate.lost)
    if not fate.entry:
        return update
    return replace(update, more={**update.more, "job_output_report": {job.log_lfn: fate.entry}})
