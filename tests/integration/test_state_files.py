"""The small files of a state directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.adapters.state_files import (
    read_boot_id,
    read_failures,
    read_job,
    read_object,
    write_failures,
    write_job,
    write_object,
)
from espilot.errors import LocalError
from espilot.model import FailedRange, Job

JOB = Job(
    panda_id=11, jobset_id=12, task_id=13, attempt_nr=1, core_count=4,
    output_lfns=("a.root", "b.root"), log_lfn="log.tgz", input_lfns=("in",),
    definition={"PandaID": 11, "name": "\u00e9"},
)  # fmt: skip


def test_job_comes_back_as_it_was(tmp_path: Path) -> None:
    """A job that was written is read with every field."""
    write_job(tmp_path / "job.json", JOB)
    assert read_job(tmp_path / "job.json") == JOB
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_failures_come_back_for_their_job_only(tmp_path: Path) -> None:
    """Failures are read by the job that they are of; what is unusable is none."""
    path = tmp_path / "failures.json"
    failures = (FailedRange("1-2-3-4-5", True, 1220, "d\u00e9tail"), FailedRange("x", False, 1, ""))
    write_failures(path, 11, failures)
    assert read_failures(path, 11) == failures
    assert read_failures(path, 12) == ()
    for text in ("", "[]", '{"panda_id": 11}', '{"panda_id": 11, "failures": [{"id": 1}]}'):
        path.write_text(text)
        assert read_failures(path, 11) == ()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"panda_id": "x"}', '{"panda_id": 1, "output_lfns": 3}', "\xff"]
)
def test_damaged_job_is_none(tmp_path: Path, text: str) -> None:
    """What is no job is no error: there is none."""
    (tmp_path / "job.json").write_bytes(text.encode("latin-1"))
    assert read_job(tmp_path / "job.json") is None
    assert read_job(tmp_path / "missing.json") is None


def test_unwritable_directory_is_named(tmp_path: Path) -> None:
    """A file that cannot be written is named with the reason."""
    with pytest.raises(LocalError, match=r"cannot write .*run\.json"):
        write_object(tmp_path / "missing" / "run.json", {})
    assert read_object(tmp_path / "missing" / "run.json") == {}


def test_boot_id_is_one_short_line(tmp_path: Path) -> None:
    """The machine tells its boot id; a file that is not there is named."""
    assert len(read_boot_id(Path("/proc/sys/kernel/random/boot_id"))) == 36
    with pytest.raises(LocalError, match="boot id"):
        read_boot_id(tmp_path / "missing")
