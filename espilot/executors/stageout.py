"""The outputs of a job, verified before they are staged out."""

from __future__ import annotations

import stat
from collections.abc import Collection, Sequence
from pathlib import Path

from espilot.errors import OutputError
from espilot.executors.stagein import facts_of
from espilot.workers.shipping import CheckedOutput

TOO_LARGE, MISSING, EMPTY, UNUSABLE = 1124, 1165, 1191, 1303


def check_outputs(
    directory: Path, lfns: Sequence[str], *, limit_bytes: int, optional: Collection[str] = ()
) -> list[CheckedOutput]:
    """The declared outputs with size and checksum; `OutputError` names the first that is unusable.

    An optional one that is missing or empty is left out.
    """
    checked = []
    for lfn in lfns:
        path = directory / lfn
        try:
            _require_file(path, lfn, limit_bytes)
            size_bytes, adler32 = facts_of(path)
        except OutputError as error:
            if lfn in optional and error.code in (MISSING, EMPTY):
                continue
            raise
        except OSError as error:
            raise OutputError(f"output {lfn}: {error.strerror}", UNUSABLE) from error
        checked.append(CheckedOutput(lfn, path, size_bytes, adler32))
    return checked


def _require_file(path: Path, lfn: str, limit_bytes: int) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise OutputError(f"output {lfn}: the payload did not make it", MISSING) from None
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(f"output {lfn}: not a regular file", UNUSABLE)
    if not status.st_size:
        raise OutputError(f"output {lfn}: is empty", EMPTY)
    if status.st_size > limit_bytes:
        text = f"output {lfn}: {status.st_size} bytes are over the limit of {limit_bytes}"
        raise OutputError(text, TOO_LARGE)
