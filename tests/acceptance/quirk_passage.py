"""One pilot on its way through the cells, and what it leaves behind."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import run_oracle
from pilot_run import ESPILOT, FAKE, end_processes_of, job_text
from quirk_cells import EVENTS, INPUTS, PATIENCE_S, SITE, Cell, Opened, Row, serving

from espilot.payload.fake.content import expected_content
from espilot.server.options import FAULTS

PASSAGE_S = 600.0
"""Longest time for all cells; those that were not reached by then have failed."""
TRANSFORM = """\
#!/bin/sh
cat EVNT.1 EVNT.2 > "${1#--out=}"
echo '{"exitCode": 0}' > jobReport.json
"""
MERGE = """\
#!/bin/sh
set -e
for name in $(tail -n +2 "${1#@}"); do cat "$name"; done > "${2#--out=}"
"""


@dataclass
class Passage:
    """What a pilot left behind on its way through the cells."""

    directory: Path
    cells: dict[str, Opened]
    log: str
    stderr: str
    exit_code: int

    @property
    def storage(self) -> Path:
        return self.directory / "storage"

    def require(self, cell: Cell) -> None:
        """The cell's task ended as it should, each range once, with the right files."""
        why = f"the pilot ended with {self.exit_code}: {self.stderr[-1500:]}"
        assert cell.name in self.cells, f"not reached, {why}"
        opened = self.cells[cell.name]
        mine = f"{cell.name} after {opened.took_s:.1f} s, calls {opened.calls[-40:]}"
        with closing(sqlite3.connect(opened.database)) as db:
            db.row_factory = sqlite3.Row
            task = db.execute("SELECT * FROM task").fetchone()
            jobs = db.execute("SELECT * FROM job ORDER BY panda_id").fetchall()
        opened.jobs = len(jobs)
        told = [(j["panda_id"], j["kind"], j["status"], j["error_code"], j["error_diag"])
                for j in jobs]  # fmt: skip
        lines = [line for line in self.log.splitlines()
                 if any(f" {j['panda_id']}" in line for j in jobs)]  # fmt: skip
        assert task["state"] == cell.ends, f"{mine}\n{told}\n" + "\n".join(lines[-30:])
        if cell.takes_faults:
            missed = [name for name in FAULTS if cell.quirks_of(name) and not opened.hits[name]]
            assert not missed, f"{mine}: nothing happened: {missed}"
        if cell.kind == "normal":
            self._require_normal(opened, cell, jobs)
        else:
            self._require_events(opened, cell)

    def log_of(self, cell: Cell) -> list[str]:
        """What the pilot's log says while it was at this cell."""
        begin = self.cells[cell.name].log_bytes
        later = [each.log_bytes for each in self.cells.values() if each.log_bytes > begin]
        return self.log.encode()[begin : min(later, default=None)].decode().splitlines()

    def _require_normal(self, opened: Opened, cell: Cell, jobs: Sequence[sqlite3.Row]) -> None:
        [job] = jobs
        if cell.ends != "finished":
            return
        out = self.storage / f"{opened.stem}.out"
        assert out.read_bytes() == b"".join(INPUTS.values())
        told = json.loads(job["pilot_fields"])
        report = json.loads(told["job_output_report"])
        assert set(report) == {out.name, f"{out.name}.log.tgz"}
        assert report[out.name]["adler32"] == f"{zlib.adler32(out.read_bytes()):08x}"

    def _require_events(self, opened: Opened, cell: Cell) -> None:
        account = run_oracle.take_account(opened.database, self.storage)
        out = f"{opened.stem}.out"
        ranges = sorted(account.with_fate("finished"), key=lambda each: each.key)
        assert len(ranges) == EVENTS, [each.fate for each in account.ranges]
        run_oracle.require_contents(account, lfns=(out,))
        if cell.kind == "event":
            wanted = b"".join(expected_content(each.id, 100) for each in ranges)
            assert (self.storage / out).read_bytes() == wanted


def pass_through(cells: Sequence[Cell], directory: Path) -> Passage:
    """Let one pilot go through the cells."""
    row = Row(cells, directory)
    for name, text in {"transform": TRANSFORM, "merge": MERGE}.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    for name, data in INPUTS.items():
        (directory / name).write_bytes(data)
    (directory / "token").write_text("a.b.c")
    with serving(row) as url:
        code = _run_pilot(directory, url, row)
    log = directory / "w" / "logs" / "pilot.log"
    text = log.read_text(errors="replace") if log.exists() else ""
    cells = {each.cell.name: each for each in row.past}
    return Passage(directory, cells, text, (directory / "stderr").read_text(), code)


def _run_pilot(directory: Path, url: str, row: Row) -> int:
    config = job_text(
        f"{FAKE} --clients 1",
        extra=f'storage = "{directory}/storage"',
        server={
            "url": url, "site": SITE, "timeout_s": PATIENCE_S, "retry_min_s": 0.02,
            "retry_max_s": 0.1, "token_file": str(directory / "token"), "token_origin": "a:b",
        },
        jobs={"pause_min_s": 0.03, "pause_max_s": 0.1},
        payload={"cores": 1},
        packing={"max_ranges": 3, "max_age_s": 0.1},
    )  # fmt: skip
    (directory / "espilot.toml").write_text(config)
    argv = [*ESPILOT, "run", "--config", str(directory / "espilot.toml")]
    argv += ["--workdir", str(directory / "w"), "--json"]
    with (directory / "stderr").open("wb") as err, (directory / "stdout").open("wb") as out:
        pilot = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PASSAGE_S
        while not row.over.wait(0.2) and time.monotonic() < deadline and pilot.poll() is None:
            pass
        pilot.terminate()
        return pilot.wait(30)
    finally:
        if pilot.poll() is None:
            pilot.kill()
            pilot.wait()
        end_processes_of(directory / "w")
