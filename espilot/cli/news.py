"""Warnings of the pilot for a person at a terminal: in words, above the progress."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from espilot.logs import quote
from espilot.view.wording import printable

DRAINING = (
    "ending early ({reason}): nothing more is handed out, what was made is shipped and reported, "
    "the rest goes back; Ctrl-C twice more ends at once"
)


class News(logging.Handler):
    """Says warnings and errors; the log has them with all their data."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, unless what follows tells more."""
        facts = getattr(record, "espilot", None)
        text = record.getMessage() if facts is None else words_of(record, facts)
        if text:
            self._say(printable(text))


def words_of(record: logging.LogRecord, facts: Mapping[str, Any]) -> str:
    """A record in words; "" for a signal: the drain that it begins is said."""
    message, fields = record.getMessage(), facts["fields"]
    if facts["action"] == "signal":
        return ""
    if facts["action"] == "drain" and "run_s" in fields:
        return DRAINING.format(reason=fields.get("reason", "?"))
    said = message.partition(f"action={facts['action']} ")[2]
    data = "".join(f" {key}={quote(value)}" for key, value in fields.items())
    bare = said.removesuffix(data)
    told = ", ".join(f"{key} {value}" for key, value in fields.items())
    return f"{record.levelname.lower()}: {bare}" + (f" ({told})" if told else "")
