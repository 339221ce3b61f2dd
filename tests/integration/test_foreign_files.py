"""Directories that a payload made as a trap: deeper than a program can call itself, or a path be
long."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from espilot.adapters.archive.logs import pack_logs
from espilot.adapters.disk import remove_path
from espilot.adapters.leftovers import Leftovers, remove_leftovers
from espilot.foreign_files import remove_tree, walk_files
from espilot.supervisor import bundle

LEVELS = 2500
"""With two bytes each more than a path may have."""


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """A directory with files at its top, and more levels than anybody looks at."""
    top = tmp_path / "work" / "trap"
    top.mkdir(parents=True)
    (top / "payload.log").write_text("began\n")
    (top / "out.7-5-1-2-3").touch()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(LEVELS):
        os.mkdir("a", dir_fd=fd)
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        below = os.open("a", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    yield top
    subprocess.run(["rm", "-rf", top], check=True)


def test_logs_of_a_deep_directory_are_packed(trap: Path, tmp_path: Path) -> None:
    """The log archive has what lies at sane depths."""
    pack_logs(tmp_path / "log.tgz", "job", [trap])
    with tarfile.open(tmp_path / "log.tgz") as tar:
        names = tar.getnames()
    assert "job/trap/payload.log" in names
    assert f"job/trap/{'a/' * 50}f" in names
    assert len(names) < 200


def test_leftovers_in_a_deep_directory_go(trap: Path) -> None:
    """So do the outputs at its top."""
    assert remove_leftovers(trap, task_id=7, known=(), keep=()) == Leftovers(unknown=1)


def test_deep_directory_is_listed(trap: Path) -> None:
    """A support bundle tells its first levels."""
    lines = list(bundle._listing([trap]))
    assert any("payload.log" in line for line in lines)
    assert not any("more" in line for line in lines)


def test_deep_directory_is_removed(trap: Path) -> None:
    """All of it, and nothing else."""
    (trap.parent / "beside").touch()
    remove_path(trap)
    assert [path.name for path in trap.parent.iterdir()] == ["beside"]


def test_what_is_removed_and_what_is_not(tmp_path: Path) -> None:
    """Wide and mixed directories go, what links lead to stays."""
    full, other = tmp_path / "full", tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    for name in ("a/b/c", "a/d", "e"):
        (full / name).mkdir(parents=True)
        (full / name / "file").touch()
        (full / name / "link").symlink_to(other)
        os.mkfifo(full / name / "pipe")
    remove_path(full)
    assert not full.exists()
    assert (other / "kept").exists()


def test_walk_is_sorted_and_follows_no_link(tmp_path: Path) -> None:
    """Each directory once, its files in order; a missing one has none."""
    for name in ("b/x", "a", "c/y/z"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "2").touch()
        (tmp_path / name / "1").touch()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    found = [(path.removeprefix(f"{tmp_path}"), names) for path, names in walk_files(tmp_path)]
    both = ["1", "2"]
    assert found == [
        ("", []), ("/a", both), ("/b", []), ("/b/x", both), ("/c", []), ("/c/y", []),
        ("/c/y/z", both),
    ]  # fmt: skip
    assert [path for path, _ in walk_files(tmp_path, deepest=1)][-1] == f"{tmp_path}/c"
    assert list(walk_files(tmp_path / "gone")) == [(f"{tmp_path}/gone", [])]


def test_a_directory_that_may_not_be_changed_is_removed(tmp_path: Path) -> None:
    """Some programs take the right to write away from what they keep; its owner gives it back."""
    place = Path(tempfile.mkdtemp(prefix="espilot-t", dir="/tmp"))
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(place, user, -1)
    try:
        os.seteuid(user)
        try:
            (place / "kept" / "cache").mkdir(parents=True)
            (place / "kept" / "cache" / "file").write_bytes(b"x")
            (place / "kept" / "cache").chmod(0o555)
            (place / "kept").chmod(0o555)
            remove_tree(place / "kept")
        finally:
            os.seteuid(os.getuid())
        assert not (place / "kept").exists()
    finally:
        shutil.rmtree(place)
