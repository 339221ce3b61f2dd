"""The report of a finished job: which files it made. Pure.

* It is a JSON object by LFN; an empty text is none.
* Files that are not in the job's definition are refused, whatever they are.
* Each file has its GUID, its size and a checksum; from a merge job the GUID is enough.
* Every output and the log are there, unless the job is of events, or the file may be missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from espilot.wire.jobfiles import read_optional_outputs

_MD5 = re.compile(r"[0-9a-fA-F]{32}")


def fault_of(text: str | None, definition: Mapping[str, Any]) -> str:
    """Why the report cannot be used; "" when it can."""
    try:
        report = json.loads(text or "")
    except (ValueError, RecursionError):
        return "the output report is no JSON"
    if not isinstance(report, dict):
        return "the output report is no object"
    outputs = _names(definition, "outFiles")
    unknown = set(report) - outputs - _names(definition, "inFiles")
    if unknown:
        return f"the output report has an unknown file: {min(unknown)!r:.100}"
    for lfn in sorted(outputs & set(report)):
        if not _is_complete(report[lfn], is_merge="eventServiceMerge" in definition):
            return f"the output report has no guid, size or checksum of {lfn:.100}"
    missing = outputs - set(report) - read_optional_outputs(definition)
    if missing and "eventService" not in definition:
        return f"the output report lacks {min(missing):.100}"
    return ""


def _names(definition: Mapping[str, Any], field: str) -> set[str]:
    return set(str(definition.get(field) or "").split(",")) - {"", "NULL"}


def _is_complete(entry: Any, *, is_merge: bool) -> bool:
    if not isinstance(entry, dict) or not entry.get("guid"):
        return False
    summed = bool(entry.get("adler32")) or bool(_MD5.fullmatch(str(entry.get("md5sum"))))
    return is_merge or (type(entry.get("fsize")) is int and summed)
