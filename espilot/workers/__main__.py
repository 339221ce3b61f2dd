"""`python -m espilot.workers ROLE CONTEXT PARENT_PID DEATH_FD`: one worker process."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from espilot.adapters.stacks import StackFile
from espilot.errors import LocalError
from espilot.workers.child import Child, fail_loudly
from espilot.workers.context import Context, read_context

MODULES = {
    "dispatcher": "dispatcher",
    "event-server": "event_server",
    "stageout": "stageout",
}


def run(argv: list[str]) -> int:
    """Be the role that the command line names, until the end."""
    role, context_file, parent_pid, death_fd = argv
    try:
        context = open_context(Path(context_file))
        stack_file = StackFile(context.runtime)
        if role == "builtin-server":
            return run_server(context, int(parent_pid), int(death_fd))
        module = import_module(f"espilot.workers.{MODULES[role]}")
        child = Child(role, context, parent_pid=int(parent_pid), death_fd=int(death_fd))
        module.serve(child)
        stack_file.close()
    except LocalError as error:
        # Of this node, not a defect: the supervisor is gone already, a socket cannot be bound.
        sys.stderr.write(f"{role}: {error}\n")
        return 73
    except Exception as error:  # noqa: BLE001 (the top of a process)
        return fail_loudly(role, error)
    return 0


def open_context(path: Path) -> Context:
    """What the supervisor wrote for us; it goes away with the supervisor."""
    try:
        return read_context(path)
    except FileNotFoundError:
        raise LocalError(f"{path} is gone, and so is the supervisor") from None


def run_server(context: Context, parent_pid: int, death_fd: int) -> int:
    """The built-in server has a loop of its own (its web framework's)."""
    from espilot.workers.builtin_server import be_server

    be_server(context, parent_pid=parent_pid, death_fd=death_fd)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
