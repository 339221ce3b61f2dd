"""Queue data that a job brings with itself: `--overwriteQueueData={...}` among its parameters.

The option is the pilot's: a payload does not know it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from espilot.wire.queuedata import read_catchall

HONOURED = frozenset({"direct_access_lan", "catchall"})
"""What counts for one job; the rest is of the queue."""
_OPTION = re.compile(
    r"(?:^|(?<=\s))(['\"]?)--overwrite[Qq]ueue[Dd]ata[= ](['\"]?)(\{[^{}]{0,4000}\})\2\1(?=\s|$)"
)
_BARE_NAME = re.compile(r"([{,]\s*)([A-Za-z_][A-Za-z0-9_]{0,60})\s*:")


def split_overrides(parameters: str) -> tuple[str, Mapping[str, Any]]:
    """The parameters without the option, and what it says; nothing where it cannot be read."""
    found = _OPTION.search(parameters)
    if found is None:
        return parameters, {}
    rest = f"{parameters[: found.start()].rstrip()} {parameters[found.end() :].lstrip()}".strip()
    return rest, _read(found[3])


def direct_access(overrides: Mapping[str, Any]) -> bool | None:
    """Whether the job reads its inputs where they are; None where it does not say."""
    if read_catchall(str(overrides.get("catchall") or "")).has("allow_remote_inputs"):
        return True
    value = overrides.get("direct_access_lan")
    return None if value is None else str(value).lower() in ("true", "1", "yes")


def _read(text: str) -> Mapping[str, Any]:
    """An object as JSON, as Python writes it, or with names that have no quotes."""
    for attempt in (text, _BARE_NAME.sub(r'\1"\2":', text)):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(attempt)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(value, dict):
                return {str(name): each for name, each in value.items()}
    return {}
