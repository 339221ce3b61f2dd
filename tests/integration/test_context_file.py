"""The file that tells a worker what it has to know, on a disk that is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.config import Settings
from espilot.errors import LocalError
from espilot.workers.context import Context, read_context


def test_a_full_disk_keeps_the_former_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be written is a plain error, and the file is what it was."""
    path = tmp_path / "context.json"
    first = Context(tmp_path, tmp_path, tmp_path, "first", Settings())
    first.write(path)

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(LocalError, match=r"context\.json: No space left on device; make room"):
        Context(tmp_path, tmp_path, tmp_path, "second", Settings()).write(path)
    monkeypatch.undo()
    assert read_context(path).storage == "first"
