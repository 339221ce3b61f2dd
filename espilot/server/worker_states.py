"""What pilots told of themselves as workers of a Harvester."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

_TABLE = """
CREATE TABLE IF NOT EXISTS worker (
    harvester_id TEXT NOT NULL,
    worker_id TEXT NOT NULL,
    state TEXT NOT NULL,
    node TEXT NOT NULL,
    told_at REAL NOT NULL,
    PRIMARY KEY (harvester_id, worker_id)
) WITHOUT ROWID
"""


def note(db: sqlite3.Connection, told: Mapping[str, Any], now: float) -> None:
    """The newest state of a worker counts; nobody needs to have announced it."""
    db.execute(_TABLE)
    names = ("harvester_id", "worker_id", "status", "node_id")
    texts = [str(told.get(name) or "")[:128] for name in names]
    db.execute("INSERT OR REPLACE INTO worker VALUES (?, ?, ?, ?, ?)", (*texts, now))


def states(db: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """State by Harvester and worker."""
    db.execute(_TABLE)
    rows = db.execute("SELECT harvester_id, worker_id, state FROM worker").fetchall()
    return {(str(row[0]), str(row[1])): str(row[2]) for row in rows}
