"""The control group of one start of the payload: made before it, judged with it, removed after it.

Without a part of the tree that is ours (see `adapters/cgroup.py`) there is none, and process tree
and run id are all that a payload is held by. The payload is of our user and could leave its group,
so those go on to count.
"""

from __future__ import annotations

from pathlib import Path

from espilot.adapters import cgroup
from espilot.config import LimitsConfig
from espilot.core import memory
from espilot.model import Verdict

EMPTY_S = 5.0
"""Longest wait for the end of what is in a group."""


class PayloadGroup:
    """One group."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kills = self._hits = 0

    def limit(self, memory_bytes: int, processes: int) -> None:
        """Walls that hold between two measurements; they are a little wider than the limits."""
        tasks = memory.task_wall(processes, cgroup.tasks_limit(self.path.parent))
        cgroup.set_limits(self.path, memory_bytes=memory.wall(memory_bytes), tasks=tasks)

    def figures(self) -> cgroup.GroupFigures:
        """What it has used."""
        return cgroup.group_figures(self.path)

    def judge(self, figures: cgroup.GroupFigures) -> Verdict | None:
        """What the kernel has done in it since the last look."""
        kills, hits = figures.oom_kills - self._kills, figures.limit_hits - self._hits
        self._kills, self._hits = figures.oom_kills, figures.limit_hits
        limit_bytes = figures.limit_bytes if hits > 0 else 0
        return memory.payload_kills(kills, figures.peak_bytes, limit_bytes)

    def end(self) -> tuple[Verdict | None, bool]:
        """The last judgement; then end what is in it and remove it. False when it stays."""
        verdict = self.judge(self.figures())
        return verdict, cgroup.remove_group(self.path, EMPTY_S)


class GroupMaker:
    """Makes groups below the one that was delegated to us; we move out of their way once."""

    def __init__(self, config: LimitsConfig) -> None:
        wanted = config.control_groups == "auto"
        self._base = cgroup.find_delegated(cgroup.own_group()) if wanted else None
        self.controllers = () if self._base is None else cgroup.hand_down(self._base)

    def path(self, run_id: str) -> Path | None:
        """Where the group of a run will be; None when there can be none."""
        return None if self._base is None else self._base / f"{cgroup.PREFIX}{run_id}"


def make_group(path: Path | None) -> PayloadGroup | None:
    """The group; None when it cannot be made: the payload runs without."""
    if path is None or not cgroup.make_group(path):
        return None
    return PayloadGroup(path)
