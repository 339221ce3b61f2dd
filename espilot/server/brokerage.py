"""Which queue may run which job, and where a merge job runs. Pure rules over facts.

* A queue takes event jobs by its job seed: `es` only those, `all` those and others, `std` none,
  `eshigh` only those of high priority (the tail of a task).
* Jumbo jobs go to queues with `useJumboJobs` among the tokens of their catchall, and nowhere else.
* A queue that nobody described takes everything but jumbo jobs.
* A merge job goes close to its input: the storage that holds most bytes, disk before object store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from espilot.server.schema import Kind

HIGH_PRIORITY = 800
"""Above it a job is of high priority."""
DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Queue:
    """A computing resource. `maxtime_s` 0: no limit; `activity`: pilots that work there.

    `is_preemptable`: its nodes may be taken away at any time (pledged CPU -1).
    """

    name: str
    jobseed: str = "all"
    catchall: tuple[str, ...] = ()
    status: str = "online"
    site: str = ""
    nucleus: str = ""
    cores: int = 1
    is_ucore: bool = False
    maxtime_s: int = 0
    activity: int = 0
    is_preemptable: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A storage endpoint. `kind` ends in DISK for disk storage; `OS_ES` is an object store."""

    storage_id: int
    kind: str = "OS_ES"
    site: str = ""
    nucleus: str = ""


def may_run(queue: Queue, kind: Kind, priority: int) -> bool:
    """Whether a queue takes a job of this kind and priority."""
    if kind is Kind.JUMBO:
        return "useJumboJobs" in queue.catchall
    if kind in (Kind.MERGE, Kind.SINGLE):
        return queue.jobseed in ("all", "std")
    if queue.jobseed == "eshigh":
        return priority > HIGH_PRIORITY
    return queue.jobseed in ("es", "all")


def choose_storage(
    bytes_by_id: Mapping[int, int], endpoints: Mapping[int, Endpoint]
) -> Endpoint | None:
    """The known endpoint with most bytes, disk before object stores."""
    known = [endpoints[storage_id] for storage_id in bytes_by_id if storage_id in endpoints]
    return max(
        known,
        key=lambda e: (e.kind.endswith("DISK"), bytes_by_id[e.storage_id], -e.storage_id),
        default=None,
    )


@dataclass(frozen=True, slots=True)
class MergePlace:
    """What decides where a merge job runs. `producer` is the queue of the last event job;
    `near_storage` is the flag `mo`; `nucleus` the task's destination."""

    producer: str
    storage: Endpoint | None
    near_storage: bool = False
    nucleus: str = ""


def choose_merge_queue(place: MergePlace, queues: Mapping[str, Queue]) -> str:
    """Name of the queue for a merge job; "" when any may run it, because none fits better."""
    producer = queues.get(place.producer)
    if producer is not None and "localEsMergeNC" in producer.catchall:
        return producer.name
    usable = [queue for queue in queues.values() if _can_merge(queue)]
    if producer is not None and "localEsMerge" in producer.catchall:
        return _busiest(queue for queue in usable if queue.site == producer.site)
    near = _near(place, usable)
    return _busiest(near) or _busiest(usable)


def _near(place: MergePlace, usable: list[Queue]) -> list[Queue]:
    """Beside the disk that holds the input; else at the destination; else near the object store."""
    storage = place.storage
    if storage is not None and (storage.kind.endswith("DISK") or place.near_storage):
        found = [q for q in usable if storage.site and q.site == storage.site]
        found = found or [q for q in usable if storage.nucleus and q.nucleus == storage.nucleus]
        if found:
            return found
    if place.nucleus:
        return [queue for queue in usable if queue.nucleus == place.nucleus]
    if storage is not None:
        return [queue for queue in usable if storage.site and queue.site == storage.site]
    return []


def _can_merge(queue: Queue) -> bool:
    small = queue.cores == 1 or queue.is_ucore
    long_enough = queue.maxtime_s == 0 or queue.maxtime_s >= DAY_S
    return small and long_enough and queue.status == "online" and queue.jobseed in ("all", "std")


def _busiest(queues: Iterable[Queue]) -> str:
    best = max(queues, key=lambda queue: (queue.activity, queue.name), default=None)
    return best.name if best is not None else ""
