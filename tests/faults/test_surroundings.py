"""The world around the pilot is sick: clock, descriptors, disks, a storage that lies, old books."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import run_oracle
from kill_points import MOVES, Point
from pilot_run import FAKE, Runner, eventually, job_text, runner_in
from test_server_faults import JOB, pilot_and_server

EVENTS = 60
FREE = {"free_start_bytes": 0, "free_bytes": 0}
"""Small disks are the matter here, not the rule that keeps away from them."""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def job_of(events: int = EVENTS) -> str:
    """A job of a few seconds, with tries enough for all that happens to it."""
    return job_text(
        f"{FAKE} --clients 2 --delay-ms 10",
        events=events,
        packing={"max_ranges": 10},
        task={"max_attempts": 20},
        stageout={"attempts": 2, "retry_min_s": 0.05, "retry_max_s": 0.2, "storage_wait_s": 60.0},
        limits=FREE,
    )


def finish_with(runner: Runner, point: Point) -> None:
    """The harm is done, and the run ends as if it had not been."""
    marker = runner.directory / "done"
    run = runner.start(job_of(), env=point.environment(marker))
    run.require_finished(EVENTS)
    assert marker.exists(), "there was no such moment"


@pytest.mark.parametrize("by_s", [5 * 3600.0, -5 * 3600.0], ids=["forward", "backward"])
@pytest.mark.parametrize(
    ("role", "target"),
    [
        ("dispatcher", f"{MOVES}.take"),
        ("event-server", f"{MOVES}.put_ranges"),
        ("stageout", f"{MOVES}.pack"),
        ("builtin-server", "espilot.server.store:Store.update_ranges"),
        ("supervisor", "espilot.supervisor.roles:Roles.start"),
    ],
)
def test_lesson_35_clock_jumps(runner: Runner, role: str, target: str, by_s: float) -> None:
    """The time of day of one process jumps by hours in the middle of the work: nothing follows."""
    finish_with(runner, Point(role, target, "before", act=f"clock {by_s}"))


@pytest.mark.parametrize(
    ("role", "target"),
    [
        ("dispatcher", f"{MOVES}.take"),
        ("event-server", f"{MOVES}.put_ranges"),
        ("stageout", f"{MOVES}.pack"),
        ("stageout", "espilot.adapters.storage.posix:PosixStorage.put"),
        ("builtin-server", "espilot.server.store:Store.acquire_ranges"),
    ],
)
def test_no_descriptors_for_a_while(runner: Runner, role: str, target: str) -> None:
    """A process that cannot open anything for two seconds lives or is replaced; nothing is lost."""
    finish_with(runner, Point(role, target, "before", act="descriptors 2"))


def test_storage_that_says_yes_and_stores_nothing(runner: Runner) -> None:
    """An upload that ends without an error and without the file is noticed and made again."""
    point = Point("stageout", "pathlib:Path.replace", "before", within="put", act="skip")
    finish_with(runner, point)
    assert "upload failed" in runner.runs[-1].log


def test_stopped_supervisor_goes_on(runner: Runner) -> None:
    """A supervisor that stood still for longer than a role may be silent judges nobody for it."""
    job = job_text(f"{FAKE} --clients 2 --delay-ms 20", events=300, limits={"silent_s": 3.0})
    run = runner.start(job)
    run.wait_booked(20)
    run.kill("supervisor", signal.SIGSTOP)
    with subprocess.Popen(["sleep", "6"]) as pause:
        pause.wait()
    run.kill("supervisor", signal.SIGCONT)
    run.require_finished(300)
    assert "role is silent" not in run.log


def test_stopped_launcher_is_ended(runner: Runner) -> None:
    """A launcher that stands still when its payload has ended is killed; nothing is lost."""
    payload = {"exit_grace_s": 1.0, "term_grace_s": 0.0}
    run = runner.start(job_text(f"{FAKE} --clients 2 --delay-ms 10", events=80, payload=payload))
    run.wait_booked(20)
    run.kill("launcher", signal.SIGSTOP)
    run.require_finished(80)
    assert "payload does not end in its time" in run.log


@pytest.mark.parametrize("at", [0, 40])
def test_server_comes_back_with_older_books(tmp_path: Path, at: int) -> None:
    """A server that was restored from an older copy gets every range again that it has forgotten.

    What the pilot has reported since is processed once more: the books are what counts. Of an
    archive that was on its way the old books take some ranges, and others come again.
    """
    job = JOB.replace("events = 80", "events = 300")
    copy = tmp_path / "copy.sqlite"
    with pilot_and_server(tmp_path, job) as (run, server):
        eventually(lambda: "job acquired" in run.log, what="job")
        run.wait_booked(at)
        copy_database(server.database, copy)
        run.wait_booked(at + 60)
        server.stop()
        for path in tmp_path.glob("server.sqlite-*"):
            path.unlink()
        os.replace(copy, server.database)
        server.start()
        assert run.end() == 0, run.log[-3000:]
        account = run_oracle.take_account(server.database, run.storage, doubles=True)
        assert len(account.with_fate("finished")) == 300
        run_oracle.require_contents(account, lfns=("output",))
        run_oracle.require_nothing_left(run.workdir, run.state, run.runtimes)


def copy_database(source: Path, target: Path) -> None:
    """A copy of a database that is in use."""
    with closing(sqlite3.connect(source)) as db, closing(sqlite3.connect(target)) as copy:
        db.backup(copy)


@contextmanager
def small_disk(target: Path, size: str) -> Iterator[None]:
    """A small file system at this directory; the test is skipped where it cannot be made."""
    target.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(target)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


def remount(target: Path, options: str) -> None:
    """Change a mounted file system; while a file in it is being written it is busy."""
    command = ["mount", "-o", f"remount,{options}", str(target)]
    eventually(
        lambda: not subprocess.run(command, capture_output=True, check=False).returncode,
        what=" ".join(command),
    )


def fill(directory: Path) -> Path:
    """A file that takes all the space there is."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(2**16)):
                pass
        except OSError:
            return path
    return path


def test_read_only_storage(tmp_path: Path) -> None:
    """A storage that refuses to be written is trouble, and its end is the end of the trouble."""
    target = tmp_path / "small"
    with small_disk(target, "64m"), runner_in(tmp_path) as runner:
        run = runner.start(job_of(200), "--storage", str(target))
        run.storage = target
        run.wait_booked(20)
        remount(target, "ro")
        eventually(lambda: "storage health changed state=trouble" in run.log, what="trouble")
        remount(target, "rw")
        run.require_finished(200)


@pytest.mark.parametrize("place", ["state", "."], ids=["state", "work"])
def test_full_disk_in_the_middle(tmp_path: Path, place: str) -> None:
    """The disk of the state or work directory is full for a while: the run waits, and goes on."""
    target = tmp_path / "w" / place
    with small_disk(target, "96m"), runner_in(tmp_path) as runner:
        run = runner.start(job_of(200), "--storage", str(tmp_path / "storage"))
        run.storage = tmp_path / "storage"
        run.wait_booked(20)
        filler = fill(target)
        with subprocess.Popen(["sleep", "2"]) as pause:
            pause.wait()
        filler.unlink()
        run.require_finished(200)
