"""The control group's figures, from a tree of files as the kernel shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.adapters.cgroup import GroupMemory, memory_limits, own_groups, read_memory

MEMBERSHIP = "4:memory:/v1/other\n0::/slice/job.scope\n"


def write_group(path: Path, current: int, limit: str, cache: int = 0, kills: int = 0) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "memory.current").write_text(f"{current}\n")
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.stat").write_text(
        f"anon {current - cache}\ninactive_file {cache}\nactive_file 0\n"
    )
    (path / "memory.events").write_text(f"low 0\nhigh 3\nmax 9\noom 1\noom_kill {kills}\n")


def test_limit_use_and_kills(tmp_path: Path) -> None:
    """Use is without file cache; the kills are those of the own group."""
    write_group(tmp_path / "slice" / "job.scope", 9000, "10000", cache=2000, kills=4)
    groups = own_groups(MEMBERSHIP, tmp_path)
    assert groups == (tmp_path / "slice" / "job.scope",)
    assert read_memory(groups) == GroupMemory(7000, 10000, 4)
    assert 10000 in memory_limits(groups) and 0 not in memory_limits(groups)


def test_the_group_with_the_least_room_counts(tmp_path: Path) -> None:
    """A limit above ours may bite first; a group without limit never does."""
    write_group(tmp_path / "slice" / "job.scope", 9000, "max")
    write_group(tmp_path / "slice", 19000, "20000")
    assert read_memory(own_groups(MEMBERSHIP, tmp_path)) == GroupMemory(19000, 20000, 0)
    write_group(tmp_path / "slice" / "job.scope", 9000, "9500", kills=1)
    assert read_memory(own_groups(MEMBERSHIP, tmp_path)) == GroupMemory(9000, 9500, 1)


def test_no_limit_at_all(tmp_path: Path) -> None:
    """Without any limit the use of the own group is told, with limit 0."""
    write_group(tmp_path / "slice" / "job.scope", 9000, "max")
    assert read_memory(own_groups(MEMBERSHIP, tmp_path)) == GroupMemory(9000, 0, 0)


@pytest.mark.parametrize("membership", ["4:memory:/v1\n", "0::/../../etc\n", "0::/absent\n", "0"])
def test_no_usable_group(tmp_path: Path, membership: str) -> None:
    """Version 1, a group outside our view, none: there are no figures."""
    assert own_groups(membership, tmp_path) == ()
    assert read_memory(()) is None


def test_group_that_vanishes(tmp_path: Path) -> None:
    """Files that are gone, or hold nonsense, count as nothing."""
    write_group(tmp_path / "slice" / "job.scope", 9000, "10000")
    groups = own_groups(MEMBERSHIP, tmp_path)
    (groups[0] / "memory.max").write_text("-5 what\n")
    (groups[0] / "memory.events").unlink()
    assert read_memory(groups) == GroupMemory(9000, 0, 0)


def test_this_machine() -> None:
    """Reading what is here raises nothing, with or without cgroup v2."""
    memory = read_memory(own_groups())
    assert memory is None or memory.used_bytes > 0
