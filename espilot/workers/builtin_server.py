"""The built-in server as a child of the supervisor: one task, on a loopback port of its own."""

from __future__ import annotations

import os
import time
from urllib.parse import urlsplit

from espilot.adapters.control import ControlLink
from espilot.adapters.process import guard_against_orphanhood
from espilot.server.app import serve
from espilot.server.options import ServerOptions
from espilot.server.quirk_text import read_quirks
from espilot.server.store import Store
from espilot.wire import envelope
from espilot.wire.messages import Alive, Hello, Listening
from espilot.workers.child import hold_shared
from espilot.workers.context import Context
from espilot.workers.local_task import read_local_task

ROLE = "builtin-server"
SENT_TIMEOUT_S = 10.0
"""A job whose answer was lost on the way is given up so soon: the pilot is on this machine."""


def be_server(context: Context, *, parent_pid: int, death_fd: int) -> None:
    """Serve the task of the job file until the supervisor ends us or dies."""
    guard_against_orphanhood(parent_pid, death_fd)
    lock = hold_shared(context)
    quirks = read_quirks(context.settings.server.quirks)
    options = ServerOptions(sent_timeout_s=SENT_TIMEOUT_S, quirks=quirks)
    database = context.database
    task_id = find_or_create_task(context, options)
    link = ControlLink(context.runtime, ROLE)
    # After a restart the clients look for us where we were.
    port = urlsplit(context.server_url).port or 0
    link.send(envelope.encode(Hello(ROLE, os.getpid())))
    serve(
        db=database,
        port=port,
        options=options,
        on_listening=lambda url: link.send(envelope.encode(Listening(url, task_id))),
        on_tick=lambda: link.send(envelope.encode(Alive(ROLE))),
        stop_fd=death_fd,
    )
    link.close()
    os.close(lock)


def find_or_create_task(context: Context, options: ServerOptions) -> int:
    """The id of the one task in the database; it is made at the first start."""
    now = time.time()
    store = Store(context.database, options, now=now)
    try:
        known = store.task_ids()
        return known[0] if known else store.create_task(read_local_task(context.settings), now)
    finally:
        store.close()
