"""Log lines for people and machines: a constant message, the data in fields, an action.

`2026-11-22T10:00:00.123Z info dispatcher[4711] job=99 action=bind opened the channel name=...`
All roles append to one file; a line is one write, so lines do not mix.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

ACTIONS = frozenset(
    {
        "start", "stop", "restart", "give-up", "kill", "reap", "verdict", "signal", "suspended",
        "job", "fetch", "exhausted", "report", "verify", "heartbeat", "final", "server",
        "bind", "client", "message", "send", "outcome", "settle", "no-more",
        "pack", "upload", "delete", "storage", "recover", "task", "state", "control", "story",
        "drain", "deadline", "spare", "reload", "stage-in", "unpack",
    }
)  # fmt: skip
"""The closed list of actions."""


class Log:
    """One role's log. `job` is set while it has one."""

    def __init__(self, role: str, logger: logging.Logger) -> None:
        self.role = role
        self.job: int | None = None
        self._logger = logger

    def info(self, action: str, message: str, **fields: Any) -> None:
        """Something happened as it should."""
        self._write(logging.INFO, action, message, fields)

    def warning(self, action: str, message: str, **fields: Any) -> None:
        """Something went wrong and was dealt with."""
        self._write(logging.WARNING, action, message, fields)

    def error(self, action: str, message: str, **fields: Any) -> None:
        """Something went wrong and somebody should look."""
        self._write(logging.ERROR, action, message, fields)

    def _write(self, level: int, action: str, message: str, fields: dict[str, Any]) -> None:
        if action not in ACTIONS:
            raise ValueError(f"unknown log action {action!r}")
        job = "" if self.job is None else f" job={self.job}"
        data = "".join(f" {key}={quote(value)}" for key, value in fields.items())
        facts = {"role": self.role, "action": action, "job": self.job, "fields": fields}
        self._logger.log(level, "%s[%d]%s action=%s %s%s", self.role, os.getpid(), job, action,
                         message, data, extra={"espilot": facts})  # fmt: skip


def quote(value: Any) -> str:
    """A value on one line; quoted when it holds blanks or control characters."""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if text.isprintable() and " " not in text and text else repr(text)


class LineFormatter(logging.Formatter):
    """UTC time with milliseconds, level, line."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        level = record.levelname.lower()
        return f"{stamp}.{int(record.msecs):03d}Z {level} {record.getMessage()}"


class RotatedFile(WatchedFileHandler):
    """A log file that is made anew when it was moved away.

    Where it cannot be made anew (its directory is gone, no descriptor is left), lines go on into
    the file that is open: a lost log must not end a role.
    """

    def reopenIfNeeded(self) -> None:
        """Look whether the name still leads to our file."""
        if self._is_ours():
            return
        try:
            stream = self._open()
        except OSError:
            return
        former, self.stream = self.stream, stream
        if former is not None:
            former.close()
        status = os.fstat(stream.fileno())
        self.dev, self.ino = status.st_dev, status.st_ino

    def _is_ours(self) -> bool:
        try:
            status = os.stat(self.baseFilename)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self.dev, self.ino)


def open_log(
    role: str,
    path: Path | None,
    *,
    errors_to_stderr: bool = False,
    also: logging.Handler | None = None,
) -> Log:
    """The log of this process: to `path` (or stderr), and warnings also to stderr if asked.

    A file that was moved away is made anew, so logs can be rotated at any time. `also` gets each
    record with its facts in the attribute `espilot`. Opened again, it takes the place of the
    former one: no line is written twice.
    """
    logger = logging.getLogger(f"espilot.{role}.{os.getpid()}")
    for former in logger.handlers[:]:
        logger.removeHandler(former)
        former.close()
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler: logging.Handler = (
        logging.StreamHandler(sys.stderr) if path is None else RotatedFile(path)
    )
    handlers = [handler]
    if errors_to_stderr and path is not None:
        stderr = logging.StreamHandler(sys.stderr)
        stderr.setLevel(logging.WARNING)
        handlers.append(stderr)
    for each in handlers:
        each.setFormatter(LineFormatter())
        logger.addHandler(each)
    if also is not None:
        logger.addHandler(also)
    return Log(role, logger)
