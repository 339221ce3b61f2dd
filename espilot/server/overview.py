"""Looking at the server's database beside the server: nothing is changed, nobody has to wait."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from espilot.errors import LocalError
from espilot.server.schema import ACTIVE_STATES, Kind
from espilot.server.tally import fate_of

MOST_JOBS = 200
LETTERS = {"ready": "w", "sent": "s", "finished": "f", "failed": "x", "fatal": "z"}
"""How the map shows a range by its fate."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Overview:
    """Rows of tasks, of the newest jobs (the active ones first), of storages; a letter for each
    range, capital for one that is not in its first attempt."""

    tasks: list[Row]
    jobs: list[Row]
    storages: list[Row]
    letters: str


def read_overview(db: Path, *, most: int) -> Overview:
    """All of it, in one transaction, of at most `most` ranges. Errors: `LocalError`."""
    with looking_at(db) as connection:
        tasks = rows(connection, "SELECT * FROM task ORDER BY rowid")
        marks = ", ".join("?" * len(ACTIVE_STATES))
        jobs = rows(
            connection,
            "SELECT panda_id, task_id, kind, status, site, node, ranges_finished, n_events,"
            f" error_code, error_diag, updated_at, status IN ({marks}) AS active FROM job"
            f" ORDER BY active DESC, panda_id DESC LIMIT {MOST_JOBS}",
            *ACTIVE_STATES,
        )
        storages = rows(
            connection,
            "SELECT storage, count(*) AS archives, coalesce(sum(size_bytes), 0) AS bytes"
            " FROM archive GROUP BY storage ORDER BY storage",
        )
        letters = "".join(read_letters(connection, tasks, most))
    for job in jobs:
        job["kind"] = Kind(job["kind"]).name.lower().replace("_", "-")
    return Overview(tasks, jobs, storages, letters)


def read_range_rows(db: Path, start: int, most: int, letter: str = "") -> list[Row]:
    """Ranges of the map from a number on, all or those with a letter. Errors: `LocalError`."""
    found: list[Row] = []
    with looking_at(db) as connection:
        first_attempts = attempts_of(rows(connection, "SELECT * FROM task"))
        for n, event in enumerate(connection.execute(_EVENTS + " LIMIT -1 OFFSET ?", (start,))):
            now = letter_of(event, first_attempts)
            if not letter or now.lower() == letter:
                found.append({**dict(event), "n": start + n, "letter": now})
                if len(found) >= most:
                    break
    return found


_EVENTS = (
    "SELECT event.*, file.lfn FROM event JOIN file USING (file_id) WHERE copied = 0"
    " ORDER BY event.task_id, file_id, process_id"
)


def read_letters(db: sqlite3.Connection, tasks: list[Row], most: int) -> Iterator[str]:
    """One for each range, in the order of tasks and input."""
    first_attempts = attempts_of(tasks)
    query = (
        "SELECT task_id, status, attempt_nr, fatal FROM event WHERE copied = 0"
        " ORDER BY task_id, file_id, process_id LIMIT ?"
    )
    for event in db.execute(query, (most,)):
        yield letter_of(event, first_attempts)


def attempts_of(tasks: list[Row]) -> dict[int, int]:
    """The number of the first attempt in each task; numbers go down."""
    return {task["task_id"]: task["max_attempts"] for task in tasks}


def letter_of(event: sqlite3.Row, first_attempts: dict[int, int]) -> str:
    """The letter of one range."""
    letter = LETTERS[fate_of(event["status"], event["attempt_nr"], bool(event["fatal"]))]
    first = first_attempts.get(event["task_id"], 0)
    return letter.upper() if event["attempt_nr"] < first and letter != "z" else letter


@contextmanager
def looking_at(db: Path) -> Iterator[sqlite3.Connection]:
    """A connection for reading, in one transaction."""
    try:
        uri = f"file:{quote(str(db.absolute()))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise LocalError(f"{db}: cannot be opened: {error}") from error
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("BEGIN")
        yield connection
    except sqlite3.Error as error:
        raise LocalError(f"{db}: cannot be read: {error}") from error
    finally:
        connection.close()


def rows(db: sqlite3.Connection, query: str, *values: Any) -> list[Row]:
    """What a query finds."""
    return [dict(row) for row in db.execute(query, values)]
