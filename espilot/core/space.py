"""Free space on the node's disk, in three steps.

* At the start there must be enough, else nothing is started.
* Below the floor no range is handed out: what is in hand still makes outputs, and an archive needs
  as much again as its outputs until they are deleted. It goes on when there is a little more.
* Below half of the configured floor the job ends, so that what was made can still be shipped.

A floor of 0 means: none.
"""

from __future__ import annotations

from espilot.core.limits import free_space, size_texts
from espilot.model import Verdict

RESUME_SHARE = 1.05


def refuse_start(free_bytes: int, least_bytes: int) -> str:
    """Why a pilot cannot be started here; "" when it can."""
    if free_bytes >= least_bytes:
        return ""
    free, least = size_texts(free_bytes, least_bytes)
    return f"only {free} are free, {least} are needed"


def needed_bytes(in_hand: int, waiting: int, mean_bytes: float, largest_archive_bytes: int) -> int:
    """What outputs still to come and one archive take.

    `in_hand` ranges are in work, `waiting` outputs are made and not packed.
    """
    archive_bytes = min(float(largest_archive_bytes), (in_hand + waiting) * mean_bytes)
    return int(in_hand * mean_bytes + archive_bytes)


class SpaceGate:
    """Whether ranges may be handed out; says so when that changes."""

    def __init__(self, floor_bytes: int) -> None:
        self._floor_bytes = floor_bytes
        self.is_open = True

    def observe(self, free_bytes: int, needed_bytes: int = 0) -> str:
        """Take a measurement; returns what has changed, in words, or ""."""
        if self._floor_bytes <= 0:
            return ""
        floor_bytes = max(self._floor_bytes, needed_bytes)
        wanted_bytes = floor_bytes if self.is_open else floor_bytes * RESUME_SHARE
        is_open = free_bytes >= wanted_bytes
        if is_open == self.is_open:
            return ""
        self.is_open = is_open
        free, floor = size_texts(free_bytes, floor_bytes)
        what = "ranges are handed out again" if is_open else "no ranges are handed out"
        return f"the local disk has {free} left, the limit is {floor}: {what}"

    def narrow(self, storage: str) -> str:
        """The state of the storage as far as the flow of ranges is concerned.

        On a full disk it is as in trouble: nothing is fetched or handed out, outcomes are taken.
        """
        return "trouble" if storage == "ok" and not self.is_open else storage

    def judge(self, free_bytes: int) -> Verdict | None:
        """The verdict when there is so little that the payload must not go on."""
        return free_space(free_bytes, self._floor_bytes // 2)
