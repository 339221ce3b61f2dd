"""What a job file wants to be done with the result of a finished task: check it, draw it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TextIO

from espilot.errors import ConfigError
from espilot.supervisor.transformation import replace_all
from espilot.workers.context import Context


def show_result(context: Context, out: TextIO) -> bool:
    """Run `task.show`, its output to `out`; True when it is well, or there is none.

    Of a storage that is no directory nothing is shown.
    """
    argv = command_of(context)
    if not argv or not context.storage.startswith("/"):
        return True
    out.flush()
    try:
        ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out.fileno(), check=False)
    except OSError as error:
        sys.stderr.write(f"task.show: cannot start {argv[0]}: {error.strerror}\n")
        return False
    if ended.returncode:
        sys.stderr.write(f"task.show: {argv[0]} ended with exit code {ended.returncode}\n")
    return ended.returncode == 0


def command_of(context: Context) -> list[str]:
    """The arguments, placeholders replaced; `ConfigError` when the text cannot be split."""
    task = context.settings.task
    values = {
        "{python}": sys.executable,
        "{jobdir}": str(context.jobdir),
        "{workdir}": str(context.workdir),
        "{storage}": context.storage,
        "{events}": str(task.total_events),
        "{task}": task.name,
    }
    try:
        return [replace_all(word, values) for word in shlex.split(task.show)]
    except ValueError as error:
        raise ConfigError(f"task.show {task.show!r}: {error}") from None
