"""Harvester's shared files: what is in each, and how they are called.

A directory, the access point, belongs to one worker. Harvester writes job and event ranges there,
in place; the worker writes requests, reports and attributes. Formats and names are those of
Harvester's shared-file messenger.
"""

from __future__ import annotations

import configparser
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from espilot.errors import ConfigError, MessageError, ServerUnavailable
from espilot.model import EventRange, Job, JobUpdate
from espilot.wire.jobdef import is_lfn, read_job
from espilot.wire.panda_answers import read_range_list
from espilot.wire.panda_legacy import UPDATE_JOB
from espilot.wire.panda_v1 import Pilot, update_job_parameters

READ = ".read"
"""What Harvester appends to a report that it has begun to read; with `.TIME` behind: it has it."""
SECTION = "payload_interaction"
ES_OUTPUT, ZIP_OUTPUT = "es_output", "zip_output"


@dataclass(frozen=True, slots=True)
class FileNames:
    """Names of the files; the defaults are those of Harvester's template."""

    job: str = "HPCJobs.json"
    panda_ids: str = "worker_pandaids.json"
    job_request: str = "worker_requestjob.json"
    event_request: str = "worker_requestevents.json"
    event_ranges: str = "JobsEventRanges.json"
    dump: str = "event_status.dump.json"
    attributes: str = "worker_attributes.json"
    job_report: str = "jobReport.json"
    kill: str = "kill_worker.json"
    heartbeat: str = "worker_heartbeat.json"

    @property
    def dump_read(self) -> str:
        """The report while Harvester reads it."""
        return self.dump + READ


_KEYS = MappingProxyType(
    {
        "jobspecfile": "job",
        "pandaidsfile": "panda_ids",
        "jobrequestfile": "job_request",
        "eventrequestfile": "event_request",
        "eventrangesfile": "event_ranges",
        "eventstatusdumpjsonfile": "dump",
        "workerattributesfile": "attributes",
        "jobreportfile": "job_report",
        "killworkerfile": "kill",
        "heartbeatfile": "heartbeat",
    }
)
"""Keys of Harvester's configuration, in lower case."""


def read_names(text: str, origin: str) -> FileNames:
    """The names that Harvester's own configuration file gives, the template's where it is silent.

    Keys count without regard to case. `ConfigError` names what cannot be used; `origin` is the
    file.
    """
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(text, origin)
    except configparser.Error as error:
        line = str(error).replace("\n", " ")
        raise ConfigError(f"{origin} is no Harvester configuration: {line:.200}") from None
    if not parser.has_section(SECTION):
        raise ConfigError(f"{origin} has no section [{SECTION}]; name panda_harvester.cfg")
    given = {_KEYS[key]: value for key, value in parser.items(SECTION) if key in _KEYS and value}
    return checked_names(replace(FileNames(), **given), origin)


def checked_names(names: FileNames, origin: str) -> FileNames:
    """The same names; `ConfigError` when one is no plain file name, or two are the same."""
    values = [getattr(names, field.name) for field in fields(names)]
    for value in values:
        if not is_lfn(value) or value.startswith("."):
            raise ConfigError(f"{origin}: {value!r:.60} is no plain file name")
    if len(set(values)) < len(values):
        raise ConfigError(f"{origin}: two of the files have the same name")
    return names


def read_job_file(data: bytes, *, first_input_only: bool = False) -> Job:
    """The one job of a job file, JSON by PandaID or one URL-encoded form.

    The command line of a jumbo job names every input of its task; with `first_input_only` the
    first alone is left there. `MessageError` while the file is not complete, or when it holds no
    usable job.
    """
    definition = _read_form(data) if b"=" in data and not data.lstrip().startswith(b"{") else None
    if definition is None:
        jobs = _read_object(data, "job file")
        if len(jobs) != 1:
            raise MessageError(f"job file: holds {len(jobs)} jobs, there must be one")
        definition = next(iter(jobs.values()))
    if not isinstance(definition, dict):
        raise MessageError("job file: the job is no object")
    return read_job(_shorten(definition) if first_input_only else definition)


def _shorten(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The definition with one input in `jobPars`, where all of them stand there in a row."""
    inputs, parameters = definition.get("inFiles"), definition.get("jobPars")
    if not isinstance(inputs, str) or not isinstance(parameters, str) or "," not in inputs:
        return dict(definition)
    return {**definition, "jobPars": parameters.replace(inputs, inputs.partition(",")[0])}


def _read_form(data: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(
            data.decode("ascii").strip(), True, strict_parsing=True, max_num_fields=1000
        )
    except ValueError as error:
        raise MessageError(f"job file: neither JSON nor a form: {error}") from None
    return dict(pairs)


def _read_object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"{what}: not complete: {str(error)!a:.80}") from None
    if not isinstance(value, dict):
        raise MessageError(f"{what}: no object")
    return value


def read_ranges(data: bytes, job: Job, access_point: str) -> tuple[EventRange, ...]:
    """The ranges of a ranges file; none means that there will be no more.

    Each has the path of its input: the link of that name in the access point. `MessageError` while
    the file is not complete, or when it cannot be used.
    """
    found = _read_object(data, "ranges file").get(str(job.panda_id))
    if not isinstance(found, list):
        raise MessageError(f"ranges file: holds no list for job {job.panda_id}")
    try:
        ranges = read_range_list(found)
    except ServerUnavailable as error:
        raise MessageError(f"ranges file: {error}") from None
    return tuple(r._replace(pfn=f"{access_point}/{r.lfn}") if r.lfn else r for r in ranges)


def write_job_request(n: int) -> bytes:
    """A request for jobs."""
    return _encode({"nJobs": n})


def write_event_request(job: Job, n: int) -> bytes:
    """A request for `n` ranges; what a job of hyper-parameters needs besides is passed on."""
    wanted: dict[str, Any] = {
        "pandaID": job.panda_id,
        "taskID": job.task_id,
        "jobsetID": job.jobset_id,
        "nRanges": n,
    }
    wanted |= {k: job.definition[k] for k in ("isHPO", "sourceURL") if k in job.definition}
    return _encode({str(job.panda_id): wanted})


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file of a report: `kind` is `es_output` or `zip_output`, `path` absolute."""

    kind: str
    path: str
    size_bytes: int
    adler32: str


@dataclass(frozen=True, slots=True)
class DumpEntry:
    """One range of a report; only a finished one has a file."""

    id: str
    status: str
    file: FileFacts | None = None


def write_dump(job: Job, entries: Iterable[DumpEntry]) -> bytes:
    """A report; of a range that comes twice the first entry counts."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        rows.setdefault(entry.id, _dump_row(entry))
    return _encode({str(job.panda_id): list(rows.values())})


def _dump_row(entry: DumpEntry) -> dict[str, Any]:
    row: dict[str, Any] = {"eventRangeID": entry.id, "eventStatus": entry.status}
    if entry.file is not None:
        row |= {
            "type": entry.file.kind,
            "path": entry.file.path,
            "fsize": entry.file.size_bytes,
            "chksum": entry.file.adler32,
            "guid": guid_of(entry.file.path),
        }
    return row


def guid_of(name: str) -> str:
    """The same GUID for the same name, so that a report that is sent again says the same."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"


_PASSED_ON = frozenset(
    {
        "pilotErrorCode", "pilotErrorDiag", "exeErrorCode", "exeErrorDiag", "transExitCode",
        "node", "cpuConsumptionTime", "cpuConsumptionUnit", "cpuConversionFactor", "startTime",
        "endTime", "nEvents", "nInputFiles", "batchID", "attemptNr", "jobMetrics", "coreCount",
        "pilotTiming", "pilotID", "pilotLog", "schedulerID", "siteName", "stdout",
    }
    | {f"{how}{what}" for how in ("max", "avg") for what in ("RSS", "VMEM", "SWAP", "PSS")}
    | {f"{how}{what}" for how in ("tot", "rate") for what in ("RCHAR", "WCHAR", "RBYTES", "WBYTES")}
)  # fmt: skip
"""Attributes that Harvester hands to the server; it drops all others."""


def write_attributes(job: Job, update: JobUpdate, pilot: Pilot) -> bytes:
    """The attributes of a worker; only a final update says how the job ended."""
    older = {new: old for old, new in UPDATE_JOB.names.items() if new}
    told = {older[k]: v for k, v in update_job_parameters(job, update, pilot).items() if k in older}
    attributes = {name: value for name, value in told.items() if name in _PASSED_ON}
    if update.state in ("finished", "failed"):
        # What an earlier attempt of this worker may have said of an error must not stay.
        attributes = {"pilotErrorCode": 0, "pilotErrorDiag": ""} | attributes
        attributes["jobStatus"] = update.state
    return _encode(attributes)


def job_report(update: JobUpdate) -> bytes | None:
    """The job report that goes with an update, as text; None without one."""
    report: Mapping[str, Any] = update.more
    text = report.get("meta_data")
    return text.encode() if isinstance(text, str) else None


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
