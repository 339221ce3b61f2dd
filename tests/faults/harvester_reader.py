"""Harvester, as far as a worker sees it: `python tests/faults/harvester_reader.py DIRECTORY`.

It hands out jobs and ranges and reads reports as files in one access point for each worker, by the
rules of the shared-file messenger, its faults included: what it writes is written in place and in
pieces; an unread ranges file is overwritten; the ranges file is there before the request is
removed; a report that does not parse is thrown away; short lists, failures of the server and
unasked first ranges happen by chance. Its books are a database, so it may be killed at any moment
and started again.

A worker that ends leaves what it did not report to the next one. The same ranges are never lost
between the server and the file: after a kill they are written again.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sqlite3
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from espilot.payload.fake.content import expected_content

ROOT = Path(__file__).resolve().parents[2]
TASK_ID = 4711
FIRST_JOB = 900_123
PERIOD_S = 0.02
PREFETCHED = 16
SCHEMA = """
CREATE TABLE range (number INTEGER PRIMARY KEY, attempt INTEGER DEFAULT 1, status TEXT DEFAULT
    'ready', worker TEXT, id TEXT, path TEXT, kind TEXT);
CREATE INDEX range_id ON range (id);
CREATE INDEX range_status ON range (status, number);
CREATE TABLE handed (id TEXT PRIMARY KEY, worker TEXT, fate TEXT);
CREATE TABLE worker (name TEXT PRIMARY KEY, job INTEGER, flag INTEGER, wanted INTEGER,
    chunk TEXT, state TEXT);
CREATE TABLE booked (file TEXT PRIMARY KEY);
CREATE TABLE finding (kind TEXT, text TEXT);
CREATE TABLE plan (ranges INTEGER, output_bytes INTEGER, seed INTEGER, kind TEXT);
"""


class Books:
    """The database of server and Harvester together."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, timeout=20.0)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = OFF")

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """All of it, or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def find(self, kind: str, text: str) -> None:
        """Note what must not be: `lost`, `doubled`, `wrong_output`, `torn`, `repeated`."""
        self.db.execute("INSERT INTO finding VALUES (?, ?)", (kind, text))

    def one(self, statement: str, *values: Any) -> Any:
        """The first column of the first row."""
        row = self.db.execute(statement, values).fetchone()
        return row[0] if row else None


def make_books(directory: Path, *, ranges: int, output_bytes: int, seed: int, kind: str) -> Books:
    """Books of a task whose ranges are all ready."""
    (directory / "ap").mkdir(parents=True)
    books = Books(directory / "harvester.sqlite")
    books.db.executescript(SCHEMA)
    with books.change() as db:
        db.executemany(
            "INSERT INTO range (number) VALUES (?)", ((n,) for n in range(1, ranges + 1))
        )
        db.execute("INSERT INTO plan VALUES (?, ?, ?, ?)", (ranges, output_bytes, seed, kind))
    return books


def add_worker(directory: Path, books: Books, name: str, job: int, *, prefetch: bool) -> Path:
    """A new worker: its access point with the job, written as Harvester does; returns it."""
    place = directory / "ap" / name
    place.mkdir()
    definition = {
        "PandaID": job, "taskID": TASK_ID, "jobsetID": FIRST_JOB - 23, "attemptNr": 1,
        "coreCount": 2, "inFiles": "EVNT.a.root", "GUID": "AAAA-1", "fsize": "1000",
        "checksum": "ad:0a1b2c3d", "outFiles": "output,log.tgz",
        "logFile": "log.tgz", "eventService": "True", "jobPars": "--x",
    }  # fmt: skip
    source = directory / "EVNT.a.root"
    source.touch()
    (place / "EVNT.a.root").symlink_to(source)
    (place / "HPCJobs.json").write_text(json.dumps({str(job): definition}))
    (place / "worker_pandaids.json").write_text(json.dumps([job]))
    flag, wanted = (2, PREFETCHED) if prefetch else (1, 0)
    books.db.execute(
        "INSERT INTO worker VALUES (?, ?, ?, ?, NULL, 'running')", (name, job, flag, wanted)
    )
    return place


class Worker:
    """What is done for one worker in each cycle."""

    def __init__(self, directory: Path, books: Books, name: str, chance: Random) -> None:
        self._place = directory / "ap" / name
        self._books = books
        self._name = name
        self._chance = chance
        self._plan = books.db.execute("SELECT * FROM plan").fetchone()

    def turn(self) -> None:
        """One cycle of the monitor, then one of the feeder."""
        self._read_attributes()
        self._read_dump()
        self._read_request()
        self._feed()
        self._end()

    def _row(self) -> sqlite3.Row:
        row = self._books.db.execute(
            "SELECT * FROM worker WHERE name = ?", (self._name,)
        ).fetchone()
        assert isinstance(row, sqlite3.Row)
        return row

    # -- ranges ---------------------------------------------------------------------------------

    def _read_request(self) -> None:
        row, path = self._row(), self._place / "worker_requestevents.json"
        if row["flag"] != 1 or not path.exists():
            return
        try:
            wanted = json.loads(path.read_text())[str(row["job"])]["nRanges"]
        except (ValueError, KeyError, FileNotFoundError):
            return  # ignored until it parses
        self._set(flag=2, wanted=wanted)

    def _set(self, **values: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self._books.db.execute(
            f"UPDATE worker SET {names} WHERE name = ?", (*values.values(), self._name)
        )

    def _feed(self) -> None:
        row = self._row()
        if row["flag"] != 2 or row["state"] != "running":
            return
        if self._chance.random() < 0.2:
            return  # the server does not answer
        chunk = row["chunk"] or self._draw(row)
        path = self._place / "JobsEventRanges.json"
        with path.open("w") as file:
            cut = self._chance.randrange(len(chunk))
            for piece in (chunk[:cut], chunk[cut:]):
                file.write(piece)
                file.flush()
                self._dawdle()
        self._dawdle()
        (self._place / "worker_requestevents.json").unlink(missing_ok=True)
        self._set(flag=1, chunk=None)

    def _draw(self, row: sqlite3.Row) -> str:
        """Take ranges from the pool for this worker; sometimes fewer than are wanted."""
        n = row["wanted"]
        if n > 1 and self._chance.random() < 0.3:
            n = self._chance.randrange(1, n)
        with self._books.change() as db:
            found = db.execute(
                "SELECT number, attempt FROM range WHERE status = 'ready' ORDER BY number LIMIT ?",
                (n,),
            ).fetchall()
            listed = []
            for number, attempt in found:
                range_id = f"{TASK_ID}-{FIRST_JOB}-55501-{number}-{attempt}"
                db.execute(
                    "UPDATE range SET status = 'sent', worker = ?, id = ? WHERE number = ?",
                    (self._name, range_id, number),
                )
                db.execute("INSERT INTO handed VALUES (?, ?, NULL)", (range_id, self._name))
                listed.append(
                    {"eventRangeID": range_id, "LFN": "EVNT.a.root", "GUID": "AAAA-1",
                     "scope": "s1", "startEvent": number, "lastEvent": number}
                )  # fmt: skip
            chunk = json.dumps({str(row["job"]): listed})
            db.execute("UPDATE worker SET chunk = ? WHERE name = ?", (chunk, self._name))
        return chunk

    # -- reports --------------------------------------------------------------------------------

    def _read_dump(self) -> None:
        dump = self._place / "event_status.dump.json"
        reading = self._place / "event_status.dump.json.read"
        if not reading.exists():
            if not dump.exists():
                return
            dump.rename(reading)
        try:
            content = json.loads(reading.read_text())
            rows = [row for rows in content.values() for row in rows]
        except (ValueError, AttributeError, TypeError):
            self._books.find("torn", f"{self._name}: {reading.read_text()[:100]!r}")
            reading.unlink()
            return
        self._dawdle()
        status = reading.stat()
        file = f"{self._name} {status.st_ino} {status.st_mtime_ns}"
        # After a kill between the two the same file is read again; it is no second report.
        if not self._books.one("SELECT 1 FROM booked WHERE file = ?", file):
            with self._books.change() as db:
                db.execute("INSERT INTO booked VALUES (?)", (file,))
                self._book(rows)
        self._dawdle()
        stamp = time.strftime("%Y-%m-%d_%H_%M_%S", time.gmtime())
        reading.rename(f"{reading}.{stamp}.{time.time_ns() % 10**9 // 1000:06d}")

    def _book(self, rows: list[dict[str, Any]]) -> None:
        seen: set[str] = set()
        for row in rows:
            range_id = row["eventRangeID"]
            if range_id in seen:
                self._books.find("doubled", f"{range_id} twice in one report")
            seen.add(range_id)
            self._book_range(range_id, row)

    def _book_range(self, range_id: str, row: dict[str, Any]) -> None:
        db, status = self._books.db, row["eventStatus"]
        known = db.execute("SELECT * FROM handed WHERE id = ?", (range_id,)).fetchone()
        if known is None or known["worker"] != self._name:
            self._books.find("doubled", f"{range_id} was never handed to {self._name}")
            return
        if known["fate"] is not None:
            kind = "repeated" if known["fate"] == status else "doubled"
            self._books.find(kind, f"{range_id} again, as {status}, it was {known['fate']}")
            return
        db.execute("UPDATE handed SET fate = ? WHERE id = ?", (status, range_id))
        if status == "finished":
            self._check_file(range_id, row)
            db.execute(
                "UPDATE range SET status = 'finished', path = ?, kind = ? WHERE id = ?",
                (row.get("path"), row.get("type"), range_id),
            )
        else:
            db.execute(
                "UPDATE range SET status = 'ready', attempt = attempt + 1 WHERE id = ?",
                (range_id,),
            )

    def _check_file(self, range_id: str, row: dict[str, Any]) -> None:
        """All facts are there and true at the moment of the report."""
        path = Path(row.get("path", ""))
        wanted = {"type", "path", "fsize", "chksum", "guid"} - row.keys()
        if wanted or not path.is_absolute() or row["type"] != self._plan["kind"]:
            self._books.find("wrong_output", f"{range_id}: {row}")
        elif not path.is_file():
            self._books.find("lost", f"{range_id}: no file {path}")
        elif not is_output(path, row, range_id, self._plan["output_bytes"]):
            self._books.find("wrong_output", f"{range_id}: {path}")

    # -- the end --------------------------------------------------------------------------------

    def _read_attributes(self) -> None:
        path = self._place / "worker_attributes.json"
        try:
            state = json.loads(path.read_text()).get("jobStatus")
        except FileNotFoundError:
            return
        except ValueError:
            self._books.find("torn", f"{path} cannot be read")
            return
        if state and self._row()["state"] == "running":
            self._set(state=f"ending {state}")

    def _end(self) -> None:
        """When nothing of a worker that has ended is left to be read, its rest goes back."""
        state = self._row()["state"]
        left = [self._place / f"event_status.dump.json{end}" for end in ("", ".read")]
        if not state.startswith("ending") or any(path.exists() for path in left):
            return
        with self._books.change() as db:
            db.execute(
                "UPDATE range SET status = 'ready', attempt = attempt + 1 "
                "WHERE status = 'sent' AND worker = ?",
                (self._name,),
            )
            db.execute(
                "UPDATE worker SET state = ? WHERE name = ?",
                (state.replace("ending", "ended"), self._name),
            )

    def _dawdle(self) -> None:
        """A moment in which others, or a kill, may come."""
        threading.Event().wait(self._chance.random() * 0.01)


def is_output(path: Path, row: dict[str, Any], range_id: str, output_bytes: int) -> bool:
    """Whether a file is what its report says, and what the fake payload makes for the range."""
    data = path.read_bytes()
    if (len(data), f"{zlib.adler32(data):08x}") != (row["fsize"], row["chksum"]):
        return False
    if row["type"] == "zip_output":
        data = members_of(path, path.stat().st_mtime_ns).get(f"output.{range_id}", b"")
    elif path.name != f"output.{range_id}":
        return False
    return data == expected_content(range_id, output_bytes)


@functools.lru_cache(maxsize=4)
def members_of(path: Path, changed_ns: int) -> dict[str, bytes]:
    """What is in an archive that was changed at that time."""
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in files.items() if file is not None}


def serve(directory: Path) -> None:
    """Serve all workers until killed."""
    books = Books(directory / "harvester.sqlite")
    seed = books.one("SELECT seed FROM plan")
    chance = Random(f"{seed} {time.time_ns()}")
    while True:
        names = books.db.execute(
            "SELECT name FROM worker WHERE state NOT LIKE 'ended%' ORDER BY name"
        ).fetchall()
        for (name,) in names:
            Worker(directory, books, name, chance).turn()
        if os.getppid() == 1:
            return  # who started us is gone
        threading.Event().wait(PERIOD_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    sys.path.insert(0, str(ROOT))
    serve(parser.parse_args().directory)
