"""The database of the built-in server: tables, states, opening.

An event row is one attempt of one range. Its key is the range id without the PandaID: the owner
may change while the row lives. `owner` is the PandaID of the job that holds it, or the jobset id
(`pool`) while it waits. A failed row that has its copy in the pool is `copied`; so each range has
exactly one row that is not. The pool is also the unit of merging: the events of one job.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from espilot.errors import LocalError

SCHEMA_VERSION = 2


class Kind(IntEnum):
    """Kinds of jobs, numbered as real servers do; never told to a pilot."""

    SINGLE = 0
    """A job from a file that is not of events: normal, or a merge job without its task."""
    EVENT = 1
    MERGE = 2
    JUMBO = 4
    CO_JUMBO = 5


class EventStatus(IntEnum):
    """States of event rows, numbered as real servers do."""

    READY = 0
    SENT = 1
    RUNNING = 2
    FINISHED = 3
    CANCELLED = 4
    DISCARDED = 5
    DONE = 6
    FAILED = 7
    FATAL = 8
    MERGED = 9
    CORRUPTED = 10


ACTIVE_STATES = ("activated", "sent", "starting", "running", "transferring", "holding")
"""A job in one of these is not ended."""
PROCESSING_STATES = ("sent", "starting", "running", "transferring")
"""Reports of ranges are taken from a job in one of these."""
DRAWING_STATES = ("sent", "starting", "running")
"""Ranges are given to a job in one of these."""

_TABLES = """
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE task (
    task_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    definition TEXT NOT NULL,
    state TEXT NOT NULL,
    events INTEGER NOT NULL,
    events_per_range INTEGER NOT NULL,
    outputs TEXT NOT NULL,
    max_attempts INTEGER NOT NULL,
    core_count INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    flags TEXT NOT NULL,
    merge_transformation TEXT NOT NULL,
    merge_parameters TEXT NOT NULL,
    jumbo_jobs INTEGER NOT NULL,
    jumbo_off_below INTEGER NOT NULL,
    barren_jumbos INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    ready INTEGER NOT NULL DEFAULT 0,
    sent INTEGER NOT NULL DEFAULT 0,
    finished INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    fatal INTEGER NOT NULL DEFAULT 0,
    events_finished INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE unit (
    unit_id INTEGER PRIMARY KEY,
    task_id INTEGER NOT NULL REFERENCES task,
    number INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'running',
    first_event INTEGER NOT NULL,
    last_event INTEGER NOT NULL,
    barren_jobs INTEGER NOT NULL DEFAULT 0,
    merges INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX unit_task ON unit (task_id, number);
CREATE TABLE file (
    file_id INTEGER PRIMARY KEY,
    task_id INTEGER NOT NULL REFERENCES task,
    lfn TEXT NOT NULL,
    guid TEXT NOT NULL,
    scope TEXT NOT NULL,
    first_event INTEGER NOT NULL,
    last_event INTEGER NOT NULL,
    unit_id INTEGER NOT NULL REFERENCES unit
);
CREATE INDEX file_task ON file (task_id, lfn);
CREATE TABLE job (
    panda_id INTEGER PRIMARY KEY,
    task_id INTEGER NOT NULL REFERENCES task,
    jobset_id INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    queue TEXT NOT NULL DEFAULT '',
    attempt_nr INTEGER NOT NULL,
    status TEXT NOT NULL,
    sub_status TEXT NOT NULL DEFAULT '',
    final INTEGER NOT NULL DEFAULT 0,
    command TEXT,
    site TEXT NOT NULL DEFAULT '',
    node TEXT NOT NULL DEFAULT '',
    n_sent INTEGER NOT NULL DEFAULT 0,
    n_events INTEGER NOT NULL DEFAULT 0,
    ranges_finished INTEGER NOT NULL DEFAULT 0,
    error_code INTEGER NOT NULL DEFAULT 0,
    error_diag TEXT NOT NULL DEFAULT '',
    corrupted_files TEXT,
    pilot_fields TEXT NOT NULL DEFAULT '{}',
    updated_at REAL NOT NULL
);
CREATE INDEX job_status ON job (status);
CREATE INDEX job_task ON job (task_id);
CREATE INDEX job_set ON job (jobset_id);
CREATE TABLE event (
    task_id INTEGER NOT NULL,
    file_id INTEGER NOT NULL,
    process_id INTEGER NOT NULL,
    attempt_nr INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    pool INTEGER NOT NULL,
    status INTEGER NOT NULL,
    start_event INTEGER NOT NULL,
    last_event INTEGER NOT NULL,
    copied INTEGER NOT NULL DEFAULT 0,
    fatal INTEGER NOT NULL DEFAULT 0,
    error_code INTEGER,
    error_diag TEXT,
    tar_lfn TEXT,
    PRIMARY KEY (task_id, file_id, process_id, attempt_nr)
) WITHOUT ROWID;
CREATE INDEX event_owner ON event (owner);
CREATE INDEX event_ready ON event (owner, file_id, process_id)
    WHERE status = 0 AND attempt_nr > 0;
CREATE INDEX event_pool ON event (pool, status, copied, attempt_nr);
CREATE INDEX event_task_ready ON event (task_id, file_id, process_id)
    WHERE status = 0 AND attempt_nr > 0;
CREATE TABLE archive (
    panda_id INTEGER NOT NULL,
    lfn TEXT NOT NULL,
    storage TEXT NOT NULL,
    size_bytes INTEGER,
    adler32 TEXT,
    n_events INTEGER,
    PRIMARY KEY (panda_id, lfn)
) WITHOUT ROWID;
"""


def open_database(path: Path, *, first_id: int) -> sqlite3.Connection:
    """A connection to the database at `path`, made when it is missing.

    `first_id` is where PandaIDs of a new database begin. Every commit survives the death of the
    process. Errors: `LocalError`.
    """
    try:
        db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    except sqlite3.Error as error:
        raise LocalError(f"{path}: the database cannot be opened: {error}") from error
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA cache_size = -32768")
        _prepare(db, first_id)
    except (sqlite3.Error, LocalError) as error:
        db.close()
        raise LocalError(f"{path}: not a database of this server: {error}") from error
    return db


def _prepare(db: sqlite3.Connection, first_id: int) -> None:
    with transaction(db):
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == SCHEMA_VERSION:
            return
        if version != 0 or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise LocalError(f"its version is {version}, this program knows {SCHEMA_VERSION}")
        for statement in _TABLES.split(";"):
            db.execute(statement)
        db.executemany("INSERT INTO counter VALUES (?, ?)", [("id", first_id), ("task", 1)])
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing; whatever is raised inside undoes it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def take_ids(db: sqlite3.Connection, name: str, n: int = 1) -> int:
    """The first of `n` new consecutive numbers of a counter, never given twice."""
    row = db.execute(
        "UPDATE counter SET value = value + ? WHERE name = ? RETURNING value", (n, name)
    ).fetchall()
    return int(row[0][0]) - n
