"""How a pilot for a factory ended: the exit code, and a JSON report that says more than it can.

Most failures have the same exit code; the report has the pilot error code and the reason.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from espilot import __version__
from espilot.cli.stock_options import StockCommand
from espilot.cli.stock_queue import NoQueueDataError, QueueDataError
from espilot.core.exit_code import (
    BAD_QUEUE_DATA,
    GENERAL,
    NO_DIRECTORY,
    NO_JOBS,
    NO_QUEUE_DATA,
    NO_SERVER,
    NO_SPACE,
    REACHED_WALL_TIME,
    SITE_OFFLINE,
    code_of_signal,
    shell_code,
)
from espilot.errors import (
    EspilotError,
    NoDirectoryError,
    NoSpaceError,
    ServerError,
    StorageError,
    UsageError,
)
from espilot.supervisor.deadlines import REQUEST, SIGNAL
from espilot.supervisor.outcome import Outcome

NAME = "espilot-exit.json"
STOCK = "stock"
NO_STORAGE = 1133
CODES: Mapping[type[EspilotError], int] = MappingProxyType(
    {
        QueueDataError: BAD_QUEUE_DATA,
        NoQueueDataError: NO_QUEUE_DATA,
        NoSpaceError: NO_SPACE,
        NoDirectoryError: NO_DIRECTORY,
        ServerError: NO_SERVER,
        StorageError: NO_STORAGE,
        UsageError: SITE_OFFLINE,
    }
)
"""Pilot error codes of errors before anything was started; what cannot be used is 64."""


def failure(error: EspilotError) -> int:
    """The pilot error code of an error."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), GENERAL)


def pilot_code(outcome: Outcome) -> int:
    """The pilot error code of a run that went to its end."""
    if outcome.state == "failed":
        return outcome.code or GENERAL
    if outcome.state == "drained" or outcome.signal:
        by_deadline = outcome.drained_by not in ("", SIGNAL, REQUEST)
        return REACHED_WALL_TIME if by_deadline and not outcome.signal else 0
    return outcome.code or (0 if outcome.jobs else NO_JOBS)


class Report:
    """Collects what is known, and writes it once."""

    def __init__(self, here: Path) -> None:
        self.queue = ""
        self._path = here / NAME
        self._began = time.time()
        self._drained: int | None = None

    def configure(self, command: StockCommand) -> None:
        """Take the options that concern the end; `UsageError` for an unusable code."""
        self._path = Path(command.get("exit-report") or self._path).absolute()
        text = str(command.get("exit-on-drain", STOCK)).strip().lower()
        if text == STOCK:
            return
        if not text.isascii() or not text.isdecimal() or int(text) > 255 or int(text) == 2:
            raise UsageError(f"--exit-on-drain: {text!r:.40} is neither `stock` nor a usable code")
        self._drained = int(text)

    def write(self, outcome: Outcome, *, whole: bool) -> int:
        """The exit code of a run, reported. `whole`: nothing is left that could be reported."""
        code = pilot_code(outcome)
        drained = self._drained if whole else None
        shell = shell_code(code, signal=outcome.signal, drained=drained)
        code = code or (code_of_signal(outcome.signal) if shell else 0)
        return self._write(shell, code, outcome.reason, self._facts(outcome))

    def write_signal(self, number: int) -> int:
        """The exit code after a signal before anything was started, reported."""
        shell = shell_code(0, signal=number, drained=self._drained)
        return self._write(
            shell, code_of_signal(number), "ended before the start", {"signal": number}
        )

    def write_failure(self, code: int, reason: str) -> int:
        """The exit code of an error before anything was started, reported."""
        return self._write(shell_code(code), code, reason, {"state": "failed"})

    def _facts(self, outcome: Outcome) -> dict[str, Any]:
        counts = outcome.counts
        return {
            "state": outcome.state,
            "signal": outcome.signal,
            "jobs": outcome.jobs,
            "ranges": {} if counts is None else {
                "finished": counts.finished, "failed": counts.failed_total,
                "fatal": counts.fatal_total, "released": counts.released, "left": counts.live,
            },
            "events": 0 if counts is None else counts.events,
        }  # fmt: skip

    def _write(self, shell: int, code: int, reason: str, facts: Mapping[str, Any]) -> int:
        report = {
            "schema": "espilot.exit/1",
            "exit_code": shell,
            "pilot_error_code": code,
            "reason": reason,
            "queue": self.queue,
            "version": __version__,
            "began": self._began,
            "ended": time.time(),
            **facts,
        }
        sys.stderr.write(f"espilot: exit code {shell}, pilot error code {code}"
                         + (f": {reason}\n" if reason else "\n"))  # fmt: skip
        try:
            temporary = self._path.with_name(f".{self._path.name}.tmp")
            temporary.write_text(json.dumps(report) + "\n")
            temporary.replace(self._path)
        except OSError as error:
            sys.stderr.write(f"espilot: no exit report in {self._path}: {error.strerror}\n")
        return shell
