"""Queues and storage endpoints of a TOML file: tables `[[queue]]` and `[[storage]]`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from espilot.errors import ConfigError, UsageError
from espilot.server.brokerage import Endpoint, Queue

JOBSEEDS = ("es", "all", "std", "eshigh")


def read_queues(path: Path) -> tuple[Mapping[str, Queue], Mapping[int, Endpoint]]:
    """Queues by name and endpoints by id. Errors: `UsageError` that names file and key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    queues = [_read_queue(table, path) for table in _tables(document, "queue", path)]
    endpoints = [
        Endpoint(**_read(Endpoint, table, path)) for table in _tables(document, "storage", path)
    ]
    return {queue.name: queue for queue in queues}, {e.storage_id: e for e in endpoints}


def _tables(document: Mapping[str, Any], name: str, path: Path) -> list[Mapping[str, Any]]:
    tables = document.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: {name} must be a list of tables, [[{name}]]")
    return tables


def _read_queue(table: Mapping[str, Any], path: Path) -> Queue:
    """The catchall is one comma-separated text, as queues have it."""
    values = _read(Queue, {**table, "catchall": ()}, path)
    values["catchall"] = tuple(
        token.strip() for token in str(table.get("catchall", "")).split(",") if token.strip()
    )
    queue = Queue(**values)
    if queue.jobseed not in JOBSEEDS:
        raise ConfigError(f"{path}: queue.jobseed: one of {', '.join(JOBSEEDS)}")
    return queue


def _read(kind: type[Queue | Endpoint], table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    known = {entry.name: str(entry.type) for entry in fields(kind)}
    required = "name" if kind is Queue else "storage_id"
    if required not in table:
        raise ConfigError(f"{path}: a {kind.__name__.lower()} without {required}")
    for name, value in table.items():
        if name not in known:
            raise ConfigError(f"{path}: unknown key {name}; known are {', '.join(known)}")
        expected = known[name]
        if expected in ("int", "str", "bool") and type(value).__name__ != expected:
            raise ConfigError(f"{path}: {name} must be of type {expected}: {value!r:.60}")
    return dict(table)
