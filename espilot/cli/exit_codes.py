"""The exit codes of `espilot`'s own commands; the one table."""

from __future__ import annotations

FINISHED = 0
"""Everything asked for was done."""
FAILED = 1
"""The task failed: some of its ranges could not be processed, or the run was ended by a limit."""
DRAINED = 3
"""The run was ended early; what was made is safe and reported, the rest went back."""
USAGE = 64
"""The command line or a job file cannot be used."""
DEFECT = 70
"""An error in espilot itself."""
LOCAL = 73
"""This node: a directory, the disk, another pilot."""
UNAVAILABLE = 75
"""The server or the storage cannot be reached."""

INTERRUPTED = 130
"""Ended by Ctrl-C before anything was started."""

BY_STATE = {"finished": FINISHED, "failed": FAILED, "drained": DRAINED}
