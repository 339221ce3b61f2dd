"""The log archive: no secret survives in a line that is too long to be cleaned as a whole."""

from __future__ import annotations

import tarfile
from functools import partial
from pathlib import Path

import pytest

from espilot.adapters.archive import logs
from espilot.adapters.archive.logs import pack_logs
from espilot.errors import LocalError
from espilot.view.redaction import redact

HELD = logs._HELD_BYTES
SECRET = "mySecretWord" + "Ab3" * 60


def packed(directory: Path, text: str, limit_bytes: int = logs.LIMIT_BYTES) -> str:
    """What the archive has of a log with this text."""
    log = directory / "payload.log"
    log.write_text(text)
    target = directory / "log.tgz"
    pack_logs(target, "job", [log], clean=partial(redact, known=[SECRET]), limit_bytes=limit_bytes)
    with tarfile.open(target) as tar:
        file = tar.extractfile("job/payload.log")
        assert file is not None
        return file.read().decode()


@pytest.mark.parametrize("before", [HELD - 250, HELD - 20, HELD - 1, HELD, 2 * HELD - 20])
@pytest.mark.parametrize("gap", ["", " "])
def test_secret_across_a_cut(tmp_path: Path, before: int, gap: str) -> None:
    """Wherever it stands in a long line, no part of it that tells anything is left."""
    words = ("word " * (before // 5 + 1))[: before - 1] + "="
    text = packed(tmp_path, f"first\n{words}{gap}{SECRET} end\nlast\n")
    assert "Ab3Ab3" not in text
    assert "mySecret" not in text
    assert text.startswith("first\nword word") and text.endswith("\nlast\n")


def test_long_lines_are_cut_once_and_said(tmp_path: Path) -> None:
    """Of each its beginning stays; a line without a gap has none."""
    line = "word " * (3 * HELD // 5)
    text = packed(tmp_path, f"{line}\nshort\n{'x' * 2 * HELD}\n{line}")
    lines = text.split("\n")
    said = "... the rest of this line left out ..."
    assert [each.endswith(said) for each in lines] == [True, False, True, True, False]
    assert (lines[1], lines[2].strip(), lines[4]) == ("short", said, "")
    assert all(HELD - 20 < len(lines[n]) < HELD + 60 for n in (0, 3))


def test_long_lines_in_a_file_that_is_cut(tmp_path: Path) -> None:
    """Head and tail of a long file keep to the rule and the limit."""
    line = "word " * (3 * HELD // 5) + SECRET + "\n"
    text = packed(tmp_path, line * 20 + "last\n", 8 * HELD)
    assert text.startswith("word") and text.endswith("\nlast\n")
    assert "bytes left out" in text
    assert "Ab3Ab3" not in text
    assert len(text) <= 8 * HELD


def test_log_archive_that_cannot_be_written(tmp_path: Path) -> None:
    """The error is ours, also when not even the temporary file can be removed."""
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="cannot write the log archive"):
        pack_logs(tmp_path / "file" / "log.tgz", "job", [])
