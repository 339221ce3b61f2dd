"""The payload of a normal or merge job: its run, and how it ended."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espilot.errors import InputError
from espilot.foreign_files import open_regular

SETUP_FAILED, NOT_RUN = 1110, 1305
_SIGNALLED = {int(signal.SIGSEGV): 1328, int(signal.SIGTERM): 1201}
"""Pilot error codes of a payload that a signal ended. TERM reaches it before us when we end."""
_REPORT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class PayloadEnd:
    """How the payload ended: exit code as a shell tells it; `code` 0 means well."""

    exit_code: int
    code: int
    diag: str


def run_payload(argv: Sequence[str], directory: Path, env: Mapping[str, str]) -> PayloadEnd:
    """Run it to its end, with our own stdout and stderr; the launcher ends it with us.

    Errors: `InputError` when it cannot be started.
    """
    try:
        payload = subprocess.Popen(
            list(argv), cwd=directory, env=dict(env), stdin=subprocess.DEVNULL
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not usable as arguments"
        raise InputError(f"cannot start {argv[0]!a:.200}: {reason}", code=SETUP_FAILED) from error
    return describe_end(payload.wait(), read_report(directory / "jobReport.json"))


def describe_end(returned: int, report: Mapping[str, Any]) -> PayloadEnd:
    """The end by the exit code (negative: a signal) and the payload's own report, which counts."""
    told = report.get("exitCode")
    if isinstance(told, int) and not isinstance(told, bool) and told and returned >= 0:
        message = report.get("exitMsg") or report.get("exitAcronym") or "no reason given"
        return PayloadEnd(told, NOT_RUN, f"the payload reported exit code {told}: {message!s:.200}")
    if returned == 0:
        return PayloadEnd(0, 0, "")
    if returned > 0:
        return PayloadEnd(returned, NOT_RUN, f"the payload ended with exit code {returned}")
    code = _SIGNALLED.get(-returned, NOT_RUN)
    return PayloadEnd(128 - returned, code, f"the payload was ended by signal {-returned}")


def read_report(path: Path) -> Mapping[str, Any]:
    """The payload's job report; empty without a usable one."""
    try:
        with open_regular(path) as file:
            data = file.read(_REPORT_BYTES + 1)
        report = json.loads(data) if len(data) <= _REPORT_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) else {}
