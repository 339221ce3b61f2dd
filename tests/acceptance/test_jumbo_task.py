"""A task with jumbo jobs: two queues, three pilots at once, every event merged exactly once."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import run_oracle
from pilot_run import ESPILOT, FAKE, end_processes_of, eventually, job_text

from espilot.payload.fake.content import expected_content

EVENTS, PER_JOB = 150, 50
TASK = f"""\
[task]
name = "jumbo"
events = {EVENTS}
events_per_job = {PER_JOB}
outputs = ["out"]
jumbo_jobs = 1
jumbo_off_below = 10
merge_transformation = "merge"
merge_parameters = "--in=@inputFor_out --out=out"
"""
QUEUES = """\
[[queue]]
name = "HPC"
jobseed = "std"
catchall = "useJumboJobs"
[[queue]]
name = "GRID"
jobseed = "all"
activity = 5
"""
MERGE = """\
#!/bin/sh
set -e
for name in $(tail -n +2 "${1#@}"); do cat "$name"; done > "${2#--out=}"
"""
JUMBO, CO_JUMBO, MERGING = 4, 5, 2


class Site:
    """A server, and the pilots of two queues with one storage."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.database = base / "server.sqlite"
        self.storage = base / "storage"
        self.pilots: dict[str, subprocess.Popen[bytes]] = {}
        self.server: subprocess.Popen[bytes] | None = None
        self.url = ""

    def serve(self) -> None:
        for name, text in {"task.toml": TASK, "queues.toml": QUEUES, "merge": MERGE}.items():
            (self.base / name).write_text(text)
        (self.base / "merge").chmod(0o755)
        self.server = subprocess.Popen(
            [*ESPILOT, "server", "--db", str(self.database), "--task", "task.toml", "--queues",
             "queues.toml", "--heartbeat-timeout", "4", "--sent-timeout", "4", "--port", "0",
             "--json"],
            stdout=subprocess.PIPE, cwd=self.base,
        )  # fmt: skip
        assert self.server.stdout is not None
        self.url = json.loads(self.server.stdout.readline())["url"]

    def start(self, name: str, queue: str, delay_ms: int) -> None:
        """A pilot that takes job after job of its queue."""
        text = job_text(
            f"{FAKE} --clients 2 --delay-ms {delay_ms}",
            extra=f'storage = "{self.storage}"',
            server={"url": self.url, "site": queue, "heartbeat_s": 0.5},
            jobs={"pause_min_s": 0.1, "pause_max_s": 0.3},
            packing={"max_ranges": 5, "max_age_s": 0.2},
            limits={"work_ahead_s": 0.2},
        )
        # Programs are found beside the settings.
        settings, workdir = self.base / f"{name}.toml", self.base / name
        settings.write_text(text)
        with (self.base / f"{name}.out").open("wb") as out:
            self.pilots[name] = subprocess.Popen(
                [*ESPILOT, "run", "--config", str(settings), "--workdir", str(workdir), "--json"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def rows(self, query: str) -> list[sqlite3.Row]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return db.execute(query).fetchall()

    def done_by(self, kind: int) -> int:
        """Ranges that jobs of this kind have booked."""
        query = f"SELECT sum(ranges_finished) FROM job WHERE kind = {kind}"
        return int(self.rows(query)[0][0] or 0)

    def close(self) -> None:
        for name, pilot in self.pilots.items():
            pilot.kill()
            pilot.wait()
            end_processes_of(self.base / name)
        if self.server is not None and self.server.stdout is not None:
            self.server.terminate()
            self.server.wait()
            self.server.stdout.close()

    @property
    def story(self) -> str:
        logs = [(self.base / name / "logs" / "pilot.log") for name in self.pilots]
        return "\n".join(log.read_text()[-2500:] for log in logs if log.exists())


@contextmanager
def site_in(base: Path) -> Iterator[Site]:
    site = Site(base)
    try:
        site.serve()
        yield site
    finally:
        site.close()


@pytest.mark.parametrize("killed", [None, "hpc"], ids=["undisturbed", "one is killed"])
def test_two_queues_and_three_pilots(tmp_path: Path, killed: str | None) -> None:
    """The jumbo job and the co-jumbo jobs of the units share the events; each is merged once."""
    with site_in(tmp_path) as site:
        # The one with the jumbo job draws from all units, slowly; then the others come.
        site.start("hpc", "HPC", 400)
        eventually(lambda: site.done_by(JUMBO) >= 1, what="a range of the jumbo job")
        for name in ("grid-1", "grid-2"):
            site.start(name, "GRID", 20)
        if killed is not None:
            eventually(lambda: site.done_by(CO_JUMBO) >= 10, what="ranges of co-jumbo jobs")
            site.pilots[killed].kill()
        state = lambda: run_oracle.task_state(site.database)  # noqa: E731
        eventually(lambda: state() != "running", 120.0, what="the end of the task")
        assert state() == "finished", site.story
        for name, pilot in site.pilots.items():
            pilot.terminate()
            assert pilot.wait(30) == (-9 if name == killed else 0)
        require_each_event_merged_once(site)


def require_each_event_merged_once(site: Site) -> None:
    rows = site.rows("SELECT * FROM event WHERE status = 9 ORDER BY pool, process_id")
    assert Counter(row["process_id"] for row in rows) == Counter(range(1, EVENTS + 1))
    jobs = {row["panda_id"]: row for row in site.rows("SELECT * FROM job")}
    kinds = Counter(jobs[row["owner"]]["kind"] for row in rows)
    assert set(kinds) == {JUMBO, CO_JUMBO}, kinds
    merges = [job for job in jobs.values() if job["kind"] == MERGING]
    assert [job["status"] for job in merges] == ["finished"] * (EVENTS // PER_JOB)
    units = site.rows("SELECT unit_id, number FROM unit ORDER BY number")
    for unit in units:
        mine = [row for row in rows if row["pool"] == unit["unit_id"]]
        assert len(mine) == PER_JOB
        ids = [f"{r['task_id']}-{r['owner']}-{r['file_id']}-{r['process_id']}-{r['attempt_nr']}"
               for r in mine]  # fmt: skip
        merged = (site.storage / f"out._{unit['number']:06d}").read_bytes()
        assert merged == b"".join(expected_content(each, 100) for each in ids)
