"""The definition of a merge job: what differs from the event jobs whose outputs it merges."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espilot.wire.jobdef import NULL

_NUMBER_AT_END = re.compile(r"\.[0-9]+$")
PRIORITY = 5000


@dataclass(frozen=True, slots=True)
class MergeInput:
    """One file to stage in: an archive, or a loose pre-merge file."""

    lfn: str
    storage: str
    is_archive: bool = False
    size_bytes: int | None = None
    adler32: str = ""


@dataclass(frozen=True, slots=True)
class MergeFacts:
    """What a server knows of one merge job. `members` are the pre-merge files by output LFN."""

    inputs: tuple[MergeInput, ...]
    members: Mapping[str, Sequence[str]]
    transformation: str
    parameters: str


def premerge_lfn(output_lfn: str, range_id: str) -> str:
    """Name of the pre-merge file of one range and output stream."""
    return f"{_NUMBER_AT_END.sub('.1', output_lfn)}.{range_id}"


def name_outputs(parameters: str, lfns: Mapping[str, str]) -> str:
    """Parameters in which the outputs of a task, and their lists, have the names of one unit."""
    names = "|".join(re.escape(name) for name in lfns)
    whole = rf"(?<![\w.-])(inputFor_)?({names})(?![\w.-])"
    return re.sub(whole, lambda found: f"{found[1] or ''}{lfns[found[2]]}", parameters)


def turn_into_merge(definition: Mapping[str, Any], facts: MergeFacts) -> dict[str, Any]:
    """The definition of the merge job, from that of an event job of the same unit."""
    merged = dict(definition)
    for name in ("eventService", "prodDBlockTokenForOutput"):
        merged.pop(name, None)
    nulls = ",".join(NULL for _ in facts.inputs)
    merged |= {
        "eventServiceMerge": "True",
        "writeToFile": _write_members(facts.members),
        "transformation": facts.transformation,
        "jobPars": facts.parameters,
        "coreCount": 1,
        "minRamCount": 2000,
        "currentPriority": PRIORITY,
        "inFiles": ",".join(
            f"zip://{file.lfn}" if file.is_archive else file.lfn for file in facts.inputs
        ),
        "prodDBlockToken": ",".join(file.storage or NULL for file in facts.inputs),
        "fsize": ",".join(
            NULL if f.size_bytes is None else str(f.size_bytes) for f in facts.inputs
        ),
        "checksum": ",".join(f"ad:{f.adler32}" if f.adler32 else NULL for f in facts.inputs),
        "scopeIn": ",".join("local" for _ in facts.inputs),
        "logFile": _without_panda_id(definition),
    }
    for name in ("GUID", "dispatchDblock", "dispatchDBlockToken", "prodDBlocks", "ddmEndPointIn"):
        merged[name] = nulls
    merged["realDatasetsIn"] = nulls
    outputs = str(definition["outFiles"]).split(",")
    merged["outFiles"] = ",".join([*outputs[:-1], merged["logFile"]])
    return merged


def _write_members(members: Mapping[str, Sequence[str]]) -> str:
    return "^".join(f"inputFor_{output}:{','.join(names)}" for output, names in members.items())


def _without_panda_id(definition: Mapping[str, Any]) -> str:
    return str(definition["logFile"]).removesuffix(f".{definition['PandaID']}") + ".merge"
