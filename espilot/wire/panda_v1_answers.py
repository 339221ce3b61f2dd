"""Reading the answers of the v1 dialect: HTTP status and body in, value or error out.

Every answer should be `{"success": bool or null, "message": str, "data": any}`, always labelled
as plain text, so only the body tells. Any doubt is `ServerUnavailable` (the outcome is unknown);
only a definite no is `ServerRefused`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, Protocol

import ijson

from espilot.errors import MessageError, ServerRefused, ServerUnavailable
from espilot.model import EventRange, Job, ReportAnswer, TaskStatus
from espilot.wire.jobdef import is_lfn, read_job
from espilot.wire.panda_reports import decode_text, read_outcome, read_range_id, strip_attempt

NO_JOBS = "No jobs in PanDA"
_LITERAL_LIMIT = 8 * 2**20
_NO = ("argument error", "type error", "expecting ", "role", "ssl secure connection")
_BUSY = (408, 425, 429)
_UNHASHABLE = "unhashable type"
_NOT_SERIALIZABLE = "Type not serializable for"


def read_data(status: int, body: bytes) -> Any:
    """`data` of a successful answer."""
    envelope = _read_envelope(status, body)
    if envelope.get("success") is not True:
        raise _failure(envelope)
    data = decode_text(envelope.get("data"))
    _check_status_code(data)
    return data


def _check_status_code(data: Any) -> None:
    """Failure flags nest: `success` can be true around a StatusCode that is not 0."""
    if isinstance(data, dict) and "StatusCode" in data and str(data["StatusCode"]) != "0":
        diag = data.get("ErrorDiag") or data.get("errorDialog") or "no reason given"
        raise ServerUnavailable(
            f"server answered StatusCode {data['StatusCode']!r:.20}: {diag!s:.200}"
        )


def _read_envelope(status: int, body: bytes) -> Mapping[str, Any]:
    _check_http(status, body)
    envelope = _parse(body)
    if not isinstance(envelope, dict) or "success" not in envelope:
        if isinstance(envelope, str) and "role is required" in envelope:
            raise ServerRefused(f"server refused: {_short(body)}")
        raise ServerUnavailable(f"server answered with something unexpected: {_short(body)}")
    return envelope


def _check_http(status: int, body: bytes) -> None:
    if status == 200:
        return
    if status >= 500 or status < 300 or status in _BUSY:
        raise ServerUnavailable(f"server answered HTTP {status}: {_short(body)}")
    if status < 400:
        raise ServerRefused(
            f"server answered with a redirect (HTTP {status}); use its real address"
        )
    raise ServerRefused(f"server refused (HTTP {status}): {_short(body)}")


def _parse(body: bytes) -> Any:
    """JSON, else a Python literal (what servers send without JSON headers), else the text."""
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _literal(text, text)


def _literal(text: str, default: Any) -> Any:
    if len(text) > _LITERAL_LIMIT:
        return default
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return default


def _failure(envelope: Mapping[str, Any]) -> ServerRefused | ServerUnavailable:
    message = str(envelope.get("message"))
    data = envelope.get("data")
    refused = envelope["success"] is False and any(word in message.lower() for word in _NO)
    refused = refused or (isinstance(data, dict) and str(data.get("StatusCode")) == "50")
    if refused:
        return ServerRefused(f"server refused: {message:.200}")
    return ServerUnavailable(f"server could not answer: {message:.200}")


def _short(body: bytes) -> str:
    """The beginning of a body as one printable line."""
    text = body[:400].decode("utf-8", "replace")
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line[:200] or "(nothing)"


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
    _check_status_code(data)
    definition = _first_definition(data)
    if definition is None:
        return None
    try:
        return read_job(definition)
    except MessageError as error:
        raise ServerUnavailable(f"server sent an unusable job: {error}") from error


def _first_definition(data: Any) -> Mapping[str, Any] | None:
    """The first of `jobs`, or the data itself when it is one definition."""
    if isinstance(data, dict) and "PandaID" in data:
        return data
    jobs = decode_text(data.get("jobs")) if isinstance(data, dict) else data
    if not isinstance(jobs, list):
        raise ServerUnavailable("server sent no list of jobs")
    if not jobs:
        return None
    first = decode_text(jobs[0])
    if not isinstance(first, dict):
        raise ServerUnavailable("server sent a job that is no object")
    return first


def read_ranges(status: int, body: bytes) -> tuple[EventRange, ...]:
    """The ranges of an `acquire_event_ranges` answer, a bare list or wrapped in `eventRanges`."""
    data = read_data(status, body)
    if isinstance(data, dict):
        data = decode_text(data.get("eventRanges"))
    if not isinstance(data, list):
        raise ServerUnavailable("server sent no list of event ranges")
    return tuple(_read_range(item) for item in data)


def _read_range(item: Any) -> EventRange:
    if not isinstance(item, dict):
        raise ServerUnavailable("server sent an event range that is no object")
    range_id = item.get("eventRangeID")
    try:
        read_range_id(range_id)
    except MessageError as error:
        raise ServerUnavailable(f"server sent {error}") from error
    first, last = _event(item, "startEvent"), _event(item, "lastEvent")
    if last < first:
        raise ServerUnavailable(f"server sent range {range_id} with lastEvent before startEvent")
    lfn = _name(item, "LFN")
    if lfn and not is_lfn(lfn):
        raise ServerUnavailable(f"server sent range {range_id} with a bad LFN: {lfn!r:.60}")
    return EventRange(
        id=str(range_id),
        start_event=first,
        last_event=last,
        lfn=lfn,
        guid=_name(item, "GUID"),
        scope=_name(item, "scope"),
    )


def _event(item: Mapping[str, Any], name: str) -> int:
    value = item.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ServerUnavailable(f"server sent a range whose {name} is no event number")
    return value


def _name(item: Mapping[str, Any], name: str) -> str:
    """A string; null when the server has lost the file record."""
    value = item.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 1024:
        raise ServerUnavailable(f"server sent a range whose {name} is no name")
    return value


def read_report(status: int, body: bytes, n: int) -> ReportAnswer:
    """The answer to a bulk update of `n` ranges, whatever shape it has.

    Real servers book the update and then lose the answer: of the two 500 bodies that say so, one
    still holds the answer as the text of a Python set; the other tells nothing.
    """
    text = body.decode("utf-8", "replace")
    if status == 500 and text.startswith(_NOT_SERIALIZABLE):
        start, end = text.find("{"), text.rfind("}")
        return _read_report_data(_literal(text[start : end + 1], None), n)
    if status == 500 and text.startswith(_UNHASHABLE):
        return ReportAnswer(None)
    envelope = _read_envelope(status, body)
    if envelope.get("success") is not True:
        raise _failure(envelope)
    data = envelope.get("data")
    data = decode_text(data)
    _check_status_code(data)
    return _read_report_data(data, n)


def _read_report_data(data: Any, n: int) -> ReportAnswer:
    """A dict with `Returns` and `Command(s)`, the bare list, or the set of the broken answer."""
    if isinstance(data, dict):
        commands = data.get("Commands", data.get("Command"))
        return read_outcome(data.get("Returns"), commands, n)
    if isinstance(data, set | frozenset):
        return _read_set(data, n)
    return read_outcome(data, None, n)


def _read_set(strings: set[Any] | frozenset[Any], n: int) -> ReportAnswer:
    """Two labels, a list and an object as strings, in any order.

    The strings `"` and `E` mean that the server could not read our list: sending it again is
    useless.
    """
    if {'"', "E"} <= strings:
        raise ServerRefused("server could not read the list of event ranges")
    values = [decode_text(value) for value in strings]
    returns = next((value for value in values if isinstance(value, list)), None)
    commands = next((value for value in values if isinstance(value, dict)), None)
    return read_outcome(returns, commands, n)


def read_statuses(status: int, body: bytes, panda_id: int) -> Mapping[str, str]:
    """Status by range id without its attempt number, for the ranges that the job holds.

    The same range can appear twice (an earlier attempt of the same job): the latest attempt, the
    one with the lowest number, counts.
    """
    data = read_data(status, body)
    rows = decode_text(data.get(str(panda_id))) if isinstance(data, dict) else None
    if rows is None and isinstance(data, dict) and not data:
        rows = {}
    if not isinstance(rows, dict):
        raise ServerUnavailable(f"server sent no range statuses of job {panda_id}")
    found: dict[str, str] = {}
    attempts: dict[str, int] = {}
    for range_id, row in rows.items():
        key, attempt = _status_key(range_id)
        if attempt <= attempts.get(key, attempt):
            attempts[key] = attempt
            found[key] = _status_of(row, range_id)
    return found


class Readable(Protocol):
    """Where the bytes of an answer come from."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


def stream_statuses(
    source: Readable, panda_id: int, wanted: Collection[str] | None
) -> Mapping[str, str]:
    """As `read_statuses`, of a large good answer: only the `wanted` keys are kept (None: all).

    The answer lists every range of the job, so its size grows with the job; the memory does not.
    """
    found: dict[str, str] = {}
    attempts: dict[str, int] = {}
    rows = 0
    try:
        for range_id, row in ijson.kvitems(source, f"data.{panda_id}"):
            rows += 1
            key, attempt = _status_key(range_id)
            if (wanted is None or key in wanted) and attempt <= attempts.get(key, attempt):
                attempts[key] = attempt
                found[key] = _status_of(row, range_id)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise ServerUnavailable(f"server sent broken range statuses: {error!r:.100}") from None
    if not rows:
        raise ServerUnavailable(f"server sent no range statuses of job {panda_id}")
    return found


def _status_key(range_id: str) -> tuple[str, int]:
    try:
        return strip_attempt(range_id), read_range_id(range_id).attempt_nr
    except MessageError as error:
        raise ServerUnavailable(f"server sent {error}") from error


def _status_of(row: Any, range_id: str) -> str:
    value = row.get("status") if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise ServerUnavailable(f"server sent no status of range {range_id}")
    return value


def read_command(status: int, body: bytes) -> str:
    """The command of an `update_job` answer; "" when there is none."""
    data = read_data(status, body)
    if not isinstance(data, dict):
        raise ServerUnavailable("server sent no usable answer to the job update")
    command = data.get("command")
    if command is None or command == "NULL":
        return ""
    if not isinstance(command, str):
        raise ServerUnavailable(f"server sent a command that is no string: {command!r:.60}")
    return command


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
