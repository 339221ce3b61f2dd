"""Reading the answers of the v1 dialect: HTTP status and body in, value or error out.

Every answer should be `{"success": bool or null, "message": str, "data": any}`, always labelled
as plain text, so only the body tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from espilot.errors import ServerRefused, ServerUnavailable
from espilot.model import EventRange, Job, ReportAnswer, TaskStatus
from espilot.wire.panda_answers import (
    check_http,
    check_status_code,
    parse,
    parse_literal,
    read_command_word,
    read_definition,
    read_range_list,
    read_report_data,
    read_status_rows,
    shorten,
)
from espilot.wire.panda_reports import decode_text

NO_JOBS = "No jobs in PanDA"
_NO = ("argument error", "type error", "expecting ", "role", "ssl secure connection")
_UNHASHABLE = "unhashable type"
_NOT_SERIALIZABLE = "Type not serializable for"


def read_data(status: int, body: bytes) -> Any:
    """`data` of a successful answer."""
    envelope = _read_envelope(status, body)
    if envelope.get("success") is not True:
        raise _failure(envelope)
    data = decode_text(envelope.get("data"))
    check_status_code(data)
    return data


def _read_envelope(status: int, body: bytes) -> Mapping[str, Any]:
    check_http(status, body)
    envelope = parse(body)
    if not isinstance(envelope, dict) or "success" not in envelope:
        if isinstance(envelope, str) and "role is required" in envelope:
            raise ServerRefused(f"server refused: {shorten(body)}")
        raise ServerUnavailable(f"server answered with something unexpected: {shorten(body)}")
    return envelope


def _failure(envelope: Mapping[str, Any]) -> ServerRefused | ServerUnavailable:
    message = str(envelope.get("message"))
    data = envelope.get("data")
    refused = envelope["success"] is False and any(word in message.lower() for word in _NO)
    refused = refused or (isinstance(data, dict) and str(data.get("StatusCode")) == "50")
    if refused:
        return ServerRefused(f"server refused: {message:.200}")
    return ServerUnavailable(f"server could not answer: {message:.200}")


def read_alive(status: int, body: bytes) -> bool:
    """True when the answer to a probe shows that the server speaks this dialect."""
    envelope = parse(body) if status == 200 else None
    return isinstance(envelope, dict) and envelope.get("success") is True


def read_done(status: int, body: bytes) -> None:
    """The answer to a call that brings nothing. Errors: it was not done."""
    read_data(status, body)


def read_acquired_job(status: int, body: bytes) -> Job | None:
    """The job of an `acquire_jobs` answer; None when the server has none or says so."""
    envelope = _read_envelope(status, body)
    if envelope.get("success") is not True:
        if NO_JOBS.lower() in str(envelope.get("message")).lower():
            return None
        raise _failure(envelope)
    data = decode_text(envelope.get("data"))
    if isinstance(data, dict) and str(data.get("StatusCode")) == "20":
        return None
    check_status_code(data)
    return read_definition(data)


def read_ranges(status: int, body: bytes) -> tuple[EventRange, ...]:
    """The ranges of an `acquire_event_ranges` answer."""
    return read_range_list(read_data(status, body))


def read_report(status: int, body: bytes, n: int) -> ReportAnswer:
    """The answer to a bulk update of `n` ranges, whatever shape it has.

    Real servers book the update and then lose the answer: of the two 500 bodies that say so, one
    still holds the answer as the text of a Python set; the other tells nothing.
    """
    text = body.decode("utf-8", "replace")
    if status == 500 and text.startswith(_NOT_SERIALIZABLE):
        start, end = text.find("{"), text.rfind("}")
        return read_report_data(parse_literal(text[start : end + 1], None), n)
    if status == 500 and text.startswith(_UNHASHABLE):
        return ReportAnswer(None)
    envelope = _read_envelope(status, body)
    if envelope.get("success") is not True:
        raise _failure(envelope)
    data = decode_text(envelope.get("data"))
    check_status_code(data)
    return read_report_data(data, n)


def read_statuses(status: int, body: bytes, panda_id: int) -> Mapping[str, str]:
    """Status by range id without its attempt number, for the ranges that the job holds."""
    return read_status_rows(read_data(status, body), panda_id)


def read_command(status: int, body: bytes) -> str | None:
    """The command of an `update_job` answer, "" when there is none.

    None when the server did not take the update because its metadata could not be stored.
    """
    envelope = _read_envelope(status, body)
    data = decode_text(envelope.get("data"))
    if envelope.get("success") is True and isinstance(data, dict) and data.get("ErrorDiag"):
        return None
    return read_command_word(read_data(status, body))


def read_task_status(status: int, body: bytes) -> TaskStatus:
    """The fields of a `TaskStatus`."""
    data = read_data(status, body)
    names = [entry.name for entry in fields(TaskStatus)]
    if not isinstance(data, dict) or any(name not in data for name in names):
        raise ServerUnavailable("server sent no task status")
    values = {name: data[name] for name in names}
    numbers = [value for name, value in values.items() if name != "state"]
    if not isinstance(values["state"], str) or not all(type(value) is int for value in numbers):
        raise ServerUnavailable("server sent a task status of wrong types")
    return TaskStatus(**values)


def read_task_id(status: int, body: bytes) -> int:
    """The id of a created task."""
    data = read_data(status, body)
    if type(data) is not int:
        raise ServerUnavailable("server sent no task id")
    return data
