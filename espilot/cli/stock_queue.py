"""Queue and storage data of a pilot that a factory has started: left in files, or at an address.

A file that the factory has left goes before any address.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from espilot.cli.stock_options import StockCommand
from espilot.config_origin import Layer
from espilot.errors import EspilotError, LocalError, MessageError, ServerError
from espilot.queue_layer import queue_layer, unknown_tokens
from espilot.supervisor.remote_text import fetch_text
from espilot.wire.queuedata import QueueData, read_queue_data, read_storage_data

QUEUE_FILE = "queuedata.json"
STORAGE_FILES = ("cric_ddmendpoints.json", "ddmendpoints.json")


class QueueDataError(EspilotError):
    """Queue data that cannot be used."""


class NoQueueDataError(EspilotError):
    """Queue data that cannot be had."""


def read_queue(
    command: StockCommand, environ: Mapping[str, str], here: Path, name: str
) -> tuple[QueueData | None, list[Layer], list[str]]:
    """Queue data, the settings that they make, and notes; nothing where nobody names any.

    Errors: `QueueDataError`, `NoQueueDataError`.
    """
    address = _place(here, [QUEUE_FILE], str(command.get("queuedata-url") or ""))
    if not address:
        return None, [], []
    storages = _place(here, STORAGE_FILES, str(command.get("storagedata-url") or ""))
    ca = command.get("cacert") or command.get("capath")
    texts = [_fetch(each, Path(ca) if ca else None, environ) for each in (address, storages)]
    try:
        queue = read_queue_data(texts[0], name)
        elements = read_storage_data(texts[1]) if storages else {}
    except MessageError as error:
        raise QueueDataError(f"{address:.200}: {error}") from error
    layer, notes = queue_layer(queue, elements, f"queue data {address:.200}")
    notes += [f"catchall: nothing here knows {token:.40}" for token in unknown_tokens(queue)]
    return queue, [layer], notes


def _place(here: Path, names: list[str] | tuple[str, ...], address: str) -> str:
    """The first of the files that is there, else the address."""
    return next((str(here / name) for name in names if (here / name).is_file()), address)


def _fetch(address: str, ca: Path | None, environ: Mapping[str, str]) -> str:
    try:
        return fetch_text(address, ca=ca, environ=environ) if address else ""
    except (ServerError, LocalError) as error:
        raise NoQueueDataError(f"queue data: {error}") from error
