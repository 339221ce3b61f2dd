"""Quirks as people write them: `NAME`, `NAME=off`, `NAME=VALUE`, `NAME=[FUNCTION:]N`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import Field, fields
from typing import Any

from espilot.errors import UsageError
from espilot.server.options import FAULTS, Quirks

_KNOWN: dict[str, Field[Any]] = {entry.name: entry for entry in fields(Quirks)}
_CHOICES = {
    "dialects": ("legacy", "v1", "both"),
    "caller_role": ("production", "pilot", "user"),
}


def read_quirks(texts: Iterable[str]) -> Quirks:
    """The switches after these changes. Errors: `UsageError` that names the quirk."""
    values: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise UsageError(f"unknown quirk {name!r:.60}{hint}")
        if name in FAULTS:
            values.setdefault(name, {}).update(_read_calls(name, value))
        else:
            values[name] = _read_value(name, value.strip())
    return Quirks(**values)


def describe_quirks() -> str:
    """One line for each quirk, for `--help`."""
    lines = []
    for name, entry in _KNOWN.items():
        kind = "[=[FUNCTION:]N]" if name in FAULTS else _hint(entry.default)
        lines.append(f"  {name}{kind}: {entry.metadata['doc']}")
    return "\n".join(lines)


def _hint(default: Any) -> str:
    if isinstance(default, bool):
        return "=off" if default else ""
    return f"=... ({default!r})"


def _read_calls(name: str, value: str) -> dict[str, int]:
    """`FUNCTION:N`, `N` (calls of any function), `FUNCTION`, or nothing (one call)."""
    function, colon, count = value.strip().rpartition(":")
    if not colon and not count.isdecimal():
        function, count = count, "1"
    if not count.isdecimal() or len(count) > 9:
        raise UsageError(f"quirk {name}: not [FUNCTION:]N: {value!r:.60}")
    return {function or "*": int(count)}


def _read_value(name: str, value: str) -> Any:
    default: Any = _KNOWN[name].default
    if isinstance(default, bool):
        if value.lower() not in ("", "on", "off", "true", "false"):
            raise UsageError(f"quirk {name}: on or off, not {value!r:.60}")
        return value.lower() in ("", "on", "true")
    if isinstance(default, str):
        if name in _CHOICES and value not in _CHOICES[name]:
            raise UsageError(f"quirk {name}: one of {', '.join(_CHOICES[name])}")
        return value
    try:
        number = int(value) if isinstance(default, int) else float(value)
    except ValueError:
        raise UsageError(f"quirk {name}: not a number: {value!r:.60}") from None
    if not -1 <= number <= 10**9:
        raise UsageError(f"quirk {name}: not a usable number: {value!r:.60}")
    return number
