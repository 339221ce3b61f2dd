"""A state directory that cannot be written: one line with the place and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.cli import exit_codes
from espilot.cli.main import main
from espilot.errors import LocalError, NoDirectoryError, NoSpaceError
from espilot.supervisor.statedir import StateDir


@pytest.mark.parametrize("name", ["lock", "workers.lock", ".pilot.json.tmp"])
def test_a_file_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    """Whichever it is: the error names it and what to do, and the lock is free again."""
    (tmp_path / name).mkdir()
    with pytest.raises(NoDirectoryError, match=rf"{tmp_path}/{name}: .*--state-dir"):
        StateDir(tmp_path)
    (tmp_path / name).rmdir()
    StateDir(tmp_path).close()


def test_full_disk(tmp_path: Path) -> None:
    """The error names the directory and says that it is full; the lock is free again."""
    (tmp_path / ".pilot.json.tmp").symlink_to("/dev/full")
    with pytest.raises(NoSpaceError, match=rf"no room .*{tmp_path}.*--state-dir"):
        StateDir(tmp_path)
    assert not (tmp_path / "pilot.json").exists()
    (tmp_path / ".pilot.json.tmp").unlink()
    StateDir(tmp_path).close()


def test_lock_is_free_after_a_refusal(tmp_path: Path) -> None:
    """Who was refused for another reason can try again in the same process."""
    with pytest.raises(LocalError, match="too long a name"):
        StateDir(tmp_path, tmp_path / ("x" * 90))
    StateDir(tmp_path).close()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`recover` ends with one line and the exit code of a trouble of this node."""
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "lock").mkdir()
    assert main(["recover", str(tmp_path)]) == exit_codes.LOCAL
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and str(tmp_path) in told
