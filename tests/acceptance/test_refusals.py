"""What cannot work is refused before anything is started: one line, the thing and the remedy."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pilot_run import ESPILOT, FAKE, ROOT, Runner, job_text, runner_in

USAGE, LOCAL = 64, 73


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def refuse(*arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a command line that is refused without a word on stdout."""
    done = subprocess.run(
        [*ESPILOT, *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def refuse_job(directory: Path, text: str, *arguments: str) -> tuple[int, str]:
    """The same for a job file of this text; stderr is one line."""
    path = directory / "job.toml"
    path.write_text(text)
    workdir = str(directory / "w")
    code, stderr = refuse("run", "--local", str(path), "--workdir", workdir, *arguments)
    assert len(stderr.splitlines()) == 1, stderr
    return code, stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[task]\nevents = 5\nevent_per_range = 1\n", "did you mean task.events_per_range"),
        ("[taks]\nevents = 5\n", "did you mean task"),
        ("[task]\nevents = \n", "not valid TOML"),
        ("[task]\nevents = 'many'\n", "task.events must be of type int"),
        ("[task]\nevents = -1\n", "task.events is -1"),
        ("[payload]\ncommand = 'true'\n", "task.events"),
        ("[task]\nevents = 5\n", "payload.command"),
        ("[task]\nevents = 5\n[payload]\ncommand = 'a'\nexec = 'b'\n", "one of payload.command"),
        ("[task]\nevents = 5\n[payload]\ncommand = 'it\\'s'\n", ""),
        ('[task]\nevents = 5\n[payload]\ncommand = "it\'s"\n', "payload.command"),
        ("storage = 'gopher://x'\n[task]\nevents = 5\n[payload]\ncommand = 'a'\n", "gopher"),
        ("[task]\nevents = 5\nname = 'a b'\n[payload]\ncommand = 'a'\n", "task.name"),
        ("[task]\nevents = 5\noutputs = ['a/b']\n[payload]\ncommand = 'a'\n", "task.outputs"),
        ("[task]\nevents = 5\ninputs = ['gone.dat']\n[payload]\ncommand = 'a'\n", "gone.dat"),
        ("[task]\nevents = 5\n[payload]\nexec = 'sim {what}'\n", "what"),
    ],
)
def test_job_files(tmp_path: Path, text: str, words: str) -> None:
    """A job file that cannot work is refused with exit code 64, the key and what to do."""
    code, stderr = refuse_job(tmp_path, text)
    assert code == USAGE
    assert words in stderr, stderr


def test_missing_job_file(tmp_path: Path) -> None:
    """A job file that is not there is named."""
    code, stderr = refuse("run", "--local", str(tmp_path / "gone.toml"))
    assert code == USAGE
    assert "gone.toml" in stderr and len(stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["run", "--local"], ["run", "--bad"]])
def test_wrong_command_lines(arguments: list[str]) -> None:
    """A wrong command line is exit code 64, which no result of a run is."""
    code, stderr = refuse(*arguments)
    assert code == USAGE
    assert "espilot" in stderr


@pytest.mark.parametrize("option", ["--workdir", "--state-dir", "--storage"])
def test_directories_that_cannot_be(tmp_path: Path, option: str) -> None:
    """A directory that cannot be made is named, whichever of the three it is."""
    (tmp_path / "file").write_text("")
    bad = str(tmp_path / "file" / "below")
    arguments = [option, bad, "--state-dir", str(tmp_path / "s")][: 2 if "state" in option else 4]
    code, stderr = refuse_job(tmp_path, job_text("true", events=5), *arguments)
    assert code in (USAGE, LOCAL, 75), stderr
    assert bad in stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_workdir(tmp_path: Path) -> None:
    """A work directory without write permission is refused and named."""
    tmp_path.chmod(0o500)
    code, stderr = refuse("run", "--local", "x", "--workdir", str(tmp_path / "w"))
    tmp_path.chmod(0o700)
    assert code in (USAGE, LOCAL)
    assert len(stderr.splitlines()) == 1


def test_state_directory_of_another_pilot(runner: Runner) -> None:
    """A second pilot on the same state directory is told the process of the first."""
    job = job_text(f"{FAKE} --clients 2 --delay-ms 20", events=100)
    first = runner.start(job)
    first.wait_booked(1)
    second = runner.start(job)
    assert second.end() == LOCAL
    assert f"process {first.process.pid}" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    first.require_finished(100)


def test_another_task_in_the_same_place(runner: Runner) -> None:
    """An unfinished run is not overwritten by another task; the way out is named."""
    job = job_text(f"{FAKE} --clients 2 --delay-ms 20", events=200)
    run = runner.start(job)
    run.wait_booked(20)
    run.process.terminate()
    run.end()
    other = runner.start(job.replace('name = "faults"', 'name = "other"'))
    assert other.end() == USAGE
    assert re.search("unfinished task 'faults'.*--workdir", other.stderr)
    runner.start(job).require_finished(200)


def test_payload_that_does_not_exist(runner: Runner) -> None:
    """A command that cannot be started fails the run at once, named on stderr in one line."""
    run = runner.start(job_text("/no/such/program --x", events=10))
    assert run.end(20.0) == 1
    assert run.summary["state"] == "failed"
    assert "/no/such/program" in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.account().with_fate("ready")) == 10


def test_entry_points_exist() -> None:
    """What setup.py promises as commands can be imported and called."""
    text = (ROOT / "setup.py").read_text()
    found = re.findall(r'"([\w-]+) = ([\w.]+):(\w+)"', text)
    assert {name for name, _, _ in found} == {"espilot", "fake-payload"}
    for _, module, function in found:
        assert callable(getattr(importlib.import_module(module), function))
