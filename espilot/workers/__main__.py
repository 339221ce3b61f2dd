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
        if role == "builtin-server":
            return run_server(Path(context_file), int(parent_pid), int(death_fd))
        module = import_module(f"espilot.workers.{MODULES[role]}")
        context = read_context(Path(context_file))
        child = Child(role, context, parent_pid=int(parent_pid), death_fd=int(death_fd))
        module.serve(child)
    except Exception as error:  # noqa: BLE001 (the top of a process)
        return fail_loudly(role, error)
    return 0


def run_server(context_file: Path, parent_pid: int, death_fd: int) -> int:
    """The built-in server has a loop of its own (its web framework's)."""
    from espilot.workers.builtin_server import be_server

    be_server(read_context(context_file), parent_pid=parent_pid, death_fd=death_fd)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
