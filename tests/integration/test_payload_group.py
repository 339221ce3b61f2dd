"""A control group for each payload: against a tree of files, and where we may against the kernel's.

A machine that has memory and pids on version 1 has them on no group of version 2: those files are
then written and read in the tree of files only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from delegation import delegated_group, members_of
from patience import eventually

from espilot.adapters import cgroup, proctree
from espilot.adapters.cgroup import GroupFigures
from espilot.supervisor import launcher, payload_group
from espilot.supervisor.statedir import StateDir, note_payload

MB = 10**6


def write_files(group: Path, **files: str) -> Path:
    """A group as the kernel shows it; `memory_max` stands for memory.max."""
    group.mkdir(parents=True, exist_ok=True)
    for name, text in {"cgroup_procs": "", **files}.items():
        (group / name.replace("_", ".", 1)).write_text(text)
    return group


def test_figures(tmp_path: Path) -> None:
    """CPU, memory without cache, and what the kernel did, in our units."""
    group = write_files(
        tmp_path,
        cpu_stat="usage_usec 2500000\nuser_usec 2000000\n",
        memory_stat="anon 1000\nfile 900\nshmem 200\nfile_mapped 300\ninactive_file 7\n",
        memory_events="max 4\noom 2\noom_kill 3\n",
        memory_peak="5000\n",
        memory_max="6000\n",
        pids_events="max 9\n",
    )
    (group / "memory.swap.current").write_text("70\n")
    assert cgroup.group_figures(group) == GroupFigures(2.5, 1300, 70, 5000, 6000, 3, 2, 9)
    assert cgroup.group_figures(tmp_path / "absent") == GroupFigures()


def test_walls(tmp_path: Path) -> None:
    """Limits are written where the controllers are, a little above ours; 0 takes them away."""
    write_files(tmp_path, pids_max="4096")
    group = write_files(tmp_path / "g", memory_max="max", pids_max="max")
    own = payload_group.PayloadGroup(group)
    own.limit(100 * MB, 10)
    assert (group / "memory.max").read_text() == str(105 * MB)
    assert (group / "pids.max").read_text() == "320"
    own.limit(0, 0)
    assert (group / "memory.max").read_text() == "max"
    assert (group / "pids.max").read_text() == "3840", "some of the unit's tasks stay ours"
    (group / "memory.max").unlink()
    own.limit(1, 1)
    assert not (group / "memory.max").exists()


def test_kernel_kills_are_told_once_with_numbers(tmp_path: Path) -> None:
    """At its own limit the job ends, for the node's need it is noted; each kill counts once."""
    group = write_files(tmp_path, memory_events="oom 0\noom_kill 0\n", memory_max=str(64 * MB))
    own = payload_group.PayloadGroup(group)
    assert own.judge(own.figures()) is None
    write_files(group, memory_events="oom 1\noom_kill 2\n", memory_peak=str(64 * MB))
    verdict = own.judge(own.figures())
    assert verdict is not None and (verdict.action, verdict.code) == ("end-job", 1212)
    assert verdict.text == (
        "the kernel has ended 2 processes of the payload for lack of memory: its control group may "
        "have 64.0 MB; at most it had 64.0 MB"
    )
    assert verdict.value == 2
    assert own.judge(own.figures()) is None
    write_files(group, memory_events="oom 1\noom_kill 3\n")
    verdict = own.judge(own.figures())
    assert verdict is not None and verdict.action == "note"
    assert "1 process of the payload for lack of memory of the node" in verdict.text


def test_group_that_is_not_ours(tmp_path: Path) -> None:
    """Without mark or owner nothing is made; a record cannot have any other directory removed."""
    assert cgroup.find_delegated(None) is None
    if os.geteuid() == 0:
        assert cgroup.find_delegated(write_files(tmp_path / "root")) is None
    foreign = write_files(tmp_path / "precious")
    assert not cgroup.remove_group(foreign, 0.1)
    assert foreign.is_dir()
    assert cgroup.remove_group(tmp_path / f"{cgroup.PREFIX}gone", 0.1)


def test_controllers_are_handed_down(tmp_path: Path) -> None:
    """Those that we have, when nobody is in the group itself."""
    base = write_files(tmp_path, cgroup_controllers="cpu hugetlb memory\n")
    (base / "cgroup.subtree_control").touch()
    assert cgroup.hand_down(base) == ("+memory",), "each is a write of its own"
    write_files(base, cgroup_procs="1\n2\n")
    (base / "cgroup.subtree_control").write_text("")
    assert cgroup.hand_down(base) == ()
    assert not (base / cgroup.SUPERVISOR).exists(), "others are not moved out of their group"


# -- the kernel's own tree ------------------------------------------------------------------------


@pytest.fixture
def base() -> Iterator[Path]:
    with delegated_group() as found:
        yield found


def start_launcher(tmp_path: Path, group: Path, run_id: str, code: str) -> subprocess.Popen[bytes]:
    """A launcher whose payload runs `code` in a group; its death pipe is its stdin."""
    argv = launcher.command(
        [sys.executable, "-c", code],
        directory=tmp_path, result=tmp_path / "result.json", death_fd=0, grace_s=0.2,
    )  # fmt: skip
    env = {**os.environ, "ESPILOT_RUN_ID": run_id}
    return subprocess.Popen(launcher.in_group(argv, group), env=env, stdin=subprocess.PIPE)


STRAY = (
    "import os, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    open('stray', 'w').write(str(os.getpid()))\n"
    "    time.sleep(600)\n"
    "while not os.path.exists('go'): time.sleep(0.01)\n"
)


def stray_of(directory: Path) -> int:
    """The pid of the payload's child, when it is there."""
    path = directory / "stray"
    eventually(lambda: path.exists() and path.read_text(), "the payload runs")
    return int(path.read_text())


def test_payload_is_in_its_group_before_it_runs(tmp_path: Path, base: Path) -> None:
    """Payload and children are in it, the launcher is not; at the end only the figures are left."""
    path = base / f"{cgroup.PREFIX}{uuid.uuid4().hex}"
    group = payload_group.make_group(path)
    assert group is not None
    started = start_launcher(tmp_path, path, uuid.uuid4().hex, STRAY)
    stray = stray_of(tmp_path)
    assert stray in members_of(path) and len(members_of(path)) == 2
    assert started.pid not in members_of(path)
    (tmp_path / "go").touch()
    assert started.wait(20) == 0
    assert json.loads((tmp_path / "result.json").read_text())["exit_code"] == 0
    assert members_of(path) == set()
    assert (group.figures().cpu_s or 0) > 0
    assert group.end() == (None, True)
    assert not path.exists()
    started.stdin.close()  # type: ignore[union-attr]


def test_group_goes_with_its_supervisor(tmp_path: Path, base: Path) -> None:
    """When the supervisor is dead the launcher removes the group as well."""
    path = base / f"{cgroup.PREFIX}{uuid.uuid4().hex}"
    assert payload_group.make_group(path)
    started = start_launcher(tmp_path, path, uuid.uuid4().hex, STRAY)
    eventually((tmp_path / "stray").exists, "it runs")
    started.stdin.close()  # type: ignore[union-attr]
    started.wait(20)
    assert not path.exists()


def test_leftover_of_a_killed_pilot_goes_at_the_next_start(tmp_path: Path, base: Path) -> None:
    """Supervisor and launcher were killed: the group that they noted is emptied and removed."""
    path, run_id, state = (
        base / f"{cgroup.PREFIX}{uuid.uuid4().hex}",
        uuid.uuid4().hex,
        tmp_path / "s",
    )
    assert payload_group.make_group(path)
    (path / "deeper").mkdir()
    first = StateDir(state)
    note_payload(state, run_id=run_id, group=path)
    record = (state / "pilot.json").read_text()
    started = start_launcher(tmp_path, path, run_id, STRAY)
    stray = stray_of(tmp_path)
    started.send_signal(signal.SIGKILL)
    started.wait(20)
    started.stdin.close()  # type: ignore[union-attr]
    first.close()
    (state / "pilot.json").write_text(record)
    StateDir(state).close()
    assert not path.exists()
    found = proctree.look_up(stray)
    assert found is None or not found.alive


def test_group_that_cannot_be_joined(tmp_path: Path) -> None:
    """The payload runs all the same."""
    started = start_launcher(tmp_path, tmp_path / "none", uuid.uuid4().hex, "print('here')")
    assert started.wait(20) == 0
    started.stdin.close()  # type: ignore[union-attr]
    assert (tmp_path / "payload.stdout").read_text() == "here\n"
