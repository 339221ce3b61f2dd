"""The outputs of a finished local run below WORKDIR/outputs, where the settings want them."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from typing import TextIO

from espilot.errors import EspilotError
from espilot.server.options import ServerOptions
from espilot.server.store import Store
from espilot.supervisor.collection import collect
from espilot.workers.context import Context
from espilot.workers.storages import open_storages


def collect_outputs(context: Context, out: TextIO) -> bool:
    """Unpack what the task made, and say so; True when that is done, or not wanted."""
    if not context.settings.packing.unpack or not context.database.is_file():
        return True
    opened = open_storages(context.settings, context.storage, context.jobdir)
    directory = context.outputs
    try:
        with closing(Store(context.database, ServerOptions(), now=time.time())) as store:
            archives = store.finished_archives()
        storages = {each.storage_id: each for each in reversed(opened.values())}
        files = collect(archives, storages, directory)
    except EspilotError as error:
        sys.stderr.write(f"the outputs are safe, but cannot be unpacked: {error}\n")
        return False
    finally:
        for storage in opened.values():
            storage.close()
    out.write(f"unpacked: {files} files in {directory}\n")
    return True
