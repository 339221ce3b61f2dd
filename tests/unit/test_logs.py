"""Log lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.logs import open_log, quote


def test_line_has_role_job_action_and_fields(tmp_path: Path) -> None:
    """A line tells time, level, role, job, action, message and data, on one line."""
    log = open_log("dispatcher", tmp_path / "log")
    log.job = 4711
    log.info("bind", "channel open", name="a b", n=3)
    line = (tmp_path / "log").read_text()
    assert line.count("\n") == 1
    assert " info dispatcher[" in line and " job=4711 action=bind channel open " in line
    assert line.rstrip().endswith("name='a b' n=3")


def test_unknown_action_is_a_defect(tmp_path: Path) -> None:
    """The list of actions is closed."""
    with pytest.raises(ValueError, match="sing"):
        open_log("x", tmp_path / "log").info("sing", "la")


@pytest.mark.parametrize("foreign", ["a\nb", "a\x1b[31m", "", "a b"])
def test_foreign_text_stays_on_its_line(foreign: str) -> None:
    """Control characters, newlines and blanks of a payload cannot forge a line."""
    assert quote(foreign) == repr(foreign)


def test_log_opened_again_writes_each_line_once(tmp_path: Path) -> None:
    """A role that opens its log a second time does not write its lines twice."""
    path = tmp_path / "pilot.log"
    open_log("again", path)
    open_log("again", path, errors_to_stderr=True).info("start", "once")
    assert path.read_text().count("once") == 1
