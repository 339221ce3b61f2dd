"""The journal of the machine, by its native protocol: a log line with fields that can be asked for.

`journalctl ESPILOT_JOB=4711` and `journalctl ESPILOT_RANGE=...` find what concerns them; each
action has a MESSAGE_ID of its own.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOCKET = Path("/run/systemd/journal/socket")
PRIORITIES = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}
MESSAGES = uuid.UUID("8f4a2c1e-5b7d-4e0a-9c36-d1e2f3a4b5c6")
"""Of it and an action follows the id of all messages with that action, the same everywhere."""
RANGE_FIELDS = ("range", "range_id", "first")
"""Fields of our log lines that name a range."""


def stderr_is_journal(environ: Mapping[str, str]) -> bool:
    """Whether what we write to stderr goes to the journal."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    status = os.fstat(2)
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class JournalHandler(logging.Handler):
    """Sends each record; what the journal does not take is lost, the log file has it."""

    def __init__(self, identifier: str, path: Path = SOCKET) -> None:
        super().__init__()
        self._identifier = identifier
        self._path = str(path)
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            self._socket.sendto(encode(self.fields_of(record)), self._path)
        except OSError:
            # No journal, or one that is busy: a pilot does not stop for it.
            return

    def fields_of(self, record: logging.LogRecord) -> dict[str, str]:
        """The journal's fields of a record; ours are in its attribute `espilot`."""
        ours: Mapping[str, Any] = getattr(record, "espilot", {})
        fields = {
            "MESSAGE": record.getMessage(),
            "PRIORITY": str(PRIORITIES.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": self._identifier,
        }
        if ours.get("action"):
            fields["MESSAGE_ID"] = message_id(str(ours["action"]))
        named = {"ROLE": ours.get("role"), "ACTION": ours.get("action"), "JOB": ours.get("job")}
        data: Mapping[str, Any] = ours.get("fields", {})
        named["RANGE"] = next((data[name] for name in RANGE_FIELDS if name in data), None)
        return fields | {f"ESPILOT_{k}": str(v) for k, v in named.items() if v is not None}

    def close(self) -> None:
        """Close."""
        self._socket.close()
        super().close()


def message_id(action: str) -> str:
    """The id of messages with this action, for journalctl MESSAGE_ID= and for catalogues."""
    return uuid.uuid5(MESSAGES, action).hex


def encode(fields: Mapping[str, str]) -> bytes:
    """Fields by the native protocol: a value with line feeds goes with its length before it."""
    parts = []
    for name, value in fields.items():
        data = value.encode(errors="replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
