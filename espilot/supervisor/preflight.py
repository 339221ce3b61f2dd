"""Before anything is started: what cannot work is refused in one line that names it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from espilot.adapters.disk import free_bytes
from espilot.core.space import refuse_start
from espilot.errors import LocalError, NoDirectoryError, NoSpaceError, StorageFatal
from espilot.payload.template import parse_template
from espilot.supervisor.container import container_words
from espilot.supervisor.payload import payload_command
from espilot.supervisor.statedir import require_utf8
from espilot.workers.access_point import access_point, require_shared
from espilot.workers.context import Context
from espilot.workers.local_task import read_local_task


def require_framework() -> None:
    """`LocalError` when the built-in server's web framework is not installed."""
    if find_spec("aiohttp") is None:
        raise LocalError("aiohttp is not installed; remedy: pip install 'espilot[server]'")


def check(context: Context, *, recovering: bool = False) -> None:
    """Refuse a payload command, a task, a work directory or a storage that cannot be used.

    Makes the work directory. Recovering starts on a full disk too, as it makes room. Errors:
    `UsageError`, `LocalError`, `StorageFatal`.
    """
    check_payload(context)
    require_utf8(context.workdir)
    place = access_point(context.server_url)
    if place is not None:
        require_shared(context, place)
    elif not context.at_server:
        read_local_task(context.settings)
    try:
        context.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoDirectoryError(
            f"cannot make the work directory {context.workdir}: {error.strerror}; "
            "choose another --workdir"
        ) from None
    if not os.access(context.workdir, os.W_OK | os.X_OK):
        raise NoDirectoryError(f"cannot write in {context.workdir}; choose another --workdir")
    lack = refuse_start(free_bytes(context.workdir), context.settings.limits.free_start_bytes)
    if lack and not recovering:
        raise NoSpaceError(
            f"the disk of {context.workdir} is too full: {lack}; "
            "make room, choose another --workdir, or set limits.free_start_bytes"
        )
    if context.storage.startswith("/"):
        _check_storage(Path(context.storage))


def check_payload(context: Context) -> None:
    """Refuse a payload command that cannot be used: `UsageError`.

    A job from a server may bring its own.
    """
    payload = context.settings.payload
    container_words(payload.container)
    if context.server_url and not payload.command and not payload.exec:
        return
    payload, task = context.settings.payload, context.settings.task
    by_definition = bool(task.job_file) and not (payload.command or payload.exec)
    argv = [] if by_definition else payload_command(context, "channel")
    if payload.exec:
        parse_template(argv[argv.index("--") + 1 :])


def _check_storage(directory: Path) -> None:
    """A storage directory must exist, or be possible to make."""
    nearest = next(each for each in (directory, *directory.parents) if each.exists())
    if not nearest.is_dir():
        raise StorageFatal(f"storage {directory}: {nearest} is not a directory")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageFatal(f"storage {directory}: no permission to write in {nearest}")
