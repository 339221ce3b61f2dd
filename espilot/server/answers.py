"""The shapes of answers, with the faults that real servers have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NO_JOBS = "No jobs in PanDA"
TIME_OUT = "TimeOut"
NO_ROLE = "production or pilot role required"
DATABASE_ERROR = "database error in the PanDA server"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: the envelope as a value, or a plain text with a status.

    `text` None means that the envelope is sent, as JSON or as a Python literal.
    """

    success: bool | None = True
    data: Any = None
    message: str = ""
    status: int = 200
    text: str | None = None

    @property
    def envelope(self) -> dict[str, Any]:
        """The object around every answer."""
        return {"success": self.success, "message": self.message, "data": self.data}


def succeed(data: Any) -> Answer:
    """A success."""
    return Answer(data=data)


def fail(message: str, data: Any = None) -> Answer:
    """A failure, which is HTTP 200 too."""
    return Answer(success=False, message=message, data=data)


def crash(text: str) -> Answer:
    """An uncaught exception: its text, as plain text."""
    return Answer(status=500, text=text)


def write_body(answer: Answer, *, as_json: bool) -> tuple[int, str]:
    """HTTP status and body; without JSON headers the body is a Python literal.

    What JSON cannot hold ends as it does in real servers: with the serializer's complaint.
    """
    if answer.text is not None:
        return answer.status, answer.text
    if not as_json:
        return answer.status, repr(answer.envelope)
    if isinstance(answer.data, set):
        return 500, f"Type not serializable for {answer.data} (<class 'set'>)"
    return answer.status, json.dumps(answer.envelope, separators=(",", ":"))


def answer_bulk_update(
    entries: list[bool | None],
    commands: Mapping[str, Any],
    *,
    broken: bool,
    in_strings: bool,
) -> Answer:
    """The answer to a bulk update that is already booked.

    Broken servers put the four strings into a set instead of a dict; with version 1 the values are
    no strings and the set cannot even be made.
    """
    if broken and not in_strings:
        return crash("unhashable type: 'list'")
    if broken:
        return succeed({"Returns", json.dumps(entries), "Commands", json.dumps(commands)})
    if not in_strings:
        return succeed({"Returns": entries, "Commands": dict(commands)})
    return succeed({"Returns": json.dumps(entries), "Commands": json.dumps(commands)})


def answer_unreadable_update(*, broken: bool) -> Answer:
    """The answer to a bulk update that is no JSON list; its strings come from an error text that
    is indexed like a pair."""
    if broken:
        return succeed({"Returns", '"', "Commands", "E"})
    return succeed({"Returns": '"', "Commands": "E"})
