"""Queue data as settings: limits, storages, executors' options, `catchall` tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espilot.config import CHOICES
from espilot.config_origin import Layer
from espilot.wire.queuedata import ACTIVITIES, QueueData, StorageElement

MEMORY_FACTOR = 2.0
"""A payload may take so many times the queue's `maxrss`, if the queue says nothing else."""
WORKDIR_GRACE = 0.2
LOGS = "pls"
KNOWN_TOKENS = frozenset(
    {
        "es_to_zip", "not_es_to_zip", "disable_multiple_buckets", "disable_get_events_before_ready",
        "allow_remote_inputs", "log_to_objectstore", "disable_log_to_objectstore",
        "NO_PILOT_TIME_LIMIT_KILL", "no_token_renewal", "useJumboJobs",
    }
)  # fmt: skip
"""Tokens that are honoured or change nothing here."""


def queue_layer(
    queue: QueueData, elements: Mapping[str, StorageElement], origin: str
) -> tuple[Layer, list[str]]:
    """The settings that queue and storage data make, and what of them is unusable."""
    notes = [*queue.notes]
    table = {
        "server": {"site": queue.name},
        "payload": _payload(queue, notes),
        "limits": _limits(queue),
        "packing": {"max_age_s": queue.stageout_gap_s} if queue.stageout_gap_s else {},
        "stageout": _stageout(queue),
        "jobs": _jobs(queue),
        "stagein": {"access": "direct"} if _reads_directly(queue) else {},
        "endpoints": _endpoints(queue, elements, notes),
    }
    return Layer(origin, {name: section for name, section in table.items() if section}), notes


def _payload(queue: QueueData, notes: list[str]) -> dict[str, Any]:
    section: dict[str, Any] = {"cores": queue.core_count}
    for key in ("ranges", "outputs"):
        value = queue.catchall.values.get(f"payload_{key}")
        if value in CHOICES[f"payload.{key}"]:
            section[key] = value
        elif value is not None:
            notes.append(f"catchall: payload_{key}={value:.40} is not known")
    minutes = queue.catchall.number("max_wait_for_one_event")
    if minutes:
        section["range_hang_cap_s"] = minutes * 60
    return section


def _limits(queue: QueueData) -> dict[str, Any]:
    section: dict[str, Any] = {}
    if queue.workdir_mb:
        section["workdir_bytes"] = queue.workdir_mb * 2**20
        section["workdir_grace"] = queue.grace("pilot_maxwdir_grace", WORKDIR_GRACE)
    if queue.memory_mb:
        factor = 1 + queue.grace("pilot_rss_grace", MEMORY_FACTOR - 1)
        section["memory_bytes"] = int(queue.memory_mb * 2**20 * factor)
    if queue.max_time_s and not queue.catchall.has("NO_PILOT_TIME_LIMIT_KILL"):
        section["wall_s"] = queue.max_time_s
    return section


def _stageout(queue: QueueData) -> dict[str, Any]:
    threads = queue.catchall.number("stageout_threads")
    section: dict[str, Any] = {"parallel": threads} if threads else {}
    if queue.catchall.has("disable_log_to_objectstore"):
        section["logs_every_s"] = 0.0
    return section


def _jobs(queue: QueueData) -> dict[str, Any]:
    """With a time floor jobs are taken until it is over."""
    floor_s = queue.time_floor_min * 60
    return {"at_most": 0, "floor_s": floor_s} if floor_s else {}


def _reads_directly(queue: QueueData) -> bool:
    return queue.direct_access or queue.catchall.has("allow_remote_inputs")


def _endpoints(
    queue: QueueData, elements: Mapping[str, StorageElement], notes: list[str]
) -> dict[str, Any]:
    """An endpoint for each storage that the queue names for an activity of ours."""
    named = {name: None for activity in ACTIVITIES for name in queue.storages.get(activity, ())}
    endpoints = {}
    for name in named:
        element = elements.get(name)
        if element is None:
            notes.append(f"storage {name:.60} is not in the storage data, or has no way we can use")
            continue
        # Points separate sections and keys in names of settings.
        endpoints[name.replace(".", "_")] = _endpoint(
            element, [a for a in ACTIVITIES if name in _serving(queue, a)]
        )
    return endpoints


def _serving(queue: QueueData, activity: str) -> tuple[str, ...]:
    """The storages of an activity; logs of running jobs may go to the object store of outputs."""
    named = queue.storages.get(activity, ())
    tokens = queue.catchall
    if activity == LOGS and not named and tokens.has("log_to_objectstore"):
        off = tokens.has("disable_log_to_objectstore")
        return () if off else queue.storages.get("es_events", ())[:1]
    return named


def _endpoint(element: StorageElement, activities: list[str]) -> dict[str, Any]:
    section: dict[str, Any] = {
        "url": element.url,
        "id": element.storage_id,
        "activities": activities,
    }
    if element.endpoint_url:
        section["endpoint_url"] = element.endpoint_url
    if all(name.isidentifier() for name in element.key_names):
        section["credentials"] = f"env:{','.join(element.key_names)}"
    return section


def unknown_tokens(queue: QueueData) -> list[str]:
    """Tokens of `catchall` that nobody here knows, for the log."""
    return sorted(queue.catchall.tokens - KNOWN_TOKENS)
