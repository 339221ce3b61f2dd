"""What a payload leaves as its job report: read when it is one, and never waited for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from espilot.executors import payload_run
from espilot.executors.payload_run import read_report, run_payload


def test_report_is_read(tmp_path: Path) -> None:
    """An object is a report; other JSON, and no file, is none."""
    report = tmp_path / "jobReport.json"
    assert read_report(report) == {}
    for text, meant in (('{"exitCode": 3}', {"exitCode": 3}), ("[1]", {}), ('{"a"', {})):
        report.write_text(text)
        assert read_report(report) == meant


def test_report_that_is_no_file(tmp_path: Path) -> None:
    """A pipe, which nobody writes to or somebody holds open, a link, a directory: no report."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    (tmp_path / "target").write_text('{"exitCode": 3}')
    link.symlink_to(tmp_path / "target")
    holder = os.open(pipe, os.O_RDWR)
    try:
        assert read_report(pipe) == {}
        assert read_report(link) == {}
        assert read_report(tmp_path) == {}
    finally:
        os.close(holder)


def test_report_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is larger than a report may be is not read."""
    monkeypatch.setattr(payload_run, "_REPORT_BYTES", 20)
    report = tmp_path / "jobReport.json"
    report.write_text('{"exitCode": 3}')
    assert read_report(report) == {"exitCode": 3}
    report.write_text('{"exitCode": 3}' + " " * 20)
    assert read_report(report) == {}


def test_payload_that_leaves_a_pipe(tmp_path: Path) -> None:
    """Its end is told by its exit code."""
    source = "import os; os.mkfifo('jobReport.json'); raise SystemExit(4)"
    end = run_payload([sys.executable, "-c", source], tmp_path, os.environ)
    assert end.exit_code == 4
