"""How much room a job may take here: memory, disk and time, as a request for jobs tells them."""

from __future__ import annotations

import os
import time
from functools import reduce

from espilot.adapters.cgroup import memory_limits, own_groups
from espilot.adapters.disk import free_bytes
from espilot.adapters.machine_features import read_features
from espilot.core.slot import Slot, read_slot, smaller
from espilot.errors import LocalError
from espilot.model import Room
from espilot.workers.context import Context

_MIB = 2**20
_LARGEST = 2**31 - 1
"""Servers keep these numbers in 32 bits."""


def room_for_job(context: Context, end_mono: float) -> Room:
    """What this node and our limits leave to a job; `end_mono` is 0 when no end is known."""
    left_s = max(1, int(end_mono - time.monotonic())) if end_mono else 0
    return Room(
        min(_LARGEST, _memory_bytes(context) // _MIB),
        min(_LARGEST, _disk_bytes(context) // _MIB),
        min(_LARGEST, left_s),
    )


def _memory_bytes(context: Context) -> int:
    """Of the machine, of our control groups, of the slot, of the settings: the least."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = context.settings.limits.memory_bytes, _slot().rss_bytes, *memory_limits(own_groups())
    return reduce(smaller, limits, machine)


def _disk_bytes(context: Context) -> int:
    """Free space but what must stay free; never more than the work directory may hold."""
    limits = context.settings.limits
    try:
        free = max(_MIB, free_bytes(context.workdir) - limits.free_bytes)
    except LocalError:
        return 0  # not known; who supervises the disk tells the trouble
    return smaller(smaller(free, limits.workdir_bytes), _slot().scratch_bytes)


def _slot() -> Slot:
    return read_slot(read_features(os.environ.get("JOBFEATURES", "")))
