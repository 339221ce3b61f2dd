"""What the answers of all dialects have in common: bodies, jobs, ranges, reports, statuses.

Any doubt is `ServerUnavailable` (the outcome is unknown); only a definite no is `ServerRefused`.
The same value comes in many shapes: bare, wrapped, as JSON inside a string, as a Python literal.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import ijson

from espilot.errors import MessageError, ServerRefused, ServerUnavailable
from espilot.model import EventRange, Job, ReportAnswer
from espilot.wire.jobdef import is_lfn, read_job
from espilot.wire.panda_reports import decode_text, read_outcome, read_range_id, strip_attempt

_LITERAL_LIMIT = 8 * 2**20
_BUSY = (408, 425, 429)
_FORBIDDEN = re.compile(r"method (\S*) is forbidden")


def is_forbidden(status: int, body: bytes, method: str) -> bool:
    """True when the server says that it does not have `method`: it speaks another dialect.

    Other 403 bodies (a bad token, a banned user) are no such sign.
    """
    if status != 403:
        return False
    match = _FORBIDDEN.search(body[:400].decode("utf-8", "replace"))
    return match is not None and match.group(1) == method


def check_http(status: int, body: bytes) -> None:
    """Errors: everything but HTTP 200."""
    if status == 200:
        return
    if status >= 500 or status < 300 or status in _BUSY:
        raise ServerUnavailable(f"server answered HTTP {status}: {shorten(body)}")
    if status < 400:
        # Whoever says this is no event server: it is as if there had been no answer.
        raise ServerUnavailable(
            f"answered with a redirect (HTTP {status}): server.url is not its real address, or "
            "something stands before it"
        )
    raise ServerRefused(f"server refused (HTTP {status}): {shorten(body)}")


def parse(body: bytes) -> Any:
    """JSON, else a Python literal (what servers send without JSON headers), else the text."""
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return parse_literal(text, text)


def parse_literal(text: str, default: Any) -> Any:
    """The value of a Python literal; `default` where it is none, or too large to be safe."""
    if len(text) > _LITERAL_LIMIT:
        return default
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return default


def shorten(body: bytes) -> str:
    """The beginning of a body as one printable line."""
    text = body[:400].decode("utf-8", "replace")
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line[:200] or "(nothing)"


def check_status_code(data: Any) -> None:
    """Failure flags nest: `success` can be true around a StatusCode that is not 0."""
    if isinstance(data, dict) and "StatusCode" in data and str(data["StatusCode"]) != "0":
        diag = data.get("ErrorDiag") or data.get("errorDialog") or "no reason given"
        raise ServerUnavailable(
            f"server answered StatusCode {data['StatusCode']!r:.20}: {diag!s:.200}"
        )


def read_definition(data: Any) -> Job | None:
    """The job of one definition, or the first of `jobs`; None when that list is empty."""
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


def read_range_list(data: Any) -> tuple[EventRange, ...]:
    """Ranges, a bare list or wrapped in `eventRanges`."""
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


def read_report_data(data: Any, n: int) -> ReportAnswer:
    """What is said of `n` ranges: a dict with `Returns` and `Command(s)`, the bare list, or the
    set of the broken answer."""
    if isinstance(data, dict):
        if data.get("Returns") == '"':
            raise _unreadable()
        commands = data.get("Commands", data.get("Command"))
        return read_outcome(data.get("Returns"), commands, n)
    if isinstance(data, set | frozenset):
        return _read_set(data, n)
    return read_outcome(data, None, n)


def _read_set(strings: set[Any] | frozenset[Any], n: int) -> ReportAnswer:
    """Two labels, a list and an object as strings, in any order."""
    if {'"', "E"} <= strings:
        raise _unreadable()
    values = [decode_text(value) for value in strings]
    returns = next((value for value in values if isinstance(value, list)), None)
    commands = next((value for value in values if isinstance(value, dict)), None)
    return read_outcome(returns, commands, n)


def _unreadable() -> ServerRefused:
    """The strings `"` and `E` mean that the server could not read our list: sending it again is
    useless."""
    return ServerRefused("server could not read the list of event ranges")


def read_status_rows(data: Any, panda_id: int) -> Mapping[str, str]:
    """Status by range id without its attempt number, for the ranges that the job holds.

    The same range can appear twice (an earlier attempt of the same job): the latest attempt, the
    one with the lowest number, counts.
    """
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
    source: Readable, prefix: str, wanted: Collection[str] | None
) -> Mapping[str, str]:
    """As `read_status_rows`, of a large good answer: only the `wanted` keys are kept (None: all).

    `prefix` is the path to the job's object. The answer lists every range of the job, so its size
    grows with the job; the memory does not.
    """
    found: dict[str, str] = {}
    attempts: dict[str, int] = {}
    rows = 0
    try:
        for range_id, row in ijson.kvitems(source, prefix):
            rows += 1
            key, attempt = _status_key(range_id)
            if (wanted is None or key in wanted) and attempt <= attempts.get(key, attempt):
                attempts[key] = attempt
                found[key] = _status_of(row, range_id)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise ServerUnavailable(f"server sent broken range statuses: {error!r:.100}") from None
    if not rows:
        raise ServerUnavailable("server sent no range statuses of this job")
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


def read_command_word(data: Any) -> str:
    """The command in the answer to a job update; "" when there is none."""
    if not isinstance(data, dict):
        raise ServerUnavailable("server sent no usable answer to the job update")
    command = data.get("command")
    if command is None or command == "NULL":
        return ""
    if not isinstance(command, str):
        raise ServerUnavailable(f"server sent a command that is no string: {command!r:.60}")
    return command
