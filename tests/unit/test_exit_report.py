"""The pilot error code and the exit code of a run for a factory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espilot.cli.exit_report import Report, failure, pilot_code
from espilot.cli.faces import is_stock
from espilot.cli.stock_options import read_stock
from espilot.cli.stock_queue import QueueDataError
from espilot.errors import (
    ConfigError,
    LocalError,
    NoDirectoryError,
    NoSpaceError,
    ServerUnavailable,
    StorageFatal,
    UsageError,
)
from espilot.supervisor.outcome import Outcome

TERM = 15


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome("finished", jobs=1), 0),
        (Outcome("finished"), 1385),
        (Outcome("finished", jobs=2, code=1150), 1150),
        (Outcome("finished", code=1318), 1318),
        (Outcome("drained", jobs=1, signal=TERM, drained_by="signal"), 0),
        (Outcome("drained", jobs=1, drained_by="wall-time"), 1213),
        (Outcome("drained", jobs=1, drained_by="shutdowntime"), 1213),
        (Outcome("drained", jobs=1, drained_by="request"), 0),
        (Outcome("finished", signal=TERM), 0),
        (Outcome("failed", jobs=1, code=1098), 1098),
        (Outcome("failed", jobs=1), 1008),
    ],
)
def test_pilot_code_of_an_end(outcome: Outcome, code: int) -> None:
    """A run's end has the code of its last error, of the deadline, or none."""
    assert pilot_code(outcome) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QueueDataError("x"), 1117), (NoSpaceError("x"), 1098), (NoDirectoryError("x"), 1199),
        (ServerUnavailable("x"), 1318), (StorageFatal("x"), 1133), (UsageError("x"), -1),
        (ConfigError("x"), -1), (LocalError("x"), 1008),
    ],
)  # fmt: skip
def test_code_of_an_error(error: Exception, code: int) -> None:
    """Each kind of error before the start has its code."""
    assert failure(error) == code  # type: ignore[arg-type]


def written(tmp_path: Path, outcome: Outcome, *options: str, whole: bool = True) -> tuple[int, int]:
    """Exit code and pilot error code of the report."""
    report = Report(tmp_path)
    report.configure(read_stock(options))
    shell = report.write(outcome, whole=whole)
    text = json.loads((tmp_path / "espilot-exit.json").read_text())
    assert text["exit_code"] == shell and text["schema"] == "espilot.exit/1"
    return shell, text["pilot_error_code"]


def test_lesson_62_a_drain_may_be_success(tmp_path: Path) -> None:
    """A clean drain has the code that was asked for; one that leaves something the signal's."""
    outcome = Outcome("drained", jobs=1, signal=TERM, drained_by="signal")
    assert written(tmp_path, outcome) == (143, 1201)
    assert written(tmp_path, outcome, "--exit-on-drain", "stock") == (143, 1201)
    assert written(tmp_path, outcome, "--exit-on-drain=0") == (0, 0)
    assert written(tmp_path, outcome, "--exit-on-drain=0", whole=False) == (143, 1201)
    assert written(tmp_path, Outcome("failed", signal=TERM), "--exit-on-drain=0") == (65, 1008)


@pytest.mark.parametrize("text", ["2", "256", "-1", "x", ""])
def test_lesson_52_no_unusable_code(tmp_path: Path, text: str) -> None:
    """2 and what is no exit code are refused."""
    with pytest.raises(UsageError, match="--exit-on-drain"):
        Report(tmp_path).configure(read_stock([f"--exit-on-drain={text}"]))


def test_the_report_is_where_it_is_wanted(tmp_path: Path) -> None:
    """`--exit-report` names the file; a place that cannot be written costs the report only."""
    report = Report(tmp_path)
    report.configure(read_stock(["--exit-report", str(tmp_path / "x.json")]))
    assert report.write_failure(1117, "bad") == 72
    assert json.loads((tmp_path / "x.json").read_text())["reason"] == "bad"
    report.configure(read_stock(["--exit-report", str(tmp_path / "none" / "x.json")]))
    assert report.write_signal(2) == 130


@pytest.mark.parametrize(
    ("program", "argv", "stock"),
    [
        ("bin/espilot", ["-q", "Q"], True), ("bin/espilot", ["--queue=Q"], True),
        ("pilot3/pilot.py", [], True), ("pilot3/pilot.py", ["run"], True),
        ("espilot", ["run", "-q"], False), ("espilot", [], False), ("espilot", ["--help"], False),
        ("espilot", ["-h"], False), ("espilot", ["--version"], False),
        ("espilot", ["-h", "QUEUE"], True),
    ],
)  # fmt: skip
def test_two_faces(program: str, argv: list[str], stock: bool) -> None:
    """Options first, or the name of a stock pilot, choose the face of factories."""
    assert is_stock(program, argv) is stock
