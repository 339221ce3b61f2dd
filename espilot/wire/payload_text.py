"""The text dialect of the payload channel: yampl payloads such as AthenaMP and AthenaMT.

The pilot uses `parse`, `range_reply` and `NO_MORE`. Fakes and tests use the payload side: `READY`,
`finished`, `process_error`, `parse_error` and `parse_reply`; the last understands a range as real
payloads do: by hand, not as JSON.

Rules of an output message, `PATH[,PATH...],ID:RANGEID,CPU:SECONDS,WALL:SECONDS`:
* text ends at the first newline; trailing blanks and NULs do not count;
* the last `,ID:` separates paths from the rest, so commas and colons may occur in a path;
* paths are absolute, so only a comma before a slash separates two of them;
* a time that is no finite, non-negative number is unknown, never a reason to lose an output.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf

from espilot.errors import MessageError
from espilot.model import EventRange
from espilot.wire.payload import (
    CODE_UNKNOWN,
    MAX_ID_CHARS,
    MAX_MESSAGE_BYTES,
    Failed,
    Finished,
    Ready,
    checked_id,
    printable,
    shortened,
)

READY = b"Ready for events"
NO_MORE = b"No more events"

_ONE_READY = Ready(1)
_TRAILING = b" \t\r\0"
_PARSE_ACRONYM = "ERR_ATHENAMP_PARSE"
_ID_KEY = "eventRangeID"
# What a payload that parses by hand would trip over inside a value.
_FORBIDDEN = re.compile(r"""[,"'\\{}\[\]]""")
_ID_ENDS = frozenset("\"'\\,{}[] \t")

_CODE_FATAL = 1228
_CODE_TOKEN_EXTRACTOR = 1229
# Words in the text of a fatal token-extractor error, and the pilot error code they stand for.
_TOKEN_EXTRACTOR_CODES = (
    ("url", 1230),
    ("invalid guid", 1231),
    ("wrong guid", 1232),
    ("host", 1233),
)


def parse(message: bytes) -> Ready | Finished | Failed:
    """Return what a payload said; `MessageError` when it is no message of this dialect."""
    if message == READY:
        return _ONE_READY
    text = _first_line(message)
    if text.startswith("ERR_"):
        return _parse_error_message(text)
    head, mark, tail = text.rpartition(",ID:")
    if mark:
        return _parse_output(head, tail)
    if text == "Ready for events":
        return _ONE_READY
    raise MessageError(f"unknown text from payload: {shortened(text)}")


def _first_line(message: bytes) -> str:
    if len(message) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message of {len(message)} bytes is over the limit")
    line = message.partition(b"\n")[0].rstrip(_TRAILING)
    if b"\0" in line:
        raise MessageError(f"NUL inside text from payload: {shortened(line)}")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise MessageError(f"text from payload is not UTF-8: {shortened(line)}") from None


def _parse_output(head: str, tail: str) -> Finished | Failed:
    range_id, *times = tail.split(",")
    range_id = checked_id(range_id.strip())
    if not range_id:
        raise MessageError(f"output without a range id: {shortened(head)}")
    cpu_s = wall_s = None
    for piece in times:
        if piece.startswith("CPU:"):
            cpu_s = _seconds(piece[4:])
        elif piece.startswith("WALL:"):
            wall_s = _seconds(piece[5:])
    if not head:
        return Failed(range_id, CODE_UNKNOWN, "output message names no file", False)
    return Finished(range_id, _split_paths(head), cpu_s, wall_s)


def _split_paths(head: str) -> tuple[str, ...]:
    if ",/" not in head:
        return (head,)
    first, *others = head.split(",/")
    return (first, *("/" + other for other in others))


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value < inf else None


def _parse_error_message(text: str) -> Failed:
    acronym, _, rest = text.partition(" ")
    if acronym == _PARSE_ACRONYM:
        return Failed(_id_in_range_text(rest), CODE_UNKNOWN, _parse_diag(rest), False)
    range_id, diag = _split_id(rest)
    return Failed(
        id=range_id,
        code=_error_code(acronym, diag),
        diag=printable(f"{acronym}: {diag}"),
        fatal="FATAL" in acronym,
    )


def _split_id(rest: str) -> tuple[str, str]:
    """Split `RANGEID: text`; without a colon the first word is the id only if nothing follows."""
    range_id, colon, diag = rest.partition(":")
    range_id = range_id.strip()
    if not colon and " " in range_id:
        return "", range_id
    return checked_id(range_id), diag.strip()


def _error_code(acronym: str, diag: str) -> int:
    if "FATAL" not in acronym:
        return CODE_UNKNOWN
    if not acronym.startswith("ERR_TE_"):
        return _CODE_FATAL
    words = diag.lower()
    for word, code in _TOKEN_EXTRACTOR_CODES:
        if word in words:
            return code
    return _CODE_TOKEN_EXTRACTOR


def _id_in_range_text(text: str) -> str:
    """Dig the range id out of a range as some payload repeated it; empty when there is none."""
    _, key, rest = text.partition(_ID_KEY)
    before, colon, value = rest.partition(":")
    if not key or not colon or before.strip("\"'\\ \t"):
        return ""
    value = value.lstrip(" \t")
    if value[:2] in ("u'", 'u"'):
        value = value[1:]
    value = value.removeprefix("\\")
    value = value[1:] if value[:1] in ('"', "'") else value
    end = next((i for i, c in enumerate(value[:MAX_ID_CHARS]) if c in _ID_ENDS), len(value))
    return checked_id(value[:end])


def _parse_diag(rest: str) -> str:
    """The payload's own words, after the repeated range text with its unescaped quotes."""
    words = rest.rpartition('": ')[2] if '": ' in rest else rest
    return printable(f"{_PARSE_ACRONYM}: {words}")


def range_reply(event_range: EventRange) -> bytes:
    """Return the one-line reply that hands out one range.

    `MessageError` if a payload that splits at every comma could not read it back.
    """
    r = event_range
    values = f"{r.id}|{r.lfn}|{r.guid}|{r.scope}|{r.pfn}"
    if not r.id or not _is_plain(values):
        raise MessageError(_refusal(r))
    if r.last_event < r.start_event:
        raise MessageError(
            f"range {shortened(r.id)} ends at event {r.last_event}, before {r.start_event}"
        )
    return (
        f'[{{"eventRangeID": "{r.id}", "LFN": "{r.lfn}", "GUID": "{r.guid}", '
        f'"scope": "{r.scope}", "startEvent": {r.start_event}, '
        f'"lastEvent": {r.last_event}, "PFN": "{r.pfn}"}}]'
    ).encode()


def _is_plain(value: str) -> bool:
    return value.isprintable() and _FORBIDDEN.search(value) is None


def _refusal(r: EventRange) -> str:
    if not r.id:
        return f"range of {shortened(r.lfn)} has no id"
    named = {_ID_KEY: r.id, "LFN": r.lfn, "GUID": r.guid, "scope": r.scope, "PFN": r.pfn}
    key = next(k for k, v in named.items() if not _is_plain(v))
    return f"range cannot be written for the payload: {key} is {shortened(named[key])}"


def finished(paths: Sequence[str], range_id: str, cpu_s: float, wall_s: float) -> bytes:
    """Return the payload's output message."""
    return f"{','.join(paths)},ID:{range_id},CPU:{cpu_s:g},WALL:{wall_s:g}".encode()


def process_error(range_id: str, text: str) -> bytes:
    """Return the payload's message that one range failed."""
    return f"ERR_ATHENAMP_PROCESS {range_id}: {text}".encode()


def parse_error(reply: bytes, text: str) -> bytes:
    """Return the payload's message that it could not understand `reply`."""
    inner = reply.decode(errors="replace").removeprefix("[").removesuffix("]")
    inner = inner.removeprefix("{").removesuffix("}")
    return f'{_PARSE_ACRONYM} "{inner}": {text}'.encode()


def parse_reply(reply: bytes) -> dict[str, str]:
    """Return a range as a payload that parses by hand understands it.

    Two ranges in one list are mixed up as they are there. `MessageError` in the cases that real
    payloads answer with ERR_ATHENAMP_PARSE.
    """
    text = reply.decode(errors="replace")
    if not (text.startswith("[{") and text.endswith("}]")):
        raise MessageError(f"not a range: {shortened(text)}")
    found: dict[str, str] = {}
    for piece in text[2:-2].split(","):
        key, _, value = piece.partition(":")
        found[_bare(key)] = _bare(value)
    _check_understood(found)
    return found


def _bare(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == '"' == text[-1]:
        return text[1:-1]
    if len(text) > 2 and text.startswith("u'") and text.endswith("'"):
        return text[2:-1]
    return text


def _check_understood(found: dict[str, str]) -> None:
    if not found.get(_ID_KEY):
        raise MessageError("range without an id")
    try:
        first, last = int(found["startEvent"]), int(found["lastEvent"])
    except (KeyError, ValueError):
        raise MessageError(f"range {shortened(found[_ID_KEY])} without event numbers") from None
    if last < first:
        raise MessageError(f"range {shortened(found[_ID_KEY])} ends before it starts")
