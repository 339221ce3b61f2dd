"""What a request for jobs says of the room on this node."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from espilot.config import Settings
from espilot.model import Room
from espilot.sections import LimitsConfig
from espilot.wire import panda_legacy, panda_v1
from espilot.wire.panda_dialects import DIALECTS
from espilot.workers import job_room
from espilot.workers.context import Context
from espilot.workers.job_room import room_for_job

MIB = 2**20


def context_of(directory: Path, **limits: int) -> Context:
    """A pilot whose work directory is `directory`."""
    settings = Settings(limits=LimitsConfig(**limits))
    return Context(directory, directory, directory, "", settings)


def test_without_limits_it_is_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No slot, no end: at most the machine's memory, the disk up to the work directory's limit."""
    monkeypatch.delenv("JOBFEATURES", raising=False)
    room = room_for_job(context_of(tmp_path), 0.0)
    assert 0 < room.memory_mb <= psutil.virtual_memory().total // MIB
    assert 0 < room.disk_mb <= 16336
    assert room.left_s == 0


@pytest.mark.parametrize(("slot", "own", "told"), [(50, 70, 50), (70, 50, 50), (0, 60, 60)])
def test_the_least_limit_of_memory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slot: int, own: int, told: int
) -> None:
    """Of slot and settings the smaller one; 0 is none."""
    (tmp_path / "max_rss_bytes").write_text(str(slot * MIB))
    monkeypatch.setenv("JOBFEATURES", str(tmp_path))
    assert room_for_job(context_of(tmp_path, memory_bytes=own * MIB), 0.0).memory_mb == told


def test_the_least_limit_of_the_groups_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of the group with the least room: all must be kept."""
    limits = (2 << 30, 64 << 30)
    monkeypatch.setattr(job_room, "memory_limits", lambda _: limits)
    monkeypatch.delenv("JOBFEATURES", raising=False)
    machine = psutil.virtual_memory().total
    assert room_for_job(context_of(tmp_path), 0.0).memory_mb == min(machine, *limits) // MIB


def test_the_slots_scratch_space_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that took more than the slot allows would be ended."""
    (tmp_path / "scratch_limit_bytes").write_text(str(100 * MIB))
    monkeypatch.setenv("JOBFEATURES", str(tmp_path))
    assert room_for_job(context_of(tmp_path), 0.0).disk_mb == 100


def test_a_disk_without_room_is_told_as_that(tmp_path: Path) -> None:
    """What must stay free is no room; nothing left is 1 MB, for 0 would mean any."""
    assert room_for_job(context_of(tmp_path, free_bytes=2**62), 0.0).disk_mb == 1
    assert room_for_job(context_of(tmp_path, workdir_bytes=5 * MIB), 0.0).disk_mb == 5
    assert room_for_job(context_of(tmp_path / "gone"), 0.0).disk_mb == 0


def test_time_that_is_left(tmp_path: Path) -> None:
    """Seconds to the end; one that is over is 1 s, a far one fits into 32 bits."""
    now = time.monotonic()
    assert 90 < room_for_job(context_of(tmp_path), now + 100).left_s <= 100
    assert room_for_job(context_of(tmp_path), now - 100).left_s == 1
    assert room_for_job(context_of(tmp_path), now + 1e12).left_s == 2**31 - 1


def test_both_dialects_tell_it_and_leave_out_what_is_not_known() -> None:
    """The names of each dialect; nothing of a room that is not known."""
    pilot = panda_v1.Pilot("S", "n")
    bare = panda_v1.acquire_jobs_parameters(pilot)
    told = panda_v1.acquire_jobs_parameters(pilot, Room(2000, 300, 40))
    room = {"memory": 2000, "disk_space": 300, "remaining_time": 40}
    assert told == bare | room and not set(bare) & set(room)
    names = {of_v1: name for name, of_v1 in panda_legacy.GET_JOB.names.items()}
    request = DIALECTS["legacy"].acquire_job(pilot, Room(2000, 300, 40)).request
    for name, value in room.items():
        assert f"{names[name]}={value}".encode() in (request.body or b"")
