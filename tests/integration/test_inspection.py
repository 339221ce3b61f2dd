"""Debug commands of the server: confined, bounded, never executed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from espilot.adapters.inspection import ANSWER_BYTES, Inspection


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "work"
    (root / "payload-1").mkdir(parents=True)
    (root / "state").mkdir()
    (root / "state" / "secret").write_text("secret")
    (root / "payload-1" / "payload.stdout").write_text("".join(f"line {n}\n" for n in range(50)))
    (tmp_path / "outside").write_text("outside")
    (root / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(root / "pipe")
    return root


def ask(root: Path, text: str) -> str:
    return Inspection(root, [root / "state"]).answer(text.split())


def test_tail(root: Path) -> None:
    """The last lines of a file, by path or by bare name, as many as asked for."""
    assert ask(root, "tail payload-1/payload.stdout").splitlines()[0] == "line 30"
    assert ask(root, "tail payload.stdout").splitlines()[-1] == "line 49"
    assert ask(root, "tail -n 2 payload.stdout") == "line 48\nline 49"
    assert ask(root, "tail -3 payload.stdout").count("\n") == 2


@pytest.mark.parametrize(
    "command",
    [
        "tail ../outside",
        "tail /etc/passwd",
        "tail link",
        "tail state/secret",
        "tail secret",
        "tail pipe",
        "tail payload-1",
        "tail none",
        "tail",
        "tail -n x y",
        "tail a b",
        "ls ..",
        "ls state",
        "ls none",
        "ls a b",
        "du ../..",
        "du link",
        "rm x",
    ],
)
def test_lesson_13_what_is_outside_is_refused(root: Path, command: str) -> None:
    """Whatever leaves the directory, is private or makes no sense gets one short line."""
    answer = ask(root, command)
    assert "secret\n" not in answer and answer != "secret" and "root:" not in answer
    assert answer != "outside" and answer.startswith(command.split()[0] + ":")
    assert "\n" not in answer


def test_ls_and_du(root: Path) -> None:
    """A listing with sizes, and the space that is used; nothing is followed."""
    listing = ask(root, "ls -la")
    assert listing.startswith("4 entries\n") and "'link'" in listing
    assert ask(root, "du payload-1").endswith("bytes in 1 entries")
    assert "bytes in 4 entries" in ask(root, "du")


def test_answers_are_bounded(root: Path) -> None:
    """Long lines, many files and bytes that are no text give an answer that fits."""
    (root / "long").write_bytes(b"\xff" * 10**6)
    for n in range(300):
        (root / f"{'x' * 50}{n}").touch()
    for command in ("tail long", "ls", "tail -n 200 long"):
        assert 0 < len(ask(root, command).encode()) <= ANSWER_BYTES
