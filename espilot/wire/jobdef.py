"""The job definition: one flat object, the same in every dialect.

Missing values are the string "NULL", file lists are comma-separated strings, flags are the string
"True" and are absent when false.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from espilot.errors import MessageError
from espilot.model import Job

NULL = "NULL"
_LARGEST_ID = 2**63 - 1
_NAME_BYTES = 255
"""No file system takes more."""
_UNSAFE = frozenset('/\\"\x7f') | {chr(code) for code in range(32)}


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input of a job."""

    lfn: str
    guid: str
    scope: str
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a server knows of one event job; `input_files` are sorted by LFN."""

    panda_id: int
    jobset_id: int
    task_id: int
    task_name: str
    attempt_nr: int
    core_count: int
    events: int
    output_lfns: tuple[str, ...]
    input_files: tuple[InputFile, ...]
    n_sent: int = 1

    @property
    def log_lfn(self) -> str:
        """Name of the log archive; the PandaID at its end keeps consumers of one pool apart."""
        return f"log.{self.task_id}._000001.job.log.tgz.1.{self.panda_id}"


def is_lfn(name: str) -> bool:
    """True for a flat file name that is safe on disk and in a comma-separated list."""
    return (
        name not in ("", ".", "..", NULL)
        and "," not in name
        and not _UNSAFE.intersection(name)
        and name.isprintable()  # so without surrogates, which cannot be encoded
        and len(name.encode()) <= _NAME_BYTES
    )


def read_job(definition: Mapping[str, Any]) -> Job:
    """The job that a definition describes.

    Errors: `MessageError` that names the field.
    """
    log_lfn = _text(definition, "logFile")
    outputs = tuple(lfn for lfn in _lfns(definition, "outFiles") if lfn != log_lfn)
    if log_lfn and not is_lfn(log_lfn):
        raise MessageError("job definition: logFile is not a plain file name")
    event_service = is_set(definition, "eventService")
    return Job(
        panda_id=_number(definition, "PandaID"),
        jobset_id=_number(definition, "jobsetID", None if event_service else 0),
        task_id=_number(definition, "taskID", None if event_service else 0),
        attempt_nr=_number(definition, "attemptNr", 0),
        core_count=max(1, _number(definition, "coreCount", 1)),
        output_lfns=outputs,
        log_lfn=log_lfn,
        input_lfns=tuple(dict.fromkeys(_lfns(definition, "inFiles"))),
        event_service=event_service,
        definition=MappingProxyType(with_plain_parameters(definition)),
    )


def with_plain_parameters(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The definition with plain `jobPars`: some tasks have them in base64, and nothing says so.

    A text that is no base64, or whose meaning would not look like arguments, stays as it is.
    """
    parameters = definition.get("jobPars")
    if not isinstance(parameters, str):
        return dict(definition)
    return {**definition, "jobPars": _decoded(parameters)}


def _decoded(parameters: str) -> str:
    words = parameters.split()
    # Encoders break lines of 76 characters; arguments are words of any length.
    if len(words) > 1 and any(len(word) != len(words[0]) for word in words[:-1]):
        return parameters
    try:
        text = base64.b64decode("".join(words), validate=True).decode("utf-8").strip()
    except (binascii.Error, ValueError):
        return parameters
    is_printable = all(char.isprintable() or char in "\n\t" for char in text)
    return text if is_printable and (text.startswith("-") or " " in text) else parameters


def _number(definition: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A whole number >= 0, given as a number or as digits; `default` None means it is required."""
    value = definition.get(name)
    if value is None or value in ("", NULL):
        if default is None:
            raise MessageError(f"job definition: {name} is missing")
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_ID:
        raise MessageError(f"job definition: {name} is not a whole number: {value!r:.60}")
    return value


def _text(definition: Mapping[str, Any], name: str) -> str:
    """A string; missing and "NULL" are the empty string."""
    value = definition.get(name)
    if value is None or value == NULL:
        return ""
    if not isinstance(value, str):
        raise MessageError(f"job definition: {name} is not a string: {value!r:.60}")
    return value


def _lfns(definition: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The names of a comma-separated list; a name that could leave its directory is refused."""
    names = [lfn for lfn in _text(definition, name).split(",") if lfn and lfn != NULL]
    for lfn in names:
        if not is_lfn(lfn.removeprefix("zip://")):
            raise MessageError(f"job definition: {name} holds a bad file name: {lfn!r:.60}")
    return tuple(names)


def is_set(definition: Mapping[str, Any], name: str) -> bool:
    """A flag is the string "True"; a real true is taken as well."""
    return definition.get(name) in ("True", "true", True)


def write_job(facts: JobFacts, *, shift_guids: bool = True) -> dict[str, Any]:
    """The definition of an event job, with all keys that real servers send.

    With `shift_guids` a missing first GUID shifts the list, as it does there.
    """
    return {
        "StatusCode": 0,
        "PandaID": facts.panda_id,
        "nSent": facts.n_sent,
        **_what_to_run(facts),
        **_input_fields(facts, shift_guids=shift_guids),
        **_output_fields(facts),
        **_where_to_run(facts),
    }


def _what_to_run(facts: JobFacts) -> dict[str, Any]:
    return {
        "prodSourceLabel": "managed",
        "swRelease": NULL,
        "homepackage": NULL,
        "transformation": "espilot",
        "jobName": f"{facts.task_name}.{facts.task_id}",
        "jobDefinitionID": 0,
        "jobPars": _arguments(facts),
        "attemptNr": facts.attempt_nr,
        "prodUserID": "local",
        "cmtConfig": NULL,
        "processingType": "local",
        "taskID": facts.task_id,
        "jobsetID": facts.jobset_id,
        "reqID": facts.task_id,
        "eventService": "True",
        "ioIntensity": None,
        "ioIntensityUnit": None,
    }


def _arguments(facts: JobFacts) -> str:
    inputs = ",".join(file.lfn for file in facts.input_files)
    outputs = ",".join(facts.output_lfns)
    return (
        f"--inputFile={inputs} --maxEvents={facts.events} --outputFile={outputs}"
        " --skipEvents=0 --firstEvent=1 --eventService=True"
    )


def _input_fields(facts: JobFacts, *, shift_guids: bool) -> dict[str, Any]:
    files = facts.input_files
    nulls = ",".join(NULL for _ in files)
    dataset = f"{facts.task_name}.input"
    return {
        "inFiles": ",".join(file.lfn for file in files),
        "GUID": _join_guids([file.guid for file in files], shift=shift_guids),
        "checksum": nulls,
        "fsize": ",".join(str(file.size_bytes) for file in files),
        "scopeIn": ",".join(file.scope for file in files),
        "dispatchDblock": nulls,
        "dispatchDBlockToken": nulls,
        "prodDBlocks": ",".join(dataset for _ in files),
        "prodDBlockToken": nulls,
        "realDatasetsIn": ",".join(dataset for _ in files),
        "ddmEndPointIn": nulls,
    }


def _join_guids(guids: Sequence[str], *, shift: bool) -> str:
    """Servers write the separator only once there is something before it."""
    joined = ",".join(guids)
    return joined.lstrip(",") if shift else joined


def _output_fields(facts: JobFacts) -> dict[str, Any]:
    """Output lists hold the outputs and the log, except `scopeOut`."""
    names = (*facts.output_lfns, facts.log_lfn)
    nulls = ",".join(NULL for _ in names)
    datasets = ",".join(
        f"{facts.task_name}.{'log' if name == facts.log_lfn else 'output'}" for name in names
    )
    return {
        "outFiles": ",".join(names),
        "destinationDblock": datasets,
        "destinationDBlockToken": nulls,
        "dispatchDBlockTokenForOut": nulls,
        "prodDBlockTokenForOutput": nulls,
        "realDatasets": datasets,
        "fileDestinationSE": nulls,
        "scopeOut": ",".join("local" for _ in facts.output_lfns),
        "ddmEndPointOut": nulls,
        "logFile": facts.log_lfn,
        "logGUID": f"00000000-0000-4000-8000-{facts.panda_id % 16**12:012x}",
        "scopeLog": "local",
    }


def _where_to_run(facts: JobFacts) -> dict[str, Any]:
    return {
        "cloud": "LOCAL",
        "destinationSE": NULL,
        "nucleus": NULL,
        "maxCpuCount": 0,
        "minRamCount": 0,
        "maxDiskCount": 0,
        "maxWalltime": NULL,
        "transferType": NULL,
        "sourceSite": NULL,
        "currentPriority": 1000,
        "coreCount": facts.core_count,
        "resource_type": "MCORE" if facts.core_count > 1 else "SCORE",
    }
