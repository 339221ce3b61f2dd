"""The legacy dialect: methods, the names of their parameters, how each answers, and how to read it.

All is told in the terms of the v1 dialect: a method carries out a v1 function, its parameters are
v1 parameters under older names. On the wire every value is a string. Methods differ in what comes
back when the caller accepts JSON; see `Form`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlencode

from espilot.errors import ServerRefused, ServerUnavailable
from espilot.model import EventRange, Job, ReportAnswer
from espilot.wire.panda_answers import (
    check_http,
    check_status_code,
    parse,
    read_command_word,
    read_definition,
    read_range_list,
    read_report_data,
    read_status_rows,
    shorten,
)
from espilot.wire.panda_reports import decode_text

REQUEST_HEADERS: Mapping[str, str] = MappingProxyType(
    {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
)
SUCCESS, TIME_OUT, NO_JOBS, FAILED = 0, 10, 20, 30
BAD_ARGUMENT, BAD_ROLE, NOT_ALLOWED, NO_KEY, NO_PROXY = 50, 60, 70, 80, 90
ALIVE = "alive=yes"
_REFUSALS = (BAD_ARGUMENT, BAD_ROLE, NOT_ALLOWED)


class Form(Enum):
    """In what form a method answers."""

    EITHER = "either"
    """JSON when the caller accepts it, otherwise a form."""
    JSON = "json"
    """Always JSON."""
    FORM = "form"
    """Always a form, `k=v&k=v`."""
    TEXT = "text"
    """A bare text."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method. `function` is what it carries out in v1 terms; `names` maps its parameters to
    those of v1 ("" for one that is taken and ignored); those in `required` have no default."""

    name: str
    function: str
    names: Mapping[str, str]
    required: tuple[str, ...] = ()
    form: Form = Form.EITHER

    @property
    def path(self) -> str:
        """Path below the server's address."""
        return f"/server/panda/{self.name}"


def _ignored(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "")


_SAME = ("timeout", "node", "grid", "source_site", "destination_site", "cpu_architecture_level")
_UPDATE_NAMES = {
    "jobId": "job_id",
    "state": "job_status",
    "attemptNr": "attempt_nr",
    "siteName": "site_name",
    "schedulerID": "scheduler_id",
    "pilotID": "pilot_id",
    "batchID": "batch_id",
    "startTime": "start_time",
    "endTime": "end_time",
    "pilotErrorCode": "pilot_error_code",
    "pilotErrorDiag": "pilot_error_diag",
    "exeErrorCode": "exe_error_code",
    "exeErrorDiag": "exe_error_diag",
    "transExitCode": "trans_exit_code",
    "nEvents": "n_events",
    "nInputFiles": "n_input_files",
    "cpuConsumptionTime": "cpu_consumption_time",
    "cpuConsumptionUnit": "cpu_consumption_unit",
    "cpuConversionFactor": "cpu_conversion_factor",
    "coreCount": "core_count",
    "meanCoreCount": "mean_core_count",
    "jobMetrics": "job_metrics",
    "jobSubStatus": "job_sub_status",
    "pilotTiming": "pilot_timing",
    "corruptedFiles": "corrupted_files",
    "pilotLog": "pilot_log",
    "metaData": "meta_data",
    "xml": "job_output_report",
    "stdout": "stdout",
    **{f"{how}{what.upper()}": f"{how}_{what}"
       for how in ("max", "avg") for what in ("rss", "vmem", "swap", "pss")},
    **{f"{how}{what.upper()}": f"{how}_{what}"
       for how in ("tot", "rate") for what in ("rchar", "wchar", "rbytes", "wbytes")},
    **{name: name for name in _SAME},
    **_ignored("timestamp", "workdir", "remainingSpace", "messageLevel", "computingElement"),
    **_ignored("token"),
}  # fmt: skip

IS_ALIVE = Method("isAlive", "system/is_alive", {}, form=Form.TEXT)
GET_JOB = Method(
    "getJob",
    "pilot/acquire_jobs",
    {
        "siteName": "site_name",
        "timeout": "timeout",
        "mem": "memory",
        "diskSpace": "disk_space",
        "prodSourceLabel": "prod_source_label",
        "node": "node",
        "computingElement": "computing_element",
        "prodUserID": "prod_user_id",
        "getProxyKey": "get_proxy_key",
        "taskID": "task_id",
        "nJobs": "n_jobs",
        "background": "background",
        "resourceType": "resource_type",
        "harvester_id": "harvester_id",
        "worker_id": "worker_id",
        "schedulerID": "scheduler_id",
        "jobType": "job_type",
        "viaTopic": "via_topic",
        "remaining_time": "remaining_time",
        **_ignored("token", "cpu", "AtlasRelease", "countryGroup", "workingGroup"),
        **_ignored("allowOtherCountry"),
    },
    ("siteName",),
)
UPDATE_JOB = Method("updateJob", "pilot/update_job", _UPDATE_NAMES, ("jobId", "state"))
UPDATE_JOBS = Method(
    "updateJobsInBulk",
    "pilot/update_jobs_in_bulk",
    {"jobList": "job_list", "harvester_id": "harvester_id"},
    ("jobList",),
)
GET_STATUS = Method(
    "getStatus", "pilot/get_job_status", {"ids": "ids", "timeout": "timeout"}, ("ids",), Form.FORM
)
CHECK_JOB_STATUS = Method(
    "checkJobStatus",
    "pilot/check_job_status",
    {"ids": "ids", "timeout": "timeout"},
    ("ids",),
    Form.JSON,
)
GET_EVENT_RANGES = Method(
    "getEventRanges",
    "event/acquire_event_ranges",
    {
        "pandaID": "job_id",
        "jobsetID": "jobset_id",
        "taskID": "task_id",
        "nRanges": "n_ranges",
        "timeout": "timeout",
        "scattered": "scattered",
        "segment_id": "segment_id",
    },
    ("pandaID", "jobsetID"),
)
UPDATE_EVENT_RANGE = Method(
    "updateEventRange",
    "event/update_single_event_range",
    {
        "eventRangeID": "event_range_id",
        "eventStatus": "event_range_status",
        "coreCount": "core_count",
        "cpuConsumptionTime": "cpu_consumption_time",
        "objstoreID": "object_store_id",
        "timeout": "timeout",
        "pandaID": "",
    },
    ("eventRangeID", "eventStatus"),
    Form.FORM,
)
UPDATE_EVENT_RANGES = Method(
    "updateEventRanges",
    "event/update_event_ranges",
    {"eventRanges": "event_ranges", "timeout": "timeout", "version": "version", "pandaID": ""},
    ("eventRanges",),
)
CHECK_EVENTS = Method(
    "checkEventsAvailability",
    "event/get_available_event_range_count",
    {"pandaID": "job_id", "jobsetID": "jobset_id", "taskID": "task_id", "timeout": "timeout"},
    ("pandaID", "jobsetID", "taskID"),
    Form.JSON,
)
GET_EVENTS_STATUS = Method(
    "get_events_status",
    "event/get_event_range_statuses",
    {"ids": "job_task_ids"},
    ("ids",),
    Form.JSON,
)
UPDATE_WORKER = Method(
    "updateWorkerPilotStatus",
    "pilot/update_worker_status",
    {
        "site": "site_name",
        "workerID": "worker_id",
        "harvesterID": "harvester_id",
        "status": "status",
        "node_id": "node_id",
        "timeout": "timeout",
    },
    ("site", "workerID", "harvesterID", "status"),
)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            IS_ALIVE,
            GET_JOB,
            UPDATE_JOB,
            UPDATE_JOBS,
            GET_STATUS,
            CHECK_JOB_STATUS,
            GET_EVENT_RANGES,
            UPDATE_EVENT_RANGE,
            UPDATE_EVENT_RANGES,
            CHECK_EVENTS,
            GET_EVENTS_STATUS,
            UPDATE_WORKER,
        )
    }
)


def write_form(method: Method, parameters: Mapping[str, Any]) -> bytes:
    """The body of a call whose parameters are given under their v1 names."""
    older = {new: old for old, new in method.names.items() if new}
    return urlencode({older[name]: str(value) for name, value in parameters.items()}).encode()


def read_answer(status: int, body: bytes) -> Any:
    """The answer as a value: JSON, else a form, else the plain sentence. Errors: other than 200."""
    check_http(status, body)
    value = parse(body)
    if isinstance(value, str) and "StatusCode=" in value:
        # Blank values are kept: a field without a value is a field all the same.
        fields = parse_qs(value, keep_blank_values=True, max_num_fields=100)
        return {name: texts[-1] for name, texts in fields.items()}
    if isinstance(value, str):
        # Permission failures of event calls are a bare sentence with HTTP 200.
        refused = "role is required" in value or "failed to retrieve DN" in value
        kind = ServerRefused if refused else ServerUnavailable
        raise kind(f"server answered with something unexpected: {shorten(body)}")
    return value


def read_data(status: int, body: bytes) -> Mapping[str, Any]:
    """The object of a successful answer."""
    data = read_answer(status, body)
    if not isinstance(data, dict) or "StatusCode" not in data:
        raise ServerUnavailable(f"server answered with something unexpected: {shorten(body)}")
    if str(data["StatusCode"]) in {str(code) for code in _REFUSALS}:
        reason = data.get("errorDialog") or data.get("ErrorDiag") or "no reason given"
        raise ServerRefused(f"server refused (StatusCode {data['StatusCode']}): {reason!s:.200}")
    check_status_code(data)
    return data


def read_alive(status: int, body: bytes) -> bool:
    """True when the answer to a probe shows that the server speaks this dialect."""
    return status == 200 and body.strip() == ALIVE.encode()


def read_acquired_job(status: int, body: bytes) -> Job | None:
    """The job of a `getJob` answer; None when the server has none."""
    data = read_answer(status, body)
    if isinstance(data, dict) and str(data.get("StatusCode")) == str(NO_JOBS):
        return None
    return read_definition(read_data(status, body))


def read_ranges(status: int, body: bytes) -> tuple[EventRange, ...]:
    """The ranges of a `getEventRanges` answer."""
    return read_range_list(read_data(status, body))


def read_report(status: int, body: bytes, n: int) -> ReportAnswer:
    """The answer to a bulk update of `n` ranges."""
    data = dict(read_data(status, body))
    for name in ("Returns", "Command", "Commands"):
        if isinstance(data.get(name), str):
            # JSON in a string; in a form of version 1 a Python literal.
            data[name] = parse(data[name].encode("utf-8", "replace"))
    return read_report_data(data, n)


def read_statuses(status: int, body: bytes, panda_id: int) -> Mapping[str, str]:
    """Status by range id without its attempt number; the answer is a bare object or null."""
    return read_status_rows(decode_text(read_answer(status, body)), panda_id)


def read_done(status: int, body: bytes) -> None:
    """The answer to a call that brings nothing. Errors: it was not done."""
    read_data(status, body)


def read_command(status: int, body: bytes) -> str | None:
    """The command of an `updateJob` answer, "" when there is none.

    None when the answer has no command at all: the server did not take the update, most likely
    because its metadata could not be stored.
    """
    data = read_data(status, body)
    return read_command_word(data) if "command" in data else None
