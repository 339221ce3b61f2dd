"""`espilot recover` of a recovery directory: what a drained pilot spared is shipped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import run_oracle
from pilot_run import Run, Runner, eventually, job_text, runner_in
from test_recover import (
    COMMAND,
    EVENTS,
    archives_of,
    block_storage,
    give_up_jobs,
    kill_all,
    recover,
    require_recovered,
    unblock_storage,
    unstaged,
)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def make_spare(run: Run, place: Path) -> Path:
    """Two archives that were not staged, in a spare as a drain writes it; the storage is back."""
    run.wait_booked(20)
    block_storage(run)
    eventually(lambda: len(unstaged(run)) >= 2, what="archives")
    kill_all(run)
    unblock_storage(run)
    job = json.loads((run.state / "job.json").read_text())
    record = json.loads((run.state / "run.json").read_text())
    spare = place / f"{job['panda_id']}-{record['run']}"
    (spare / "archives").mkdir(parents=True)
    for tar in archives_of(run):
        for path in (tar, tar.with_name(f"{tar.name}.json")):
            shutil.copy(path, spare / "archives")
    for name in ("job.json", "run.json"):
        shutil.copy(run.state / name, spare)
    return spare


def test_lesson_15_spare_is_shipped_and_reported(runner: Runner, tmp_path: Path) -> None:
    """The archives of a spare end on the storage and in the books; doing it twice is harmless;
    the pilot that spared them goes on afterwards without a range lost or doubled."""
    run = runner.start(job_text(COMMAND, events=EVENTS))
    spare = make_spare(run, tmp_path / "spares")
    names = {path.name for path in (spare / "archives").glob("*.tar")}
    before = run.booked
    ended = recover(run, tmp_path / "spares", "--state-dir", str(tmp_path / "taken"))
    assert ended.returncode == 0, ended.stderr
    assert run.booked > before
    assert names <= {path.name for path in run.storage.iterdir()}
    summary = run_oracle.summary_of(ended.stdout)
    assert summary["state"] == "finished"
    run_oracle.take_account(run.database, run.storage)
    again = recover(run, tmp_path / "spares", "--state-dir", str(tmp_path / "taken"))
    assert again.returncode == 0 and "nothing to recover" in again.stderr
    assert spare.is_dir()
    require_recovered(run, EVENTS)


def test_spare_beyond_the_limit_of_the_server(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server has given the job up, recover says that its ranges went back; the default
    state directory is a temporary one, and nothing of it is left."""
    monkeypatch.chdir(tmp_path)
    run = runner.start(job_text(COMMAND, events=EVENTS))
    spare = make_spare(run, tmp_path / "spares")
    give_up_jobs(run)
    before = run.booked
    ended = recover(run, spare)
    assert ended.returncode == 0, ended.stderr
    assert "the server has given up job" in ended.stderr and "went back" in ended.stderr
    assert run.booked == before
    assert not list(tmp_path.glob("espilot-recover-*"))
    require_recovered(run, EVENTS)


def test_spare_of_a_server_that_is_gone(runner: Runner, tmp_path: Path) -> None:
    """Without the state directory of origin nobody wants the archives: one line says it."""
    run = runner.start(job_text(COMMAND, events=EVENTS))
    spare = make_spare(run, tmp_path / "spares")
    run.database.rename(run.database.with_name("away"))
    ended = recover(run, spare, "--state-dir", str(tmp_path / "taken"))
    assert ended.returncode == 73
    assert f"there is no {run.database.name} any more" in ended.stderr
    assert "Traceback" not in ended.stderr
