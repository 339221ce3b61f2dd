"""What counts as a spare in a recovery directory."""

from __future__ import annotations

from pathlib import Path

from espilot.supervisor.recovery_layout import (
    ARCHIVES,
    JOB,
    LOCK,
    RUN,
    find_spares,
    is_spare,
    spare_name,
    temporary_name,
)


def make_spare(directory: Path, name: str) -> Path:
    """A complete spare without content."""
    spare = directory / name
    (spare / ARCHIVES).mkdir(parents=True)
    for each in (JOB, RUN):
        (spare / each).write_text("{}")
    return spare


def test_spares_are_found_in_a_recovery_directory_and_by_themselves(tmp_path: Path) -> None:
    """The directory of all spares stands for each of them; one spare stands for itself."""
    spares = [make_spare(tmp_path, spare_name(n, "0a1b")) for n in (7, 8)]
    assert find_spares(tmp_path) == spares
    assert find_spares(spares[0]) == [spares[0]]


def test_what_is_not_whole_is_no_spare(tmp_path: Path) -> None:
    """Temporary names, missing parts, a state directory and a file are no spares."""
    make_spare(tmp_path, temporary_name(spare_name(7, "0a1b")))
    make_spare(tmp_path, "9-ab")
    (tmp_path / "9-ab" / RUN).unlink()
    make_spare(tmp_path, "10-ab")
    (tmp_path / "10-ab" / LOCK).touch()
    (tmp_path / "11-ab").touch()
    assert find_spares(tmp_path) == []
    assert find_spares(tmp_path / "11-ab") == []
    assert not is_spare(tmp_path / "missing")
