"""A job definition as servers and factories write it to a file: JSON or form-encoded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from espilot.errors import MessageError
from espilot.wire.jobdef import with_plain_parameters

_MOST_FIELDS = 1000
_MAX_EVENTS = re.compile(r"--maxEvents[= ]'?\"?([0-9]{1,15})\b")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


def read_definition(text: str) -> dict[str, Any]:
    """The definition in a file; of an answer with several jobs the first one.

    Errors: `MessageError` says what is wrong with it.
    """
    text = text.strip()
    if text.startswith(("{", "[")):
        try:
            found = _unwrap(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise MessageError(f"not valid JSON: {error}") from error
    else:
        try:
            found = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
        except ValueError as error:
            raise MessageError(f"neither JSON nor form-encoded: {error}") from error
    if not isinstance(found, Mapping) or not ("PandaID" in found and "transformation" in found):
        raise MessageError("it has no PandaID and no transformation")
    return with_plain_parameters(found)


def _unwrap(found: Any) -> Any:
    """The definition inside an answer of a server, or inside a map of job ids."""
    if isinstance(found, list):
        return found[0] if found else None
    if not isinstance(found, Mapping) or "transformation" in found:
        return found
    for name in ("data", "jobs"):
        if name in found:
            return _unwrap(found[name])
    inner = [value for value in found.values() if isinstance(value, Mapping)]
    return inner[0] if len(inner) == 1 else found


def events_of(definition: Mapping[str, Any]) -> int:
    """Number of events, by the job's parameters; 0 when they do not tell."""
    found = _MAX_EVENTS.search(str(definition.get("jobPars") or ""))
    return int(found[1]) if found else 0


def task_name_of(definition: Mapping[str, Any]) -> str:
    """The name of the job as that of a task."""
    name = _NOT_IN_NAMES.sub("_", str(definition.get("jobName") or "")).lstrip("._-")
    return name[:128] or "job"
