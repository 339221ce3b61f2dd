"""The measurements of the monitor. They are made in threads of their own, since any of them may
hang: a disk that does not answer, a process that the kernel holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from espilot.adapters import cgroup, procusage
from espilot.adapters.disk import SizeWalker, WalkResult, deleted_bytes, device_of, free_bytes
from espilot.adapters.logcut import cut_log, log_bytes
from espilot.adapters.proctree import TreeSampler
from espilot.core.memory import PssPlan
from espilot.core.usage import Usage
from espilot.errors import LocalError
from espilot.supervisor.payload_group import PayloadGroup

WALK_ENTRIES = 5000
"""Directory entries looked at per second: a million files must not stall anything."""
REST_S = 5.0
"""Pause between two walks of a directory that does not grow..."""
EATEN_BYTES = 64 * 2**20
"""... unless so much of its disk is taken meanwhile."""
IO_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class PayloadFiles:
    """What the disk survey must know of the payload that runs."""

    directory: Path
    logs: tuple[Path, ...]
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DiskView:
    """One look at the disk. `walk` is there when a walk was completed, with `open_bytes` in files
    that were deleted and are open; `logs` has each log's size; `cut` what was cut out of which."""

    free_bytes: int | None = None
    walk: WalkResult | None = None
    open_bytes: int = 0
    logs: tuple[tuple[Path, int], ...] = ()
    cut: tuple[tuple[Path, int], ...] = ()
    errors: tuple[str, ...] = ()


class DiskSurvey:
    """Looks at the work directory, a little at each call.

    It is walked again and again, with a pause where nothing grows. `clock` tells monotonic time.
    """

    def __init__(
        self, workdir: Path, exclude: Sequence[Path], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workdir = workdir
        self._walker = SizeWalker(workdir, exclude=exclude)
        self._clock = clock
        self._walking = True
        self._rest_until = 0.0
        self._size_bytes = self._free_bytes = 0

    def look(
        self, payload: PayloadFiles | None, cut: Sequence[Path] = (), keep_bytes: int = 0
    ) -> DiskView:
        """Measure; before that cut the logs in `cut`, of which head and tail are kept.

        What cannot be measured is told in `errors`.
        """
        errors: list[str] = []
        dropped = tuple((path, self._cut(path, keep_bytes, errors)) for path in cut)
        free = walk = None
        open_bytes, sizes = 0, []
        try:
            free = free_bytes(self._workdir)
            if payload is not None:
                self._walker.watched = payload.directory
                self._walker.own = frozenset(str(path) for path in payload.logs)
                sizes = [(path, log_bytes(path)) for path in payload.logs]
            if self._is_due(free) and self._walker.step(WALK_ENTRIES):
                walk = self._walker.result
                open_bytes = self._open_bytes(payload)
                self._rest(free, open_bytes)
        except LocalError as error:
            errors.append(str(error))
        errors += walk.errors if walk is not None else ()
        return DiskView(free, walk, open_bytes, tuple(sizes), dropped, tuple(errors))

    def close(self) -> None:
        """Give the present walk up."""
        self._walker.close()

    def _is_due(self, free: int) -> bool:
        """Whether a walk goes on or is to begin."""
        eaten = self._free_bytes - free > EATEN_BYTES
        self._walking = self._walking or eaten or self._clock() >= self._rest_until
        return self._walking

    def _rest(self, free: int, open_bytes: int) -> None:
        """A walk is complete: pause if it found what the one before had found."""
        assert self._walker.result is not None
        found = self._walker.result.size_bytes + open_bytes
        self._rest_until = self._clock() + (REST_S if found <= self._size_bytes else 0.0)
        self._size_bytes, self._free_bytes, self._walking = found, free, False

    def _open_bytes(self, payload: PayloadFiles | None) -> int:
        if payload is None:
            return 0
        return deleted_bytes(payload.pids, device_of(self._workdir))

    def _cut(self, path: Path, keep_bytes: int, errors: list[str]) -> int:
        try:
            return cut_log(path, keep_bytes)
        except LocalError as error:
            errors.append(str(error))
            return 0


@dataclass(frozen=True, slots=True)
class TreeView:
    """One look at the payload's processes, at our control group and at its own, if there are any.

    `blind`: the PSS was to be measured and could not be.
    """

    usage: Usage
    blind: bool
    pids: tuple[int, ...]
    group: cgroup.GroupMemory | None
    own: cgroup.GroupFigures | None = None


class TreeSurvey:
    """Looks at the processes of one start of the payload."""

    def __init__(
        self, root_pid: int, plan: PssPlan, groups: tuple[Path, ...], own: PayloadGroup | None
    ) -> None:
        self._sampler = TreeSampler(root_pid)
        self._plan = plan
        self._groups = groups
        self._own = own
        self._io = (0, 0)
        self._next_io = 0.0

    def look(self) -> TreeView:
        """Measure; what is dear only as often as planned."""
        sample = self._sampler.sample()
        begun = time.monotonic()
        # The kernel keeps the sums of a group: they cost nothing, and know who has ended.
        own = self._own.figures() if self._own is not None else None
        pss, swap = (own.memory_bytes, own.swap_bytes) if own is not None else (None, None)
        due = pss is None and self._plan.is_due(begun, sample.rss_bytes)
        if due:
            pss, swap = procusage.memory_shares(sample.pids) or (None, None)
            now = time.monotonic()
            self._plan.measured(now, now - begun)
        if begun >= self._next_io:
            self._io = procusage.io_bytes(sample.pids)
            self._next_io = begun + IO_EVERY_S
        cpu_s = max(sample.cpu_s, own.cpu_s or 0.0) if own is not None else sample.cpu_s
        usage = Usage(sample.processes, sample.rss_bytes, cpu_s, pss, *self._io, swap)
        group = cgroup.read_memory(self._groups)
        return TreeView(usage, due and pss is None, sample.pids, group, own)
