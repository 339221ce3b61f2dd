"""Queue data and storage data, as a factory or a server's cache tells them.

Both are JSON objects made by others: what is missing or of a wrong type counts as not said, and is
named. Tokens of `catchall` are matched whole. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from espilot.errors import MessageError

RENAMED = {
    "name": "nickname",
    "resource": "panda_resource",
    "platform": "cmtconfig",
    "es_stageout_gap": "zip_time_gap",
}
"""Names as this module uses them, and how older data call them."""
ACTIVITIES = ("es_events", "es_failover", "pw", "es_events_read", "pl", "pls")
SCHEMES = ("s3", "davs", "https", "root", "file")
"""Ways to a storage, the best first."""
_LIMIT = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Catchall:
    """The tokens of `catchall`, and the values of those with `=`."""

    tokens: frozenset[str] = frozenset()
    values: Mapping[str, str] = field(default_factory=dict)

    def has(self, token: str) -> bool:
        """Whether the whole token is there."""
        return token in self.tokens

    def number(self, name: str) -> int | None:
        """The value of `name=N`; None when it is not there or no whole number."""
        text = self.values.get(name, "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else None


@dataclass(frozen=True, slots=True)
class QueueData:
    """What is known of one queue; 0 and "" mean: not said. `notes` name what was unusable."""

    name: str
    resource: str = ""
    site: str = ""
    state: str = ""
    status: str = ""
    core_count: int = 1
    memory_mb: int = 0
    workdir_mb: int = 0
    input_mb: int = 0
    time_floor_min: int = 0
    max_time_s: int = 0
    stageout_gap_s: int = 0
    resource_type: str = ""
    container_type: str = ""
    container_options: str = ""
    direct_access: bool = False
    opportunistic: bool = False
    environ: str = ""
    catchall: Catchall = Catchall()
    storages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def grace(self, name: str, default: float) -> float:
        """`params.NAME` percent as a part of one."""
        value = _plain_number(self.params.get(name))
        return default if value is None or value < 0 else value / 100

    @property
    def is_active(self) -> bool:
        """Whether its state, if it is told, is ACTIVE."""
        return self.state.upper() in ("", "ACTIVE")

    @property
    def is_offline(self) -> bool:
        """Whether its status is offline."""
        return self.status.lower() == "offline"


@dataclass(frozen=True, slots=True)
class StorageElement:
    """One storage element of the storage data, with the best way to it."""

    name: str
    storage_id: int
    url: str
    endpoint_url: str = ""
    key_names: tuple[str, str] = ("", "")
    """Names under which its access and secret key are kept; never the keys."""


def read_catchall(text: str) -> Catchall:
    """The tokens of a comma-separated list."""
    tokens = [token.strip() for token in text.split(",") if token.strip()]
    values = dict(token.split("=", 1) for token in tokens if "=" in token)
    return Catchall(frozenset(t for t in tokens if "=" not in t), values)


def read_object(text: str, what: str) -> Mapping[str, Any]:
    """A JSON object; `MessageError` names what it should be."""
    try:
        value = json.loads(text) if len(text) <= _LIMIT else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not value:
        raise MessageError(f"{what}: not a JSON object with anything in it")
    return value


def read_queue_data(text: str, queue: str) -> QueueData:
    """Data of the queue from an object of one queue or of all queues by name.

    `MessageError` when it is no object, or of other queues only.
    """
    table = read_object(text, "queue data")
    entry = _entry_of(table, queue)
    if entry is None:
        raise MessageError(f"queue data: there is no queue {queue!r:.60} in them")
    return _Reader(entry).queue(queue)


def _entry_of(table: Mapping[str, Any], queue: str) -> Mapping[str, Any] | None:
    """The queue's own object: by its name, as the only one, or the table itself."""
    own = table.get(queue)
    if isinstance(own, dict):
        return own
    name = table.get("name") or table.get("nickname")
    if isinstance(name, str) and (not queue or name == queue):
        return table
    if not queue and len(table) == 1:
        only = next(iter(table.values()))
        return only if isinstance(only, dict) else None
    return None


class _Reader:
    """Reads the fields of one queue and keeps the names of unusable ones."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self._entry = entry
        self._notes: list[str] = []

    def queue(self, name: str) -> QueueData:
        params = self._entry.get("params")
        return QueueData(
            name=self._text("name") or name,
            resource=self._text("resource"),
            site=self._text("site") or self._text("atlas_site") or self._text("gstat"),
            state=self._text("state"),
            status=self._text("status"),
            core_count=max(1, self._number("corecount")),
            memory_mb=self._number("maxrss"),
            workdir_mb=self._number("maxwdir"),
            input_mb=self._number("maxinputsize"),
            time_floor_min=self._number("timefloor"),
            max_time_s=self._number("maxtime"),
            stageout_gap_s=self._number("es_stageout_gap"),
            resource_type=self._text("resource_type"),
            container_type=self._text("container_type"),
            container_options=self._text("container_options"),
            direct_access=_is_true(self._entry.get("direct_access_lan")),
            opportunistic=str(self._entry.get("pledgedcpu")) == "-1",
            environ=self._text("environ"),
            catchall=read_catchall(self._text("catchall")),
            storages=self._storages(),
            params=params if isinstance(params, dict) else {},
            notes=tuple(self._notes),
        )

    def _value(self, name: str) -> Any:
        value = self._entry.get(name)
        return self._entry.get(RENAMED.get(name, name)) if value in (None, "") else value

    def _text(self, name: str) -> str:
        value = self._value(name)
        if value is None or value == "NULL":
            return ""
        if not isinstance(value, str):
            self._notes.append(f"{name} is no text")
            return ""
        return value.strip()

    def _number(self, name: str) -> int:
        value = self._value(name)
        if value in (None, "", "NULL"):
            return 0
        number = _plain_number(value)
        if number is None or number < 0:
            self._notes.append(f"{name} is no usable number: {value!r:.40}")
            return 0
        return int(number)

    def _storages(self) -> dict[str, tuple[str, ...]]:
        table = self._entry.get("astorages")
        if not isinstance(table, dict):
            return {}
        return {
            activity: tuple(name for name in names if isinstance(name, str))
            for activity, names in table.items()
            if activity in ACTIVITIES and isinstance(names, list)
        }


def _plain_number(value: Any) -> float | None:
    """A number from a number or its text; None for anything else, and for what is too large."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e15 else None


def _is_true(value: Any) -> bool:
    return value is True or str(value).lower() in ("true", "1", "yes")


def read_storage_data(text: str) -> dict[str, StorageElement]:
    """Storage elements by name; those without a usable way or number are left out."""
    table = read_object(text, "storage data")
    entries = {name: entry for name, entry in table.items() if isinstance(entry, dict)}
    read = {name: _read_element(name, entry) for name, entry in entries.items()}
    return {name: element for name, element in read.items() if element is not None}


def _read_element(name: str, entry: Mapping[str, Any]) -> StorageElement | None:
    number = _plain_number(entry.get("id", entry.get("pk")))
    ways = sorted(_ways(name, entry, int(number or 0)), key=_preference)
    return ways[0] if ways and number is not None else None


def _preference(element: StorageElement) -> int:
    return SCHEMES.index(element.url.partition(":")[0])


def _ways(name: str, entry: Mapping[str, Any], number: int) -> Iterator[StorageElement]:
    """All ways that the protocols of an element show."""
    for protocol in _protocols(entry):
        endpoint, path = protocol.get("endpoint"), protocol.get("path")
        if not isinstance(endpoint, str) or not isinstance(path, str):
            continue
        scheme, _, rest = endpoint.partition("://")
        if scheme not in SCHEMES:
            continue
        own = _plain_number(protocol.get("id"))
        storage_id = number if own is None else int(own)
        if scheme == "s3":
            yield _object_store(name, storage_id, rest.rstrip("/"), path, protocol)
        else:
            yield StorageElement(name, storage_id, f"{endpoint.rstrip('/')}/{path.lstrip('/')}")


def _protocols(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Protocols, written as a list or table of objects, or by activity as `[endpoint, order,
    path]`."""
    for table in (entry.get("rprotocols"), entry.get("arprotocols")):
        rows = list(table.values()) if isinstance(table, dict) else table
        for row in rows if isinstance(rows, list) else []:
            if isinstance(row, dict):
                yield row
            elif isinstance(row, list):
                yield from (each for each in row if isinstance(each, dict))
                yield from ({"endpoint": each[0], "path": each[2]} for each in row
                            if isinstance(each, list) and len(each) >= 3)  # fmt: skip


def _object_store(
    name: str, storage_id: int, host: str, path: str, protocol: Mapping[str, Any]
) -> StorageElement:
    """An object store: its path begins with the bucket."""
    settings = protocol.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    scheme = "http" if str(settings.get("is_secure")).lower() in ("false", "0", "no") else "https"
    names = (str(settings.get("access_key") or ""), str(settings.get("secret_key") or ""))
    url = f"s3://{path.strip('/')}"
    return StorageElement(name, storage_id, url, f"{scheme}://{host}" if host else "", names)
