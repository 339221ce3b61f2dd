"""Payloads that only make files, in whole runs: both ways to get ranges, kills, hostile files."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pilot_run import Runner, job_text, runner_in

from espilot.cli.main import main
from espilot.config import read_settings
from espilot.errors import ConfigError

PAYLOAD = f"{sys.executable} {Path(__file__).with_name('file_payload.py')}"
EVENTS = 60
ASK, READ = f"{PAYLOAD} ask --clients 2", f"{PAYLOAD} read --file {{ranges}}"
WAYS = {
    "channel-renamed": (ASK, {"outputs": "renamed"}),
    "channel-closed": (f"{ASK} --how direct", {"outputs": "closed"}),
    "file-renamed": (READ, {"outputs": "renamed", "ranges": "file"}),
    "file-closed": (f"{READ} --how direct", {"outputs": "closed", "ranges": "file"}),
    "file-unwatched": (f"{READ} --how direct", {"ranges": "file"}),
}
"""Command and settings by the way in which ranges come and outputs are told."""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def job_of(way: str, *, events: int = EVENTS, **payload: Any) -> str:
    """A job whose payload works in that way."""
    command, settings = WAYS[way]
    return job_text(command, events=events, payload=settings | payload)


@pytest.mark.parametrize("way", WAYS)
def test_whole_run_of_a_payload_that_reports_nothing(runner: Runner, way: str) -> None:
    """Every range ends on the storage with its content, and at the server, by its files alone."""
    run = runner.finish(job_of(way, max_held=16), EVENTS)
    assert "warning" not in run.log


@pytest.mark.parametrize(
    ("role", "way"),
    [
        ("dispatcher", "channel-renamed"),
        ("dispatcher", "channel-closed"),
        ("dispatcher", "file-renamed"),
        ("payload", "channel-closed"),
        ("client", "channel-closed"),
    ],
)
def test_killed_watcher_or_maker_loses_nothing(runner: Runner, way: str, role: str) -> None:
    """Whoever is killed with files half noticed and half written: no output is lost or half."""
    command, settings = WAYS[way]
    packing = {"max_ranges": 5, "max_age_s": 0.2}
    payload = settings | {"max_held": 16}
    run = runner.start(
        job_text(f"{command} --delay-ms 60", events=EVENTS, payload=payload, packing=packing)
    )
    run.wait_booked(random.Random(f"{way} {role}").randrange(1, 20))
    run.kill(role)
    run.require_finished(EVENTS)


def test_a_stopped_dispatcher_misses_no_file(runner: Runner) -> None:
    """While it sleeps the kernel keeps the events, and its successor looks for itself."""
    command, settings = WAYS["channel-renamed"]
    command += " --delay-ms 20"
    run = runner.start(job_text(command, events=EVENTS, payload=settings, limits={"silent_s": 3.0}))
    run.wait_booked(20)
    pid = run.kill("dispatcher", signal.SIGSTOP)
    run.wait_replaced("dispatcher", pid)
    run.require_finished(EVENTS)


HOSTILE = """
import os, sys
sys.path.insert(0, {here!r})
from file_payload import main, make
def spoil(path, range_id, how, delay_s, make=make):
    number = int(range_id.split("-")[3])
    kind = number % 4 if range_id.endswith("-3") else 0
    if kind == 1:
        os.symlink("/etc/passwd", path)
        os.rename(path, path)
        os.symlink("/etc/passwd", path + ".l")
        os.rename(path + ".l", path)
    elif kind == 2:
        os.mkdir(path + ".d")
        os.rename(path + ".d", path)
    elif kind == 3:
        open(path + ".e", "w").close()
        os.rename(path + ".e", path)
    else:
        directory = os.path.dirname(path)
        for strange in ("output.", "output.1-2-3", "output.\\n", "output." + "9" * 200):
            with open(os.path.join(directory, "t"), "w") as file:
                file.write("strange")
            os.rename(os.path.join(directory, "t"), os.path.join(directory, strange))
        if os.path.lexists(path) and not os.path.isfile(path):
            os.rmdir(path)
        make(path, range_id, how, delay_s)
import file_payload
file_payload.make = spoil
main()
"""


def test_hostile_files_fail_their_range_and_no_other(runner: Runner, tmp_path: Path) -> None:
    """A link, a directory, an empty file: that try fails with the reason; strange names do
    nothing; the next try counts."""
    script = tmp_path / "hostile.py"
    script.write_text(HOSTILE.format(here=str(Path(__file__).parent)))
    command = f"{sys.executable} {script} ask"
    run = runner.start(job_text(command, events=20, payload={"outputs": "renamed"}))
    run.require_finished(20)
    for reason in ("symbolic link", "is a directory", "is empty"):
        assert reason in (run.state / "events.jsonl").read_text(), reason


def test_a_command_that_fails_fails_its_ranges(runner: Runner) -> None:
    """Ranges without an output at the command's end fail with its exit code, and end so."""
    script = "import sys; sys.exit(7)"
    command = f"{sys.executable} -c '{script}' {{ranges}}"
    settings = {"outputs": "renamed", "ranges": "file"}
    run = runner.start(job_text(command, events=4, payload=settings, task={"max_attempts": 2}))
    assert run.end() != 0
    account = run.account()
    assert not account.with_fate("finished")
    diags = {each.error_diag for each in account.ranges}
    assert all(diag and "ended with exit code 7, and made no output" in diag for diag in diags)


def test_drain_ends_the_command_and_keeps_what_is_made(runner: Runner) -> None:
    """SIGTERM in the middle of a file of ranges: what is there is shipped, the rest goes back,
    and the next run ends the task."""
    job = job_of("file-renamed", events=40, max_held=30) + "[drain]\nnotice_s = 6.0\n"
    first = runner.start(job, env={"FILE_PAYLOAD_DELAY_MS": "500"})
    first.wait_booked(1)
    first.kill("supervisor", signal.SIGUSR1)
    assert first.end() == 3, first.log[-3000:]
    assert 1 <= first.booked < 30
    runner.start(job).require_finished(40)


def test_settings_that_do_not_fit() -> None:
    """Unknown words are refused, and exec, whose runner reports for itself."""
    for key in ("ranges", "outputs"):
        with pytest.raises(ConfigError, match=f"payload.{key} is 'x'"):
            read_settings({"payload": {key: "x"}}, "job.toml")


def test_exec_reports_for_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`exec` with a watched directory is refused in one line."""
    job = tmp_path / "job.toml"
    job.write_text(job_text("", payload={"exec": "true {output}", "outputs": "renamed"}))
    assert main(["run", "--local", str(job), "--workdir", str(tmp_path / "w")]) == 64
    assert "payload.outputs are for payload.command" in capsys.readouterr().err
