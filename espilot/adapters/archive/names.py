"""Names of archives and of their members: made from what a server said, so checked here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from espilot.errors import LocalError, OutputError

_NAME_BYTES = 255
"""Longest member name: what a file system can hold when the archive is unpacked."""
_ARCHIVE_NAME_BYTES = 200
"""Leaves room for what the temporary and manifest names add."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def archive_name(job_id: int, first_range_id: str, sealed_at: float) -> str:
    """Name an archive after its job, its first range and the time (Unix seconds).

    Different ids never share a name. A server that was restored from older books hands out the same
    range once more; what it has booked by then must not be overwritten.
    """
    prefix = f"EventService_premerge_{job_id}_"
    suffix = f"_{int(sealed_at * 1000):x}.tar"
    room = _ARCHIVE_NAME_BYTES - len(prefix) - len(suffix)
    safe = _UNSAFE.sub("_", first_range_id)
    if safe != first_range_id or not 0 < len(safe) <= room:
        digest = hashlib.sha256(first_range_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        safe = f"{safe[: room - len(digest) - 1]}_{digest}"
    return f"{prefix}{safe}{suffix}"


def member_names(output_lfns: Sequence[str], range_id: str, n: int) -> tuple[str, ...]:
    """Name the `n` outputs of a range `<output LFN>.<range id>`; OutputError for an unusable name.

    The k-th output (from 1) uses the k-th LFN; further ones are `<last LFN>_<k>.<range id>`.
    """
    if not output_lfns or not range_id or not all(output_lfns):
        raise OutputError(f"range {range_id!a}: an output name or the range id is empty")
    further = (f"{output_lfns[-1]}_{k}" for k in range(len(output_lfns) + 1, n + 1))
    names = tuple(f"{lfn}.{range_id}" for lfn in (*output_lfns[:n], *further))
    for name in names:
        require_member_name(name)
    return names


def require_member_name(name: str) -> None:
    """Require a flat name that every file system takes."""
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError as error:
        raise OutputError(f"member name {ascii(name)[:80]}: not valid text") from error
    if "/" in name or _CONTROL.search(name) or name in ("", ".", ".."):
        raise OutputError(f"member name {ascii(name)[:80]}: not a flat file name")
    if size_bytes > _NAME_BYTES:
        raise OutputError(f"member name {ascii(name)[:80]}...: longer than {_NAME_BYTES} bytes")


def require_archive_name(name: str) -> None:
    """Require a name as `archive_name` makes them."""
    if _UNSAFE.search(name) or not name.endswith(".tar") or name.startswith("."):
        raise LocalError(f"archive name {ascii(name)[:80]} cannot be used")
    if len(name) > _ARCHIVE_NAME_BYTES:
        raise LocalError(f"archive name {name[:80]}... is longer than {_ARCHIVE_NAME_BYTES} bytes")
