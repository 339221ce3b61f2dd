"""The directories of a case, and what lies in them at the end."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from espilot.adapters.outputs import EMPTY, MISSING, OutputInspector
from espilot.errors import OutputError
from espilot.model import Output
from espilot.wire.payload import printable

OWN_NAMES = frozenset({"payload.stdout", "payload.stderr", ".result.json"})
"""Files of the payload's directory that the launcher makes."""
LARGEST_OUTPUT_BYTES = 500 * 10**9
_TAIL_BYTES = 4096
_TAIL_CHARS = 200


class Looker:
    """Looks at outputs as the pilot does, and names what is wrong with one."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._inspector = OutputInspector(root, (), LARGEST_OUTPUT_BYTES)

    def look(self, path: str) -> tuple[Output | None, str, str]:
        """The output as it is now, or the code and the text of a finding."""
        try:
            return self._inspector.inspect(path), "", ""
        except OutputError as error:
            if error.code == MISSING or str(error).endswith(": missing"):
                return None, "missing-file", str(error)
            if error.code == EMPTY:
                return None, "empty-file", str(error)
            inside = f"{os.path.realpath(path)}/".startswith(f"{self._root}/")
            absolute = path.startswith("/")
            code = "path-outside" if absolute and not inside else "unusable-file"
            return None, code, str(error)


def describe_change(output: Output) -> str:
    """What became of an output since it was reported; "" when it is as it was."""
    try:
        status = os.lstat(output.path)
    except OSError:
        return f"{output.path} is gone"
    if status.st_ino != output.inode or status.st_dev != output.device:
        return f"{output.path} is another file now"
    if status.st_size != output.size_bytes:
        return f"{output.path} had {output.size_bytes} bytes, now {status.st_size}"
    return f"{output.path} was written again" if status.st_mtime_ns != output.mtime_ns else ""


def stray_bytes(directory: Path, reported: Collection[str]) -> tuple[int, str]:
    """Bytes of files that nobody reported, and the largest of them."""
    total = largest = 0
    name = ""
    for parent, _, names in os.walk(os.path.realpath(directory)):
        for each in names:
            path = f"{parent}/{each}"
            if path in reported or each in OWN_NAMES or os.path.islink(path):
                continue
            size_bytes = _size(path)
            total += size_bytes
            if size_bytes > largest:
                largest, name = size_bytes, path
    return total, name


def log_bytes(logs: Collection[Path]) -> int:
    """Bytes of the payload's stdout and stderr."""
    return sum(_size(str(path)) for path in logs)


def last_words(stderr: Path) -> str:
    """The last line that the payload wrote to stderr, printable and short; "" without one."""
    try:
        with stderr.open("rb") as file:
            file.seek(max(0, _size(str(stderr)) - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return printable(lines[-1], _TAIL_CHARS) if lines else ""


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
