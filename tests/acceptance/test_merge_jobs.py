"""Tasks that end with a merge job: one file of all outputs, whatever goes wrong on the way."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import run_oracle
from pilot_run import FAKE, Run, Runner, end_processes_of, eventually, job_text, runner_in

from espilot.payload.fake.content import expected_content

EVENTS = 60
MERGE = """\
import sys, time
from pathlib import Path
here = Path(__file__).parent
[listed] = [a for a in sys.argv[1:] if a.startswith("@")]
option, *names = Path(listed[1:]).read_text().splitlines()
assert option == "--in" and sys.argv[-1] == "--out=output", sys.argv
print("merging", len(names))
(here / "merging").write_text("")
while (here / "hold").exists():
    time.sleep(0.02)
if (here / "fail").exists():
    (here / "fail").unlink()
    sys.exit(3)
Path("output").write_bytes(b"".join(Path(name).read_bytes() for name in names))
"""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    (tmp_path / "merge.py").write_text(MERGE)
    with runner_in(tmp_path) as made:
        yield made


def merging_job(delay_ms: int = 0, **task: object) -> str:
    """A job of the fake payload whose outputs are merged."""
    merge = {
        "merge_transformation": "{python} {jobdir}/merge.py",
        "merge_parameters": "--in=@inputFor_output --out=output",
    }
    command = f"{FAKE} --clients 2 --delay-ms {delay_ms}"
    return job_text(command, events=EVENTS, task=merge | task)


def require_merged(run: Run, code: int = 0) -> None:
    """The run ended well, and the merged file has the outputs of all ranges in their order."""
    assert run.end() == code, run.stderr + run.log[-6000:]
    books = run_oracle.read_books(run.database)
    run_oracle.require_nothing_left(run.workdir, run.state, run.runtimes)
    ranges = sorted(books.ranges, key=lambda each: each.key)
    assert [each.fate for each in ranges] == ["finished"] * EVENTS
    merged = (run.storage / "output").read_bytes()
    assert merged == b"".join(expected_content(each.id, 100) for each in ranges)
    assert run.summary["state"] == "finished"


def jobs_of(run: Run, kind: int) -> list[sqlite3.Row]:
    db = sqlite3.connect(f"file:{run.database}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    try:
        query = "SELECT * FROM job WHERE kind = ? ORDER BY panda_id"
        return db.execute(query, (kind,)).fetchall()
    finally:
        db.close()


def test_outputs_are_merged(runner: Runner) -> None:
    """The merged file is on the storage, with a log archive; the server has all that it wants."""
    run = runner.start(merging_job())
    require_merged(run)
    [merge] = jobs_of(run, kind=2)
    assert (merge["status"], merge["error_code"]) == ("finished", 0)
    told = json.loads(merge["pilot_fields"])
    report = json.loads(told["job_output_report"])
    assert report["output"]["fsize"] == EVENTS * 100
    assert told["trans_exit_code"] == 0
    [log] = [name for name in report if name.startswith("log.")]
    with tarfile.open(run.storage / log) as tar:
        names = tar.getnames()
        stdout = next(name for name in names if name.endswith("payload.stdout"))
        file = tar.extractfile(stdout)
        assert file is not None and file.read() == f"merging {EVENTS}\n".encode()
    assert not [name for name in names if name.endswith("/output")]


def test_damaged_archive_is_made_again(runner: Runner) -> None:
    """An archive that is not what was reported is named, and its ranges alone are made again."""
    run = runner.start(merging_job(delay_ms=20))
    run.wait_booked(20)
    damaged = min(run.storage.glob("*.tar"))
    damaged.write_bytes(damaged.read_bytes()[:-1000] + b"x" * 1000)
    require_merged(run)
    first, last = jobs_of(run, kind=2)
    assert (first["status"], first["error_code"]) == ("failed", 1171)
    assert first["corrupted_files"] == damaged.name
    assert last["status"] == "finished"
    events = jobs_of(run, kind=1)
    assert sum(job["ranges_finished"] for job in events) < 2 * EVENTS


def test_missing_archive_is_made_again(runner: Runner) -> None:
    """The same for an archive that the storage has lost."""
    run = runner.start(merging_job(delay_ms=20))
    run.wait_booked(20)
    lost = min(run.storage.glob("*.tar"))
    lost.unlink()
    require_merged(run)
    first = jobs_of(run, kind=2)[0]
    assert (first["status"], first["corrupted_files"]) == ("failed", lost.name)


def test_killed_executor_begins_anew(runner: Runner) -> None:
    """The death of the process beside the payload costs time; the job is the same."""
    (runner.directory / "hold").write_text("")
    run = runner.start(merging_job())
    eventually((runner.directory / "merging").exists, what="the merge")
    run.kill("payload", signal.SIGKILL)  # the launcher's child is the executor
    (runner.directory / "hold").unlink()
    require_merged(run)
    assert len(jobs_of(run, kind=2)) == 1


def test_interrupted_merge_is_gone_on_with(runner: Runner) -> None:
    """Every process is killed while the merge runs; the next run ends the same job."""
    (runner.directory / "hold").write_text("")
    run = runner.start(merging_job())
    eventually((runner.directory / "merging").exists, what="the merge")
    run.note_runtime()
    end_processes_of(run.workdir)
    run.process.wait()
    (runner.directory / "hold").unlink()
    again = runner.start(merging_job())
    again.runtimes |= run.runtimes
    require_merged(again)
    assert len(jobs_of(again, kind=2)) == 1


def test_failing_merge_is_told(runner: Runner) -> None:
    """A merge that ends with an error is reported with its exit code, and made again."""
    (runner.directory / "fail").write_text("")
    run = runner.start(merging_job())
    require_merged(run)
    first = jobs_of(run, kind=2)[0]
    assert (first["status"], first["error_code"]) == ("failed", 1305)
    assert json.loads(first["pilot_fields"])["trans_exit_code"] == 3
    assert "exit code 3" in first["error_diag"]


def test_term_during_the_merge(runner: Runner) -> None:
    """A drain ends the merge job as failed; the outputs stay, and the next run merges them."""
    (runner.directory / "hold").write_text("")
    job = merging_job() + "[drain]\ngrace_s = 4.0\n"
    run = runner.start(job)
    eventually((runner.directory / "merging").exists, what="the merge")
    run.process.terminate()
    assert run.end() == 3, run.log[-4000:]
    (runner.directory / "hold").unlink()
    [merge] = jobs_of(run, kind=2)[:1]
    assert (merge["status"], merge["error_code"]) == ("failed", 1201)
    again = runner.start(job)
    require_merged(again)


@pytest.mark.parametrize("code", [0, 7])
def test_show(runner: Runner, code: int) -> None:
    """What the job file wants to be shown is run at the end; its failure is the run's."""
    script = f"{sys.executable} -c 'import sys; print(sys.argv); sys.exit({code})'"
    run = runner.start(merging_job(show=f"{script} {{storage}}/output {{events}}"))
    assert run.end() == (1 if code else 0)
    assert f"'{run.storage}/output', '{EVENTS}'" in run.stderr
    assert run.summary["state"] == ("failed" if code else "finished")
