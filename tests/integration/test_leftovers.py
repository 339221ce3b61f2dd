"""Which files of a dead payload are removed."""

from __future__ import annotations

from pathlib import Path

from espilot.adapters.leftovers import Leftovers, remove_leftovers

KNOWN = "7-5-1-1-3"


def test_files_of_ranges_go_unless_they_are_kept(tmp_path: Path) -> None:
    """Unknown, partial and temporary files are removed; what waits, and foreign files, stay."""
    deep = tmp_path / "deep" / "er"
    deep.mkdir(parents=True)
    names = [
        f"out.{KNOWN}", "out.7-5-1-2-3", "out.7-4-1-1-3.root", ".out.7-5-1-2-3.tmp", ".x.tmp",
        "notes.txt", "core-2026-01-02-10-20", "x.17-5-1-1-3", "payload.stdout", "7-5-1-1",
    ]  # fmt: skip
    for name in names:
        (deep / name).touch()
    (tmp_path / "out.7-5-1-9-3").symlink_to(deep / "notes.txt")
    kept = str((deep / f"out.{KNOWN}").resolve())
    found = remove_leftovers(tmp_path, task_id=7, known={KNOWN, "7-5-1-2-3"}, keep={kept})
    assert found == Leftovers(unknown=2, partial=3)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {f"out.{KNOWN}", *names[5:]}


def test_missing_directory_is_no_error(tmp_path: Path) -> None:
    """Where the work directory is gone there is nothing to remove."""
    assert remove_leftovers(tmp_path / "gone", task_id=7, known=(), keep=()) == Leftovers()
