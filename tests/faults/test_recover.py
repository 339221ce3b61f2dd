"""`espilot recover` after the worst: whatever was killed, and when, every range ends well."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_oracle
from pilot_run import END_S, ESPILOT, FAKE, Run, Runner, end_processes_of, eventually, job_text
from pilot_run import runner_in as runs_in

from espilot.model import ArchiveState
from espilot.queue.store import Queue
from espilot.server.options import ServerOptions
from espilot.server.store import Store

EVENTS = 120
COMMAND = f"{FAKE} --clients 2 --delay-ms 20"
TRIGGERS = (
    "job acquired", "ranges fetched", "payload started", "archive sealed",
    "archive on the storage", "ranges reported", "phase=settling", "phase=ending",
)  # fmt: skip


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runs_in(tmp_path) as made:
        yield made


def kill_all(run: Run) -> None:
    """KILL every process of a run, before any of them sees another die."""
    run.note_runtime()
    if not run.ended:
        run.process.send_signal(signal.SIGSTOP)
    end_processes_of(run.workdir)
    run.process.wait()


def recover(
    run: Run, directory: Path | None = None, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """`espilot recover DIR --json`, to its end."""
    argv = [*ESPILOT, "recover", str(directory or run.workdir), "--json", *arguments]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=END_S, start_new_session=True, check=False
    )


def require_recovered(run: Run, total: int, directory: Path | None = None) -> dict[str, Any]:
    """Recover, and require that every range is finished once with the right output."""
    ended = recover(run, directory)
    assert ended.returncode == 0, f"{ended.stderr}\n{run.log[-6000:]}"
    account = run.account()
    assert len(account.with_fate("finished")) == total
    run_oracle.require_contents(account, lfns=("output",))
    summary = run_oracle.summary_of(ended.stdout)
    assert (summary["state"], len(ended.stdout.splitlines())) == ("finished", 1)
    assert isinstance(summary["ranges"], dict) and summary["ranges"]["finished"] == total
    return {**summary, "said": ended.stderr}


def wait_log(run: Run, text: str) -> None:
    """Wait until the pilot's log says something, or the pilot has ended."""
    eventually(lambda: text in run.log or run.ended, what=text)


def archives_of(run: Run) -> list[Path]:
    """The sealed archives that wait on the node."""
    return sorted((run.state / "archives").glob("*.tar"))


def unstaged(run: Run) -> list[Path]:
    """Those of them that are not on the storage, which may be out of reach."""
    away = run.storage.with_name("storage.away")
    stored = away if away.exists() else run.storage
    return [path for path in archives_of(run) if not (stored / path.name).exists()]


def booked(run: Run) -> set[str]:
    """The names of those that the queue knows; one sealed a moment ago may not be in it yet."""
    queue = Queue(run.state / "queue")
    try:
        return {archive.name for archive in queue.archives(ArchiveState.PACKED)}
    finally:
        queue.close()


def block_storage(run: Run) -> None:
    """Nothing can be staged any more."""
    run.storage.rename(run.storage.with_name("storage.away"))
    run.storage.touch()


def unblock_storage(run: Run) -> None:
    """The storage is as it was."""
    run.storage.unlink()
    run.storage.with_name("storage.away").rename(run.storage)


def start_with_boot(runner: Runner, boot: str, **limits: Any) -> Run:
    """A run that takes a file of the test's for the boot id."""
    (runner.directory / "boot").write_text(boot)
    limits["boot_id_file"] = str(runner.directory / "boot")
    return runner.start(job_text(COMMAND, events=EVENTS, limits=limits))


def crash_machine(runner: Runner, run: Run, *, packed: int = 0) -> None:
    """Everything dies, with so many archives sealed and not staged, and the boot id is another."""
    run.wait_booked(20)
    if packed:
        block_storage(run)
        eventually(lambda: len(unstaged(run)) >= packed, what="archives")
    kill_all(run)
    if packed:
        unblock_storage(run)
    (runner.directory / "boot").write_text("another boot")


def give_up_jobs(run: Run) -> None:
    """The server has not heard of its jobs for longer than it waits."""
    now = time.time()
    store = Store(run.database, ServerOptions(), now=now)
    try:
        assert store.fail_lost_jobs(now + 1e6) == 1
    finally:
        store.close()


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_lesson_08_recover_after_the_death_of_all(runner: Runner, trigger: str) -> None:
    """Everything is killed right after a step of the pilot; recover finishes the task."""
    run = runner.start(job_text(COMMAND, events=EVENTS))
    wait_log(run, trigger)
    kill_all(run)
    require_recovered(run, EVENTS)


@pytest.mark.parametrize("seed", range(3))
def test_lesson_08_recover_after_deaths_at_random_moments(runner: Runner, seed: int) -> None:
    """The run is killed, recovered, killed, and recovered again: nothing is lost or doubled."""
    chance = random.Random(f"recover {seed}")
    run = runner.start(job_text(COMMAND, events=EVENTS))
    run.wait_booked(chance.randrange(1, 60))
    kill_all(run)
    argv = [*ESPILOT, "recover", str(run.state), "--json"]
    with run.stdout_path.open("wb") as out:
        run.process = subprocess.Popen(argv, stdout=out, start_new_session=True)
    run.wait_booked(chance.randrange(60, 110))
    kill_all(run)
    require_recovered(run, EVENTS)


def test_killed_supervisor_is_recovered_from(runner: Runner) -> None:
    """When only the supervisor is killed, recover waits for its children and goes on."""
    run = runner.start(job_text(COMMAND, events=EVENTS))
    run.wait_booked(30)
    run.process.kill()
    run.process.wait()
    found = require_recovered(run, EVENTS)
    assert "found: job" in found["said"]
    assert "ranges here: ready" in found["said"]


def test_recover_twice_is_harmless(runner: Runner) -> None:
    """The second time there is nothing to do: exit code 0 and the summary of the task."""
    run = runner.start(job_text(COMMAND, events=60))
    run.wait_booked(10)
    kill_all(run)
    first = require_recovered(run, 60)
    books = run.database.read_bytes()
    again = recover(run)
    assert (again.returncode, again.stderr) == (0, "nothing to recover\n")
    assert run_oracle.summary_of(again.stdout) == {k: v for k, v in first.items() if k != "said"}
    assert run.database.read_bytes() == books
    run.account()


def test_recover_after_a_run_that_finished(runner: Runner) -> None:
    """After a natural end there is nothing to recover either."""
    run = runner.finish(job_text(f"{FAKE} --clients 2", events=40), 40)
    ended = recover(run)
    assert (ended.returncode, ended.stderr) == (0, "nothing to recover\n")
    assert run_oracle.summary_of(ended.stdout) == run.summary


def test_recover_after_a_drain(runner: Runner) -> None:
    """What a drained run left to do is done."""
    run = runner.start(job_text(COMMAND, events=EVENTS))
    run.wait_booked(20)
    run.process.terminate()
    assert run.end() == 3
    assert "espilot recover" in run.stderr or run.summary["state"] == "drained"
    require_recovered(run, EVENTS)


def test_lesson_55_work_directory_is_gone(runner: Runner, tmp_path: Path) -> None:
    """A wrapper removed the work directory: the state directory is enough to finish the task."""
    state, storage = tmp_path / "state", tmp_path / "out"
    job = job_text(COMMAND, events=EVENTS, packing={"max_age_s": 600.0, "max_ranges": 20})
    run = runner.start(job, "--state-dir", str(state), "--storage", str(storage))
    run.state, run.storage, run.database = state, storage, state / "server.sqlite"
    run.wait_booked(20)
    eventually(lambda: run_oracle.queued(state)["done"] > 2, what="outputs not packed")
    kill_all(run)
    subprocess.run(["rm", "-r", str(run.workdir), str(tmp_path / "job.toml")], check=True)
    found = require_recovered(run, EVENTS, state)
    assert "outputs are missing or short" in found["said"]


def test_work_directory_stands_for_its_state_directory(runner: Runner, tmp_path: Path) -> None:
    """A state directory elsewhere is found from the work directory."""
    state = tmp_path / "elsewhere"
    run = runner.start(job_text(COMMAND, events=60), "--state-dir", str(state))
    run.state, run.database = state, state / "server.sqlite"
    run.wait_booked(10)
    kill_all(run)
    require_recovered(run, 60)


def test_short_output_is_made_again(runner: Runner) -> None:
    """An output that lost its end is not shipped: its range is processed again."""
    job = job_text(COMMAND, events=EVENTS, packing={"max_age_s": 600.0, "max_ranges": 50})
    run = runner.start(job)
    run.wait_booked(50)
    eventually(lambda: run_oracle.queued(run.state)["done"] > 4, what="outputs not packed")
    kill_all(run)
    outputs = sorted((run.workdir / "payload-1").glob("output.*"))
    for path in outputs[:2]:
        with path.open("r+b") as file:
            file.truncate(10)
    outputs[-1].with_name("output.1-1-1-1-1").write_text("of nobody")
    require_recovered(run, EVENTS)
    assert not list((run.workdir / "payload-1").glob("output.*"))


def test_job_that_the_server_gave_up(runner: Runner) -> None:
    """Beyond the lost-heartbeat limit the ranges are the server's: recover says so and goes on."""
    run = runner.start(job_text(COMMAND, events=EVENTS))
    run.wait_booked(20)
    block_storage(run)
    eventually(
        lambda: booked(run).intersection(path.name for path in unstaged(run)), what="archives"
    )
    kill_all(run)
    unblock_storage(run)
    orphans = {path.name for path in unstaged(run)}
    give_up_jobs(run)
    found = require_recovered(run, EVENTS)
    assert "the server has given up job" in found["said"]
    assert any(f"no longer wants this archive name={name}" in run.log for name in orphans)
    for name in orphans:
        # One that was sealed at the moment of the kill was not booked yet.
        assert f"name={name}" in run.log and not (run.storage / name).exists()


def test_other_boot_ships_the_sealed_archives(runner: Runner) -> None:
    """After a crash of the machine the queue is not trusted; sealed archives are shipped."""
    run = start_with_boot(runner, "one boot")
    crash_machine(runner, run, packed=2)
    sealed = {path.name for path in archives_of(run)}
    found = require_recovered(run, EVENTS)
    assert "the machine was started anew" in found["said"]
    assert (run.state / "queue.crashed-1" / "data.mdb").exists()
    assert sealed <= {path.name for path in run.storage.iterdir()}
    assert found["jobs"] == 2


def test_queue_of_another_version(runner: Runner) -> None:
    """A queue that another version has written is not even opened; sealed archives are shipped."""
    run = runner.start(job_text(COMMAND, events=EVENTS))
    run.wait_booked(20)
    block_storage(run)
    eventually(lambda: len(unstaged(run)) >= 2, what="archives")
    kill_all(run)
    unblock_storage(run)
    sealed = {path.name for path in archives_of(run)}
    note = run.state / "queue" / "boot.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"layout": 1}))
    (run.state / "queue" / "data.mdb").write_bytes(b"rows of another kind")
    found = require_recovered(run, EVENTS)
    assert "another version of espilot has written it: the queue is set aside" in found["said"]
    assert sealed <= {path.name for path in run.storage.iterdir()}


def test_other_boot_sets_a_damaged_archive_aside(runner: Runner) -> None:
    """An archive that its manifest does not prove is named, kept aside, and made again."""
    run = start_with_boot(runner, "one boot")
    crash_machine(runner, run, packed=2)
    damaged, *whole = unstaged(run)
    data = bytearray(damaged.read_bytes())
    data[700] ^= 1
    damaged.write_bytes(data)
    found = require_recovered(run, EVENTS)
    assert f"archive {damaged.name} is set aside: " in found["said"]
    assert (run.state / "archives.damaged" / damaged.name).read_bytes() == bytes(data)
    stored = {path.name for path in run.storage.iterdir()}
    assert damaged.name not in stored and {path.name for path in whole} <= stored


def test_other_boot_and_a_job_that_the_server_gave_up(runner: Runner) -> None:
    """Nobody waits for the sealed archives any more: their ranges are processed again."""
    run = start_with_boot(runner, "one boot")
    crash_machine(runner, run, packed=2)
    give_up_jobs(run)
    found = require_recovered(run, EVENTS)
    assert "the server has given up job" in found["said"]


@pytest.mark.parametrize("lost", ["queue", "job.json"])
def test_interrupted_recovery_after_other_boot(runner: Runner, lost: str) -> None:
    """A recovery that died between its renames, or found no job, loses nothing either."""
    run = start_with_boot(runner, "one boot")
    crash_machine(runner, run, packed=1)
    subprocess.run(["rm", "-r", str(run.state / lost)], check=True)
    if lost == "job.json":
        give_up_jobs(run)
    require_recovered(run, EVENTS)


def test_same_job_file_recovers_after_other_boot(runner: Runner) -> None:
    """`espilot run` on the same state directory does the same as recover."""
    run = start_with_boot(runner, "one boot")
    crash_machine(runner, run, packed=1)
    limits = {"boot_id_file": str(runner.directory / "boot")}
    again = runner.start(job_text(COMMAND, events=EVENTS, limits=limits))
    again.require_finished(EVENTS)
    assert "the machine was started anew" in again.stderr


def test_what_cannot_be_recovered_is_said_in_one_line(runner: Runner, tmp_path: Path) -> None:
    """Nothing, an empty directory, a file: exit code 64 and one clear line; nothing is made."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, said in (
        ("empty", "holds no state of a run"),
        ("file", "is a file"),
        ("nothing", "does not exist"),
    ):
        argv = [*ESPILOT, "recover", str(tmp_path / name)]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=END_S, check=False)
        assert (ended.returncode, ended.stdout) == (64, "")
        assert said in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "nothing").exists()


def test_damaged_record_is_said_in_one_line(runner: Runner) -> None:
    """A record that cannot be read is named, with another way to go on."""
    run = runner.start(job_text(COMMAND, events=EVENTS))
    run.wait_booked(10)
    kill_all(run)
    record = run.state / "run.json"
    text = record.read_text()
    record.write_text('{"state": "running"}')
    ended = recover(run)
    assert ended.returncode == 73
    assert "run.json cannot be used" in ended.stderr and len(ended.stderr.splitlines()) == 1
    record.write_text(text)
    require_recovered(run, EVENTS)


@pytest.mark.parametrize("text", [None, "not JSON"])
def test_lost_record_and_the_same_job_file(runner: Runner, text: str | None) -> None:
    """Without a usable record the same `espilot run` goes on with what is there, all of it."""
    job = job_text(COMMAND, events=EVENTS)
    run = runner.start(job)
    run.wait_booked(10)
    kill_all(run)
    before, record = run.booked, run.state / "run.json"
    record.unlink() if text is None else record.write_text(text)
    again = runner.start(job)
    again.require_finished(EVENTS)
    assert "going on with the unfinished run" in again.stderr
    assert again.booked >= before >= 10


def test_live_pilot_is_not_disturbed(runner: Runner) -> None:
    """Recover of a directory in use names the pid of its pilot, exit code 73; the run goes on."""
    run = runner.start(job_text(COMMAND, events=EVENTS))
    run.wait_booked(10)
    started = time.monotonic()
    ended = recover(run)
    assert ended.returncode == 73 and f"process {run.process.pid}" in ended.stderr
    assert time.monotonic() - started < END_S / 2
    run.require_finished(EVENTS)
