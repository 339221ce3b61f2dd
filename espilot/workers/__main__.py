"""`python -m espilot.workers ROLE CONTEXT PARENT_PID DEATH_FD`: one worker process."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from espilot.workers.child import Child, fail_loudly
from espilot.workers.context import read_context

MODULES = {
    "dispatcher": "dispatcher",
    "event-server": "event_server",
    "stageout": "stageout",
}


def run(argv: list[str]) -> int:
    """Be the role that the command line names, until the end."""
    role, context_file, parent_pid, death_fd = argv
    try:
        module = import_module(f"espilot.workers.{MODULES[role]}")
        context = read_context(Path(context_file))
        child = Child(role, context, parent_pid=int(parent_pid), death_fd=int(death_fd))
        module.serve(child)
    except Exception as error:  # noqa: BLE001 (the top of a process)
        return fail_loudly(role, error)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
