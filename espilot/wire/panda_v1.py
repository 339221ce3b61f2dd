"""The v1 dialect: paths, parameter names with their strict types, and the requests of a pilot.

The table `CALLS` is the dialect's vocabulary for both ends. Requests are built here and their
answers read in `panda_v1_answers`; both are pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

from espilot.model import ANY_ROOM, Job, JobUpdate, Room
from espilot.wire.panda_reports import cut_text

FINAL_STATES = ("finished", "failed")
JOB_STATES = ("starting", "running", "transferring", "holding", *FINAL_STATES)
REQUEST_HEADERS: Mapping[str, str] = MappingProxyType(
    {"Accept": "application/json", "Content-Type": "application/json"}
)
_LARGEST_INT32 = 2**31 - 1
LENGTHS: Mapping[str, int] = MappingProxyType(
    {
        "node": 128,
        "pilot_id": 200,
        "batch_id": 80,
        "pilot_error_diag": 500,
        "exe_error_diag": 500,
        "job_metrics": 500,
        "job_sub_status": 80,
        "pilot_log": 1024,
        "stdout": 2048,
        "cpu_architecture_level": 20,
    }
)
"""What a server keeps of texts, in bytes."""


class Kind(Enum):
    """Declared type of a parameter."""

    STR = "str"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    NUMBER = "int or float"
    ANY = "any"
    INT_LIST = "list of int"
    BROKEN = "broken"
    """Its declared type is no type in real servers: any value ends in HTTP 500."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; a required one has no default."""

    kind: Kind
    required: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """One function of the API. `name` is `module/function`."""

    method: str
    name: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Path below the server's address."""
        return f"/api/v1/{self.name}"


def _many(kind: Kind, *names: str) -> dict[str, Parameter]:
    return {name: Parameter(kind) for name in names}


def _needed(kind: Kind, *names: str) -> dict[str, Parameter]:
    return {name: Parameter(kind, required=True) for name in names}


def _timeout(default: int = 60) -> dict[str, Parameter]:
    return {"timeout": Parameter(Kind.INT, default=default)}


IS_ALIVE = Call("GET", "system/is_alive")
ACQUIRE_JOBS = Call(
    "POST",
    "pilot/acquire_jobs",
    {
        **_needed(Kind.STR, "site_name"),
        **_timeout(),
        **_many(Kind.INT, "memory", "disk_space", "task_id", "worker_id"),
        "n_jobs": Parameter(Kind.INT, default=1),
        **_many(Kind.STR, "prod_source_label", "node", "computing_element", "prod_user_id"),
        **_many(Kind.STR, "get_proxy_key", "resource_type", "harvester_id", "scheduler_id"),
        **_many(Kind.STR, "job_type"),
        **_many(Kind.BOOL, "background", "via_topic"),
        **_many(Kind.ANY, "remaining_time", "target_architecture"),
    },
)
GET_JOB_STATUS = Call(
    "GET", "pilot/get_job_status", {**_needed(Kind.INT_LIST, "job_ids"), **_timeout()}
)
UPDATE_JOB = Call(
    "POST",
    "pilot/update_job",
    {
        **_needed(Kind.INT, "job_id"),
        **_needed(Kind.STR, "job_status"),
        **_many(Kind.INT, "attempt_nr", "pilot_error_code", "exe_error_code", "trans_exit_code"),
        **_many(Kind.INT, "n_events", "n_input_files", "cpu_consumption_time"),
        **_many(Kind.INT, "core_count", "mean_core_count"),
        **_many(Kind.STR, "node", "site_name", "scheduler_id", "pilot_id", "batch_id"),
        **_many(Kind.STR, "start_time", "end_time", "pilot_error_diag", "exe_error_diag"),
        **_many(Kind.STR, "cpu_consumption_unit", "job_metrics", "job_sub_status"),
        **_many(Kind.STR, "pilot_timing", "corrupted_files", "pilot_log", "stdout", "meta_data"),
        **_many(Kind.STR, "job_output_report", "grid", "source_site", "destination_site"),
        **_many(Kind.STR, "cpu_architecture_level"),
        **_many(Kind.NUMBER, "cpu_conversion_factor"),
        **_many(Kind.NUMBER, "max_rss", "max_vmem", "max_swap", "max_pss"),
        **_many(Kind.NUMBER, "avg_rss", "avg_vmem", "avg_swap", "avg_pss"),
        **_many(Kind.NUMBER, "tot_rchar", "tot_wchar", "tot_rbytes", "tot_wbytes"),
        **_many(Kind.NUMBER, "rate_rchar", "rate_wchar", "rate_rbytes", "rate_wbytes"),
        **_timeout(),
    },
)
UPDATE_JOBS = Call(
    "POST",
    "pilot/update_jobs_bulk",
    {"job_list": Parameter(Kind.ANY, required=True), **_many(Kind.STR, "harvester_id")},
)
UPDATE_WORKER = Call(
    "POST",
    "pilot/update_worker_status",
    _many(Kind.ANY, "worker_id", "harvester_id", "status", "node_id", "timeout"),
)
COUNT_RANGES = Call(
    "GET",
    "event/get_available_event_range_count",
    {**_needed(Kind.INT, "job_id", "jobset_id", "task_id"), **_timeout()},
)
RANGE_STATUSES = Call(
    "GET",
    "event/get_event_range_statuses",
    {**_needed(Kind.STR, "job_task_ids"), **_timeout()},
)
ACQUIRE_RANGES = Call(
    "POST",
    "event/acquire_event_ranges",
    {
        **_needed(Kind.INT, "job_id", "jobset_id"),
        **_many(Kind.INT, "task_id", "segment_id"),
        "n_ranges": Parameter(Kind.INT, default=10),
        **_timeout(),
        "scattered": Parameter(Kind.BOOL, default=False),
    },
)
UPDATE_RANGE = Call(
    "POST",
    "event/update_single_event_range",
    {
        **_needed(Kind.STR, "event_range_id", "event_range_status"),
        **_many(Kind.INT, "core_count"),
        **_many(Kind.FLOAT, "cpu_consumption_time"),
        "object_store_id": Parameter(Kind.BROKEN),
        **_timeout(),
    },
)
UPDATE_RANGES = Call(
    "POST",
    "event/update_event_ranges",
    {
        **_needed(Kind.STR, "event_ranges"),
        **_timeout(120),
        "version": Parameter(Kind.INT, default=0),
    },
)
# Only the built-in server has the module `local`.
CREATE_TASK = Call(
    "POST",
    "local/create_task",
    {
        **_needed(Kind.STR, "name"),
        "events": Parameter(Kind.INT, default=0),
        "events_per_range": Parameter(Kind.INT, default=1),
        **_many(Kind.ANY, "outputs", "inputs"),
        "max_attempts": Parameter(Kind.INT, default=3),
        "core_count": Parameter(Kind.INT, default=1),
        "consumers": Parameter(Kind.INT, default=1),
        **_many(Kind.INT, "task_id", "events_per_job", "jumbo_jobs", "jumbo_off_below", "priority"),
        **_many(Kind.STR, "merge_transformation", "merge_parameters"),
        **_many(Kind.ANY, "flags"),
    },
)
SET_COMMAND = Call(
    "POST",
    "local/set_command",
    {**_needed(Kind.INT, "job_id"), **_needed(Kind.STR, "command")},
)
TASK_STATUS = Call("GET", "local/task_status", _needed(Kind.INT, "task_id"))
EVENT_ROWS = Call("GET", "local/event_rows", _needed(Kind.INT, "task_id"))

CALLS: Mapping[str, Call] = MappingProxyType(
    {
        call.name: call
        for call in (
            IS_ALIVE,
            ACQUIRE_JOBS,
            GET_JOB_STATUS,
            UPDATE_JOB,
            UPDATE_JOBS,
            UPDATE_WORKER,
            COUNT_RANGES,
            RANGE_STATUSES,
            ACQUIRE_RANGES,
            UPDATE_RANGE,
            UPDATE_RANGES,
            CREATE_TASK,
            SET_COMMAND,
            TASK_STATUS,
            EVENT_ROWS,
        )
    }
)


def fits(kind: Kind, value: Any) -> bool:
    """True when a JSON value has the declared type, strictly: no string or float for an int, no
    int for a float, no number for a string."""
    if kind is Kind.STR:
        return isinstance(value, str)
    if kind is Kind.BOOL:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return kind is Kind.ANY
    if kind is Kind.INT:
        return isinstance(value, int) and abs(value) < 2**63
    if kind is Kind.FLOAT:
        return isinstance(value, float)
    if kind is Kind.INT_LIST:
        return isinstance(value, list) and all(fits(Kind.INT, entry) for entry in value)
    return kind is Kind.ANY or (kind is Kind.NUMBER and isinstance(value, int | float))


@dataclass(frozen=True, slots=True)
class Pilot:
    """Who asks: the queue, the node, and which jobs are wanted (0 and "": any).

    `wanted` are further parameters of a request for jobs, `known_as` of an update of a job.
    """

    site: str
    node: str
    task_id: int = 0
    label: str = "managed"
    wanted: Mapping[str, str | int] = field(default_factory=dict)
    known_as: Mapping[str, str | int] = field(default_factory=dict)


def acquire_jobs_parameters(pilot: Pilot, room: Room = ANY_ROOM) -> dict[str, Any]:
    """Parameters that ask for one job. The timeout must be above 10: below, none is ever found."""
    fits = {
        "memory": room.memory_mb, "disk_space": room.disk_mb, "remaining_time": room.left_s
    }  # fmt: skip
    parameters: dict[str, Any] = {
        "site_name": pilot.site,
        "node": cut_text(pilot.node, 128),
        "timeout": 60,
        "n_jobs": 1,
        "prod_source_label": pilot.label,
    }
    if pilot.task_id:
        parameters["task_id"] = pilot.task_id
    return parameters | _given(pilot.wanted) | _given(fits)


def acquire_ranges_parameters(job: Job, n: int) -> dict[str, Any]:
    """Parameters that ask for up to `n` ranges."""
    return {
        "job_id": job.panda_id,
        "jobset_id": job.jobset_id,
        "task_id": job.task_id,
        "n_ranges": n,
        "timeout": 60,
    }


def range_statuses_parameters(job: Job) -> dict[str, str]:
    """Parameters of the verification call; the key is `panda_id` whatever documentation says."""
    ids = [{"task_id": job.task_id, "panda_id": job.panda_id}]
    return {"job_task_ids": json.dumps(ids, separators=(",", ":"))}


def update_job_parameters(job: Job, update: JobUpdate, pilot: Pilot) -> dict[str, Any]:
    """Parameters of a heartbeat or final update.

    A final update carries an output report: an empty report string would fail the job, `{}` is
    right for event jobs.
    """
    parameters: dict[str, Any] = {
        "job_id": job.panda_id,
        "job_status": update.state,
        "attempt_nr": job.attempt_nr,
        "site_name": pilot.site,
        "node": cut_text(pilot.node, 128),
        "n_events": int(update.events),
        "core_count": update.core_count or job.core_count,
        **_given(pilot.known_as),
    }
    if update.cpu_s is not None:
        parameters["cpu_consumption_time"] = min(int(update.cpu_s), _LARGEST_INT32)
        parameters["cpu_consumption_unit"] = "s"
    if update.sub_status:
        parameters["job_sub_status"] = update.sub_status
    if update.metrics:
        parameters["job_metrics"] = update.metrics
    if update.pilot_error_code:
        parameters["pilot_error_code"] = update.pilot_error_code
        parameters["pilot_error_diag"] = update.pilot_error_diag
    if update.state in FINAL_STATES:
        parameters["job_output_report"] = "{}"
    parameters.update(update.more)
    report = parameters.get("job_output_report")
    if isinstance(report, Mapping):
        parameters["job_output_report"] = json.dumps(report)
    return {name: _cut(name, value) for name, value in parameters.items()}


WORKER_STATES = ("started", "finished")
"""What may be told of a worker of Harvester."""


def update_worker_parameters(pilot: Pilot, state: str) -> dict[str, Any]:
    """Parameters that tell that the worker has started or finished."""
    return {
        "worker_id": pilot.wanted["worker_id"],
        "harvester_id": pilot.wanted["harvester_id"],
        "status": state,
        "node_id": cut_text(pilot.node, 128),
    }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Only what is known."""
    return {name: value for name, value in values.items() if value}


def _cut(name: str, value: Any) -> Any:
    """Texts are cut to what the server keeps of them."""
    limit = LENGTHS.get(name)
    return cut_text(value, limit) if limit is not None and isinstance(value, str) else value
