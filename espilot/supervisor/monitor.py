"""Samples of the payload and the node, judged by the rules in `core/`.

The monitor asks for measurements and asks the rules; it neither measures nor decides. The last
verdicts are kept, for status.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from espilot.adapters import cgroup
from espilot.adapters.background import Background
from espilot.adapters.disk import LargestFile
from espilot.adapters.machine_features import read_features
from espilot.adapters.state_files import read_job
from espilot.config import Settings
from espilot.core import limits, memory, space
from espilot.core.hang import HangClock
from espilot.core.looping import LoopingClock, declared_limit
from espilot.core.slot import Slot, read_slot, smaller
from espilot.core.usage import UsageTally
from espilot.logs import Log
from espilot.model import Counts, Verdict
from espilot.supervisor.payload import PayloadProcess
from espilot.supervisor.payload_group import PayloadGroup
from espilot.supervisor.survey import DiskSurvey, DiskView, PayloadFiles, TreeSurvey, TreeView
from espilot.workers.context import Context

TREE_EVERY_S = 5.0
STUCK_S = 60.0
"""A measurement that takes so long is told: something in the node hangs."""
VERDICTS_KEPT = 20
KEEP_LOG_BYTES = 16 * 2**20
"""Of a log that is cut, so much of its head and of its tail is kept, at most."""
LINGERING = 1227
"""Pilot error code of an event payload that hangs at its end."""


class Monitor:
    """Looks once a second; the supervisor never waits for a measurement."""

    def __init__(self, context: Context, log: Log) -> None:
        self._context = context
        self._limits, self._rules = context.settings.limits, context.settings.payload
        self._log = log
        self.verdicts: deque[tuple[float, Verdict]] = deque(maxlen=VERDICTS_KEPT)
        self.gate = space.SpaceGate(self._limits.free_bytes)
        self.usage = UsageTally()
        storage = context.private[3:]
        self._disk_survey = DiskSurvey(context.workdir, storage)
        self._disk: Background[DiskView] = Background("disk-survey")
        self._tree: Background[tuple[int, TreeView]] = Background("tree-survey")
        self._groups = cgroup.own_groups()
        self._group = cgroup.read_memory(self._groups)
        self._tree_survey: TreeSurvey | None = None
        self._own: PayloadGroup | None = None
        self._epoch = 0
        self._pids: tuple[int, ...] = ()
        self._hang: HangClock | None = None
        self._looping: LoopingClock | None = None
        self._next_tree = 0.0
        self._to_cut: list[Path] = []
        self._former_largest: LargestFile | None = None
        self._told: dict[str, float] = {}
        self._suspended_s = 0.0
        self._idle_since: float | None = None
        self._outcomes, self._outcome_mono = -1, 0.0
        self._seen: tuple[str, Counts] | None = None
        self._seen_mono = 0.0
        self._slot, self._memory_bytes = Slot(), self._limits.memory_bytes

    def take(self, settings: Settings) -> None:
        """Other limits count from now on."""
        self._limits, self._rules = settings.limits, settings.payload
        self._limit_group()

    def close(self) -> None:
        """End the threads; one that hangs is left behind."""
        if self._disk.close():
            self._disk_survey.close()
        self._tree.close()

    def record(self, verdict: Verdict) -> None:
        """Tell a verdict, and keep it."""
        self.verdicts.append((time.time(), verdict))
        self._log.error("verdict", verdict.text, rule=verdict.rule, value=verdict.value,
                        limit=verdict.limit, do=verdict.action, code=verdict.code)  # fmt: skip

    def resources(self) -> dict[str, Any]:
        """What the payload has used so far, for status and metrics."""
        return self.usage.totals.as_dict()

    def present(self) -> dict[str, Any]:
        """What the payload and the work directory have now, for metrics."""
        rss, pss = self.usage.now
        totals = self.usage.totals
        return {
            "rss": rss,
            "pss": pss,
            "peak": totals.max_pss_bytes or totals.max_rss_bytes,
            "limit": self._memory_bytes,
            "workdir": self.usage.workdir_bytes,
            "efficiency": self.usage.efficiency(self._rules.cores),
        }

    def suspended(self, gap_s: float) -> None:
        """The machine slept: no clock of ours ran."""
        self._suspended_s += gap_s
        self._seen_mono += gap_s
        self._outcome_mono += gap_s
        self.usage.pause()
        if self._looping is not None:
            self._looping.suspended(gap_s)
        if self._idle_since is not None:
            self._idle_since += gap_s

    def payload_started(self, kind: str = "event", own: PayloadGroup | None = None) -> None:
        """A new start has new clocks. That of a job without ranges says nothing, but writes."""
        is_event = kind == "event"
        self._hang = HangClock(self._rules.hang_s) if is_event else None
        self._looping = None
        self._next_tree = 0.0
        self._idle_since = None
        self._tree_survey = None
        self._epoch += 1
        self._pids = ()
        self._to_cut.clear()
        self._former_largest = None
        self._outcomes = -1
        self.usage.payload_started()
        self._own = own
        self._look_at_job(is_event)
        self._limit_group()

    def cpu_s(self) -> float:
        """CPU time of the payload, over all its starts."""
        return self.usage.totals.cpu_s

    def _look_at_job(self, is_event: bool) -> None:
        """The limits of this start: the job's own, and those of the slot, each that is there."""
        self._slot = read_slot(read_features(os.environ.get("JOBFEATURES", "")))
        limit_bytes, cores = self._limits.memory_bytes, self._rules.cores
        job = None if is_event else read_job(self._context.job_file)
        if not is_event:
            hang_s = declared_limit(job.definition if job else {}, self._rules.hang_s)
            self._looping = LoopingClock(time.time(), hang_s)
        if job is not None:
            # It has cores of its own choice; an event job's payload has all.
            limit_bytes = memory.scaled_limit(limit_bytes, job.core_count, cores)
        self._memory_bytes = smaller(limit_bytes, self._slot.rss_bytes)

    def _limit_group(self) -> None:
        if self._own is not None:
            self._own.limit(self._memory_bytes, self._limits.processes)

    def look(
        self,
        payload: PayloadProcess | None,
        counts: Counts,
        *,
        last_message_mono: float,
        now: float,
    ) -> Verdict | None:
        """Take what was measured, have the next measured; the first verdict found."""
        verdict, disk = None, self._disk.take()
        if disk is not None:
            verdict = self._judge_disk(disk, payload, counts)
        if payload is not None:
            verdict = self._look_at_payload(payload, counts, last_message_mono, now) or verdict
        self._measure(payload, now)
        return verdict

    def look_at_end(self, counts: Counts, phase: str, now: float) -> Verdict | None:
        """A payload that heard *no more* and has no range in hand must end."""
        grace_s = self._rules.exit_grace_s
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
        seen, limit_s = (phase, counts), self._limits.settle_s
        if phase not in ("settling", "ending") or seen != self._seen:
            self._seen, self._seen_mono = seen, now
        if now - self._seen_mono <= limit_s:
            return ""
        return (
            f"the end of the job has made no progress for {now - self._seen_mono:.0f} s, "
            f"the limit is {limit_s:g} s; run again to go on"
        )

    # -- measuring ------------------------------------------------------------------------------

    def _measure(self, payload: PayloadProcess | None, now: float) -> None:
        files = None
        if payload is not None:
            files = PayloadFiles(payload.directory, tuple(payload.logs()), self._pids)
            if now >= self._next_tree and self._start_tree(payload):
                self._next_tree = now + TREE_EVERY_S
        cut = tuple(self._to_cut)
        if self._disk.start(lambda: self._disk_survey.look(files, cut, self._keep_bytes)):
            self._to_cut.clear()
        for what, thread in (("disk", self._disk), ("processes", self._tree)):
            if thread.busy_s(now) > STUCK_S:
                self._warn(f"{what} not measured", f"{thread.busy_s(now):.0f} s without an answer")

    def _start_tree(self, payload: PayloadProcess) -> bool:
        if self._tree_survey is None:
            plan = memory.PssPlan(self._limits.memory_every_s, self._memory_bytes)
            self._tree_survey = TreeSurvey(payload.child.pid, plan, self._groups, self._own)
        survey, epoch = self._tree_survey, self._epoch
        return self._tree.start(lambda: (epoch, survey.look()))

    @property
    def _keep_bytes(self) -> int:
        return min(KEEP_LOG_BYTES, self._rules.stdout_limit_bytes // 8)

    def _warn(self, message: str, error: str) -> None:
        """The same complaint at most once a minute."""
        now = time.monotonic()
        if now - self._told.get(message, -STUCK_S) >= STUCK_S:
            self._told[message] = now
            self._log.warning("verdict", message, error=error)

    # -- asking the rules -----------------------------------------------------------------------

    def _judge_disk(
        self, disk: DiskView, payload: PayloadProcess | None, counts: Counts
    ) -> Verdict | None:
        for error in disk.errors[:1]:
            self._warn("disk not fully measured", error)
        for path, dropped_bytes in disk.cut:
            self._log.warning("verdict", "payload log cut", file=path.name, dropped=dropped_bytes)
        verdict = self._judge_space(disk.free_bytes, counts)
        if disk.walk is not None:
            used_bytes = disk.walk.size_bytes + disk.open_bytes
            self.usage.take_workdir(used_bytes)
            allowed = self._limits.workdir_bytes
            verdict = verdict or limits.work_dir(used_bytes, allowed, self._limits.workdir_grace)
            verdict = verdict or limits.work_dir(used_bytes, self._slot.scratch_bytes)
            if payload is not None:
                verdict = verdict or self._judge_growth(disk.walk.largest, payload.directory)
                if self._looping is not None:
                    newest = disk.walk.newest_change_at
                    verdict = verdict or self._looping.observe(time.time(), newest)
        return verdict or self._judge_logs(disk.logs)

    def _judge_space(self, free_bytes: int | None, counts: Counts) -> Verdict | None:
        if free_bytes is None:
            return None
        mean = counts.bytes / counts.finished if counts.finished else 0.0
        largest = self._context.settings.packing.max_bytes
        needed_bytes = space.needed_bytes(counts.sent, counts.done, mean, largest)
        change = self.gate.observe(free_bytes, needed_bytes)
        if change:
            self._log.warning("state", change, free=free_bytes)
        return self.gate.judge(free_bytes)

    def _judge_growth(self, largest: LargestFile | None, directory: Path) -> Verdict | None:
        former, self._former_largest = self._former_largest, largest
        if largest is None or not Path(largest.path).is_relative_to(directory):
            return None
        same = former is not None and former.inode == largest.inode
        former_bytes = former.size_bytes if former is not None and same else -1
        return limits.growing_output(
            Path(largest.path).name,
            largest.size_bytes,
            former_bytes,
            self._rules.output_limit_bytes,
        )

    def _judge_logs(self, logs: tuple[tuple[Path, int], ...]) -> Verdict | None:
        action = self._rules.stdout_over
        for path, size_bytes in logs:
            limit_bytes = self._rules.stdout_limit_bytes
            verdict = limits.payload_log(path.name, size_bytes, limit_bytes, action)
            if verdict is not None and action == "cut" and path not in self._to_cut:
                self._to_cut.append(path)
                self.record(verdict)
            elif verdict is not None and action != "cut":
                return verdict
        return None

    def _look_at_payload(
        self, payload: PayloadProcess, counts: Counts, last_message_mono: float, now: float
    ) -> Verdict | None:
        verdict = self._judge_progress(counts, now)
        measured = self._tree.take()
        if measured is None or measured[0] != self._epoch:
            return verdict
        view = measured[1]
        self._pids = view.pids
        self.usage.take(now, view.usage)
        return (
            verdict or self._judge_tree(view) or self._judge_silence(view, last_message_mono, now)
        )

    def _judge_progress(self, counts: Counts, now: float) -> Verdict | None:
        outcomes = counts.done + counts.packed + counts.staged + counts.failed + counts.fatal
        outcomes += counts.finished + counts.failed_total + counts.fatal_total
        if outcomes != self._outcomes or not counts.sent:
            self._outcomes, self._outcome_mono = outcomes, now
        still_s = now - self._outcome_mono
        return limits.no_progress(still_s, counts.sent, self._limits.no_progress_s)

    def _judge_tree(self, view: TreeView) -> Verdict | None:
        usage, limit_bytes = view.usage, self._memory_bytes
        # Shared pages count once, so the resident sizes alone are no ground, only a suspicion.
        verdict = self._judge_own(view.own)
        if usage.pss_bytes is not None or view.blind:
            found = memory.tree(usage.pss_bytes, usage.rss_bytes, limit_bytes)
            verdict = verdict or found
            verdict = verdict or memory.swap(usage.swap_bytes, self._slot.swap_bytes)
        if view.group is not None and self._group is not None:
            kills = memory.oom_kills(self._group.oom_kills, view.group.oom_kills)
            if kills is not None:
                self.record(kills)
            verdict = verdict or memory.group(view.group.used_bytes, view.group.limit_bytes)
            self._group = view.group
        return verdict or limits.processes(usage.processes, self._limits.processes)

    def _judge_own(self, figures: cgroup.GroupFigures | None) -> Verdict | None:
        verdict = self._own.judge(figures) if self._own is not None and figures else None
        if verdict is not None and verdict.action == "note":
            self.record(verdict)
            return None
        return verdict

    def _judge_silence(
        self, view: TreeView, last_message_mono: float, now: float
    ) -> Verdict | None:
        if self._hang is None:
            return None
        return self._hang.observe(
            now,
            last_message_mono=last_message_mono,
            cpu_s=view.usage.cpu_s,
            suspended_s=self._suspended_s,
        )
