"""The exit codes of `espilot`'s own commands; the one table. A stock pilot's: `core/exit_code`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from espilot.errors import EspilotError, LocalError, ServerError, StorageError, UsageError

FINISHED = 0
FAILED = 1
DRAINED = 3
USAGE = 64
DEFECT = 70
LOCAL = 73
UNAVAILABLE = 75
INTERRUPTED = 130

TABLE: Mapping[int, str] = MappingProxyType(
    {
        FINISHED: "everything asked for was done",
        FAILED: "the task failed: ranges could not be processed, or a limit ended the run",
        DRAINED: "ended early; what was made is safe and reported, the rest went back",
        USAGE: "the command line, a job file or a setting cannot be used",
        DEFECT: "an error in espilot itself",
        LOCAL: "this node: a directory, the disk, another pilot",
        UNAVAILABLE: "the server or the storage cannot be reached, or refuses us; "
        "of a service also: its credential comes to its end",
        INTERRUPTED: "ended by Ctrl-C before anything was started",
    }
)

BY_STATE = {"finished": FINISHED, "failed": FAILED, "drained": DRAINED}


def code_of(error: EspilotError) -> int:
    """The exit code of an error that ended a command."""
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, LocalError):
        return LOCAL
    if isinstance(error, ServerError | StorageError):
        return UNAVAILABLE
    return DEFECT
