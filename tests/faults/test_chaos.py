"""A short chaos run, as the command runs it; and the oracle sees what it is there to see."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import chaos_oracle
import pytest
import run_oracle
from chaos_jobs import JobPlan, draw_job
from patience import eventually
from pilot_run import FAKE, Run, job_text, runner_in

from espilot.payload.fake.content import expected_content

HERE = Path(__file__).resolve().parent
PLAN = JobPlan("", 30, ("output",), 100, "")


def test_lesson_08_short_chaos(tmp_path: Path) -> None:
    """Random kills of all roles for half a minute: nothing is lost, doubled, wrong or left."""
    argv = [sys.executable, str(HERE / "chaos.py"), "--seconds", "30", "--seed", "42"]
    ended = subprocess.run(
        [*argv, "--directory", str(tmp_path / "chaos")],
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == 0, f"{told}\n{ended.stderr[-8000:]}"
    assert list(told)[-4:] == ["lost", "doubled", "wrong_output", "orphans"]
    assert not any(told[name] for name in ("lost", "doubled", "wrong_output", "orphans"))
    assert told["kills_total"] >= 10
    assert told["ranges"] > 0
    assert not (tmp_path / "chaos").exists()


def test_jobs_follow_from_the_seed() -> None:
    """The same seed draws the same job, another one another."""
    assert draw_job(Random("1 0 0")) == draw_job(Random("1 0 0"))
    assert len({draw_job(Random(f"{n} 0 0")).text for n in range(8)}) == 8


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that went well; each test works on a copy of its books and storage."""
    directory = tmp_path_factory.mktemp("oracle")
    with runner_in(directory) as runner:
        job = job_text(f"{FAKE} --clients 2", events=30, packing={"max_ranges": 10})
        yield runner.finish(job, 30)


def change_books(statement: str) -> Callable[[Run], None]:
    """A change of the server's database."""

    def change(run: Run) -> None:
        with closing(sqlite3.connect(run.database)) as db, db:
            db.execute(statement)

    return change


def remove_archive(run: Run) -> None:
    """One archive is not on the storage."""
    next(run.storage.glob("*.tar")).unlink()


def swap_content(run: Run) -> None:
    """One output has the content of another; the checksum of its archive was taken after it."""
    path = next(run.storage.glob("*.tar"))
    found = [line for line in path.read_bytes().split(b"\0") if line.endswith(b"....")]
    id_ = found[0].split(b"\n")[0].decode()
    wrong = expected_content(id_, 100).replace(b".", b"!")
    path.write_bytes(path.read_bytes().replace(expected_content(id_, 100), wrong))


def list_twice(run: Run) -> None:
    """A second archive with the same ranges is reported."""
    path = next(run.storage.glob("*.tar"))
    (run.storage / "again.tar").write_bytes(path.read_bytes())
    change_books(
        "INSERT INTO archive SELECT panda_id, 'again.tar', storage, size_bytes, adler32, n_events"
        f" FROM archive WHERE lfn = '{path.name}'"
    )(run)


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (remove_archive, "lost"),
        (change_books("DELETE FROM archive"), "lost"),
        (change_books("DELETE FROM event WHERE process_id = 1"), "lost"),
        (change_books("UPDATE event SET status = 1 WHERE process_id = 1"), "lost"),
        (swap_content, "wrong_output"),
        (change_books("UPDATE archive SET size_bytes = size_bytes + 1"), "wrong_output"),
        (change_books("UPDATE event SET status = 0 WHERE process_id = 1"), "wrong_output"),
        (list_twice, "doubled"),
    ],
)
def test_oracle_sees_each_harm(
    finished: Run, tmp_path: Path, harm: Callable[[Run], None], kind: str
) -> None:
    """A loss, a double, or a wrong output made by hand is found, and nothing without it."""
    storage, database = tmp_path / "storage", tmp_path / "server.sqlite"
    storage.mkdir()
    for path in finished.storage.glob("*.tar"):
        (storage / path.name).write_bytes(path.read_bytes())
    with (
        closing(sqlite3.connect(finished.database)) as source,
        closing(sqlite3.connect(database)) as target,
    ):
        source.backup(target)
    run = replace(finished, storage=storage, database=database)
    assert chaos_oracle.audit(database, storage, PLAN).bad == []
    harm(run)
    found = chaos_oracle.audit(database, storage, PLAN)
    assert getattr(found, kind), found


def test_oracle_sees_what_is_left_behind(tmp_path: Path) -> None:
    """A process, an archive, and a temporary object that are left are found."""
    (tmp_path / "state" / "archives").mkdir(parents=True)
    (tmp_path / "storage").mkdir()
    assert chaos_oracle.orphans(tmp_path, tmp_path / "state", set()) == []
    (tmp_path / "state" / "archives" / "a.tar").touch()
    (tmp_path / "storage" / ".a.tar.tmp").touch()
    with subprocess.Popen(["sleep", "60"], env={"WORKDIR": str(tmp_path)}) as process:
        # The environment of a process can be read a moment after its start only.
        eventually(lambda: run_oracle.processes_of(tmp_path), what="the process")
        found = chaos_oracle.orphans(tmp_path, tmp_path / "state", {str(tmp_path / "state")})
        process.kill()
    assert len(found) == 4
