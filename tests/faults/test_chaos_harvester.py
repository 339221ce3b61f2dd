"""A short exchange with Harvester's reader under kills; and the reader sees each harm."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import harvester_reader
import pytest
from harvester_reader import FIRST_JOB, TASK_ID, Books, Worker

from espilot.payload.fake.content import expected_content

HERE = Path(__file__).resolve().parent
DUMP = "event_status.dump.json"


def test_lesson_16_short_chaos_beside_harvester(tmp_path: Path) -> None:
    """Random kills of pilots and reader in both modes: nothing is lost, doubled, wrong or torn."""
    argv = [sys.executable, str(HERE / "chaos_harvester.py"), "--seconds", "16", "--seed", "7"]
    ended = subprocess.run(
        [*argv, "--ranges", "600", "--directory", str(tmp_path / "chaos")],
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == 0, f"{told}\n{ended.stderr[-8000:]}"
    kinds = ("lost", "doubled", "wrong_output", "torn", "repeated", "orphans", "defects")
    assert list(told)[-len(kinds) :] == list(kinds)
    assert not any(told[kind] for kind in kinds)
    assert min(told["ranges"].values()) >= 600
    assert told["kills_total"] >= 10
    assert not (tmp_path / "chaos").exists()


class Scene:
    """One worker with a range in hand, whose files are written by the test."""

    def __init__(self, directory: Path) -> None:
        self.books: Books = harvester_reader.make_books(
            directory, ranges=2, output_bytes=60, seed=1, kind="es_output"
        )
        self.place = harvester_reader.add_worker(
            directory, self.books, "w0", FIRST_JOB, prefetch=True
        )
        self.worker = Worker(directory, self.books, "w0", Random(1))
        ranges = self.place / "JobsEventRanges.json"
        while not ranges.exists():
            self.worker.turn()
        self.id = f"{TASK_ID}-{FIRST_JOB}-55501-1-1"
        self.output = self.place / f"output.{self.id}"
        self.output.write_bytes(expected_content(self.id, 60))

    def row(self, **changes: Any) -> dict[str, Any]:
        data = self.output.read_bytes()
        return {
            "eventRangeID": self.id, "eventStatus": "finished", "type": "es_output",
            "path": str(self.output), "fsize": len(data), "guid": "g",
            "chksum": f"{zlib.adler32(data):08x}", **changes,
        }  # fmt: skip

    def report(self, *rows: dict[str, Any]) -> None:
        (self.place / DUMP).write_text(json.dumps({str(FIRST_JOB): list(rows)}))
        self.worker.turn()

    @property
    def found(self) -> list[str]:
        return [kind for (kind,) in self.books.db.execute("SELECT kind FROM finding")]


def tear(scene: Scene) -> None:
    """Half a report."""
    (scene.place / DUMP).write_text('{"900123": [{"eventRangeID"')
    scene.worker.turn()


def spoil(scene: Scene) -> None:
    """An output of another range, with a true checksum."""
    scene.output.write_bytes(expected_content("other", 60))
    scene.report(scene.row())


def repeat(scene: Scene) -> None:
    """The same report twice."""
    scene.report(scene.row())
    scene.report(scene.row())


@pytest.mark.parametrize(
    ("harm", "kinds"),
    [
        (lambda scene: scene.report(scene.row()), []),
        (tear, ["torn"]),
        (spoil, ["wrong_output"]),
        (repeat, ["repeated"]),
        (lambda s: s.report(s.row(), s.row()), ["doubled", "repeated"]),
        (lambda s: s.report(s.row(eventRangeID="1-2-3-4-5")), ["doubled"]),
        (lambda s: s.report(s.row(), s.row(eventStatus="failed")), ["doubled", "doubled"]),
        (lambda s: s.report(s.row(path=str(s.place / "none"))), ["lost"]),
        (lambda s: s.report(s.row(fsize=61)), ["wrong_output"]),
        (lambda s: s.report(s.row(type="zip_output")), ["wrong_output"]),
        (lambda s: s.report({k: v for k, v in s.row().items() if k != "guid"}), ["wrong_output"]),
    ],
)
def test_reader_sees_each_harm(
    tmp_path: Path, harm: Callable[[Scene], None], kinds: list[str]
) -> None:
    """Each fault of a worker is found, and nothing in a report that is right."""
    scene = Scene(tmp_path)
    try:
        harm(scene)
        assert scene.found == kinds
    finally:
        scene.books.db.close()


def test_reader_hands_out_what_was_not_reported(tmp_path: Path) -> None:
    """What a worker that has ended did not report is another attempt's; what it did is not."""
    scene = Scene(tmp_path)
    try:
        scene.report(scene.row())
        (scene.place / "worker_attributes.json").write_text('{"jobStatus": "finished"}')
        scene.worker.turn()
        scene.worker.turn()
        rows = scene.books.db.execute("SELECT status, attempt FROM range ORDER BY number")
        assert [tuple(row) for row in rows] == [("finished", 1), ("ready", 2)]
    finally:
        scene.books.db.close()
