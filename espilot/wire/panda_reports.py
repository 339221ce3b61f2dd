"""Range updates as every dialect carries them: the JSON list, its versions, its order.

Version 0 is a list of range objects. In version 1 an item may instead be a chunk: an archive
(`zipFile`) and the ranges in it; items without `eventRanges` stay plain range objects.
"Flattened order" is the order of the ranges when chunks are opened in place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espilot.errors import MessageError
from espilot.model import ArchiveFacts, RangeReport, ReportAnswer, ReportBatch

FINAL_STATUSES = ("finished", "failed", "fatal")
IGNORED_STATUSES = ("running", "transferring")
DIAG_LIMIT = 500
_RANGE_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,18})-([0-9]{1,18})-([0-9]{1,18})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class RangeId:
    """The five numbers of a range id; `attempt_nr` counts down."""

    task_id: int
    panda_id: int
    file_id: int
    process_id: int
    attempt_nr: int

    def __str__(self) -> str:
        return f"{self.task_id}-{self.panda_id}-{self.file_id}-{self.process_id}-{self.attempt_nr}"


@dataclass(frozen=True, slots=True)
class RangeUpdate:
    """One range of an update list as it arrived; values are not checked yet."""

    id: Any
    status: Any
    code: Any = None
    diag: Any = None
    archive: Mapping[str, Any] | None = None


def read_range_id(text: Any) -> RangeId:
    """The numbers of a range id. Errors: `MessageError`."""
    match = _RANGE_ID.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise MessageError(f"not an event range id: {text!r:.80}")
    return RangeId(*(int(part) for part in match.groups()))


def strip_attempt(range_id: str) -> str:
    """The first four parts of a range id; a fatal report rewrites the fifth at the server."""
    return range_id.rpartition("-")[0]


def write_updates(batches: Sequence[ReportBatch]) -> str:
    """The version-1 list for some batches, as JSON text."""
    items: list[dict[str, Any]] = []
    for batch in batches:
        ranges = [_write_range(report) for report in batch.ranges]
        if batch.archive is None:
            items.extend(ranges)
        else:
            items.append({"zipFile": _write_archive(batch.archive), "eventRanges": ranges})
    return json.dumps(items, separators=(",", ":"))


def count_ranges(batches: Sequence[ReportBatch]) -> int:
    """Number of ranges in flattened order."""
    return sum(len(batch.ranges) for batch in batches)


def _write_range(report: RangeReport) -> dict[str, Any]:
    item: dict[str, Any] = {"eventRangeID": report.id, "eventStatus": report.status}
    if report.code is not None:
        item["errorCode"] = int(report.code)
    if report.diag is not None:
        item["errorDiag"] = cut_text(report.diag, DIAG_LIMIT)
    return item


def _write_archive(archive: ArchiveFacts) -> dict[str, Any]:
    return {
        "lfn": archive.lfn,
        "objstoreID": archive.storage_id,
        "fsize": archive.size_bytes,
        "adler32": archive.adler32,
        "numEvents": archive.events,
        "pathConvention": archive.path_convention,
    }


def cut_text(text: str, limit: int) -> str:
    """`text` cut to `limit` bytes of UTF-8, because some databases count bytes: one item that is
    too long would roll back the whole call."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def read_updates(text: str, version: int) -> tuple[RangeUpdate, ...]:
    """The ranges of an update list in flattened order.

    Errors: `MessageError` when the text is not a JSON list.
    """
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageError("eventRanges is not JSON") from error
    if not isinstance(items, list):
        raise MessageError("eventRanges is not a list")
    return tuple(_flatten(items, version))


def _flatten(items: Sequence[Any], version: int) -> Iterator[RangeUpdate]:
    for item in items:
        chunk = item.get("eventRanges") if isinstance(item, dict) and version > 0 else None
        if isinstance(chunk, list):
            archive = item.get("zipFile")
            for inner in chunk:
                yield _read_range(inner, archive if isinstance(archive, dict) else None)
        else:
            yield _read_range(item, None)


def _read_range(item: Any, archive: Mapping[str, Any] | None) -> RangeUpdate:
    if not isinstance(item, dict):
        return RangeUpdate(None, None)
    return RangeUpdate(
        id=item.get("eventRangeID"),
        status=item.get("eventStatus"),
        code=item.get("errorCode"),
        diag=item.get("errorDiag"),
        archive=archive,
    )


def read_outcome(returns: Any, commands: Any, n: int) -> ReportAnswer:
    """What `Returns` and `Command(s)` say of `n` ranges; each may be JSON inside a string.

    A list of another length, or one that holds anything but true, false and null, tells nothing:
    `accepted` is None then.
    """
    returns = decode_text(returns)
    accepted: tuple[bool | None, ...] | None = None
    if (
        isinstance(returns, list | tuple)
        and len(returns) == n
        and all(entry is None or isinstance(entry, bool) for entry in returns)
    ):
        accepted = tuple(returns)
    return ReportAnswer(accepted, read_commands(commands))


def read_commands(commands: Any) -> Mapping[int, str]:
    """Commands by PandaID; null, "NULL" and what is no command are left out."""
    commands = decode_text(commands)
    if not isinstance(commands, dict):
        return {}
    found = {}
    for key, command in commands.items():
        if isinstance(command, str) and command not in ("", "NULL"):
            digits = str(key)
            if digits.isascii() and digits.isdigit() and len(digits) <= 19:
                found[int(digits)] = command
    return found


def decode_text(value: Any) -> Any:
    """`value`, or what it encodes when it is a string that holds JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
