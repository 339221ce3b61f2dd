"""The two dialects behind one face: what to send for each call, and how to read what comes back.

An `Exchange` is one call as a value; whoever has a connection carries it out. What a pilot says is
the same in both dialects, so the legacy one translates the parameters of v1.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from espilot.model import ANY_ROOM, EventRange, Job, JobUpdate, ReportAnswer, ReportBatch, Room
from espilot.wire import panda_legacy, panda_v1, panda_v1_answers
from espilot.wire.panda_answers import Readable, stream_statuses
from espilot.wire.panda_legacy import Method
from espilot.wire.panda_reports import count_ranges, write_updates
from espilot.wire.panda_v1 import Call, Pilot

T = TypeVar("T")
Statuses = Mapping[str, str]
_GZIP_FROM_BYTES = 4096
_GZIP_BITS = zlib.MAX_WBITS | 16


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request below a server's address."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: bytes | None = None

    @property
    def function(self) -> str:
        """The name by which the server forbids it."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Exchange(Generic[T]):
    """A request and the reader of its answer (HTTP status, body). `stream` reads a large good
    answer as it comes, where there may be one."""

    request: Request
    read: Callable[[int, bytes], T]
    stream: Callable[[Readable], T] | None = None


class Dialect(Protocol):
    """What a pilot can say."""

    name: str

    def probe(self) -> Exchange[bool]:
        """Whether the server speaks this dialect; needs no identity."""
        ...

    def acquire_job(self, pilot: Pilot, room: Room = ANY_ROOM) -> Exchange[Job | None]:
        """Ask for one job that fits."""
        ...

    def acquire_ranges(self, job: Job, n: int) -> Exchange[tuple[EventRange, ...]]:
        """Ask for up to `n` ranges."""
        ...

    def report(self, job: Job, batches: Sequence[ReportBatch]) -> Exchange[ReportAnswer]:
        """Tell the fate of ranges."""
        ...

    def range_statuses(self, job: Job, wanted: Collection[str] | None) -> Exchange[Statuses]:
        """Ask what the server holds of the job's ranges."""
        ...

    def update_job(self, job: Job, update: JobUpdate, pilot: Pilot) -> Exchange[str | None]:
        """A heartbeat or the final update; None: it was not taken, for its metadata."""
        ...

    def update_worker(self, pilot: Pilot, state: str) -> Exchange[None]:
        """Tell that this worker of a Harvester has `started` or `finished`."""
        ...


class V1:
    """The dialect below `/api/v1/`."""

    name = "v1"

    def probe(self) -> Exchange[bool]:
        """See `Dialect`; so for the others."""
        return Exchange(v1_request(panda_v1.IS_ALIVE, {}), panda_v1_answers.read_alive)

    def acquire_job(self, pilot: Pilot, room: Room = ANY_ROOM) -> Exchange[Job | None]:
        parameters = panda_v1.acquire_jobs_parameters(pilot, room)
        request = v1_request(panda_v1.ACQUIRE_JOBS, parameters)
        return Exchange(request, panda_v1_answers.read_acquired_job)

    def acquire_ranges(self, job: Job, n: int) -> Exchange[tuple[EventRange, ...]]:
        parameters = panda_v1.acquire_ranges_parameters(job, n)
        return Exchange(
            v1_request(panda_v1.ACQUIRE_RANGES, parameters), panda_v1_answers.read_ranges
        )

    def report(self, job: Job, batches: Sequence[ReportBatch]) -> Exchange[ReportAnswer]:
        n = count_ranges(batches)
        parameters = {"event_ranges": write_updates(batches), "version": 1}
        return Exchange(
            v1_request(panda_v1.UPDATE_RANGES, parameters),
            lambda status, body: panda_v1_answers.read_report(status, body, n),
        )

    def range_statuses(self, job: Job, wanted: Collection[str] | None) -> Exchange[Statuses]:
        parameters = panda_v1.range_statuses_parameters(job)
        return Exchange(
            v1_request(panda_v1.RANGE_STATUSES, parameters),
            lambda status, body: panda_v1_answers.read_statuses(status, body, job.panda_id),
            lambda source: stream_statuses(source, f"data.{job.panda_id}", wanted),
        )

    def update_job(self, job: Job, update: JobUpdate, pilot: Pilot) -> Exchange[str | None]:
        parameters = panda_v1.update_job_parameters(job, update, pilot)
        return Exchange(v1_request(panda_v1.UPDATE_JOB, parameters), panda_v1_answers.read_command)

    def update_worker(self, pilot: Pilot, state: str) -> Exchange[None]:
        parameters = panda_v1.update_worker_parameters(pilot, state)
        return Exchange(v1_request(panda_v1.UPDATE_WORKER, parameters), panda_v1_answers.read_done)


class Legacy:
    """The dialect below `/server/panda/`."""

    name = "legacy"

    def probe(self) -> Exchange[bool]:
        return Exchange(_legacy_request(panda_legacy.IS_ALIVE, {}), panda_legacy.read_alive)

    def acquire_job(self, pilot: Pilot, room: Room = ANY_ROOM) -> Exchange[Job | None]:
        parameters = panda_v1.acquire_jobs_parameters(pilot, room)
        # Without a number the answer is one flat definition, which the oldest servers know too.
        del parameters["n_jobs"]
        request = _legacy_request(panda_legacy.GET_JOB, parameters)
        return Exchange(request, panda_legacy.read_acquired_job)

    def acquire_ranges(self, job: Job, n: int) -> Exchange[tuple[EventRange, ...]]:
        parameters = panda_v1.acquire_ranges_parameters(job, n)
        request = _legacy_request(panda_legacy.GET_EVENT_RANGES, parameters)
        return Exchange(request, panda_legacy.read_ranges)

    def report(self, job: Job, batches: Sequence[ReportBatch]) -> Exchange[ReportAnswer]:
        n = count_ranges(batches)
        parameters = {"event_ranges": write_updates(batches), "version": 1}
        return Exchange(
            _legacy_request(panda_legacy.UPDATE_EVENT_RANGES, parameters),
            lambda status, body: panda_legacy.read_report(status, body, n),
        )

    def range_statuses(self, job: Job, wanted: Collection[str] | None) -> Exchange[Statuses]:
        parameters = panda_v1.range_statuses_parameters(job)
        return Exchange(
            _legacy_request(panda_legacy.GET_EVENTS_STATUS, parameters),
            lambda status, body: panda_legacy.read_statuses(status, body, job.panda_id),
            lambda source: stream_statuses(source, str(job.panda_id), wanted),
        )

    def update_job(self, job: Job, update: JobUpdate, pilot: Pilot) -> Exchange[str | None]:
        parameters = panda_v1.update_job_parameters(job, update, pilot)
        request = _legacy_request(panda_legacy.UPDATE_JOB, parameters)
        return Exchange(request, panda_legacy.read_command)

    def update_worker(self, pilot: Pilot, state: str) -> Exchange[None]:
        parameters = {"site_name": pilot.site, **panda_v1.update_worker_parameters(pilot, state)}
        request = _legacy_request(panda_legacy.UPDATE_WORKER, parameters)
        return Exchange(request, panda_legacy.read_done)


DIALECTS: Mapping[str, Dialect] = MappingProxyType({"legacy": Legacy(), "v1": V1()})
"""All dialects, the preferred one first: legacy answers bulk updates and takes the pilot role."""


def v1_request(call: Call, parameters: Mapping[str, Any]) -> Request:
    """A v1 call. A large body is compressed, and says so: a wrong label kills a server process."""
    if call.method == "GET":
        return Request("GET", call.path, panda_v1.REQUEST_HEADERS, query=dict(parameters))
    body, headers = json.dumps(parameters).encode(), dict(panda_v1.REQUEST_HEADERS)
    if len(body) >= _GZIP_FROM_BYTES:
        body, headers["Content-Encoding"] = zlib.compress(body, 1, _GZIP_BITS), "gzip"
    return Request("POST", call.path, headers, body=body)


def _legacy_request(method: Method, parameters: Mapping[str, Any]) -> Request:
    body = panda_legacy.write_form(method, parameters)
    return Request("POST", method.path, panda_legacy.REQUEST_HEADERS, body=body)
