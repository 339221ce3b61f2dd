"""The log archive of a job: what a person wants to see when it went wrong, as one tar.gz.

Only text is packed, and it is cleaned on its way: log archives are read by many. What a payload may
leave in its directory (links, pipes, endless files) costs neither time nor space beyond the limit.
"""

from __future__ import annotations

import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from espilot.errors import LocalError
from espilot.foreign_files import open_regular, walk_files

LIMIT_BYTES = 64 * 2**20
"""Of all files together, before compression."""
HEAD_BYTES = 2**18
"""Of a file that is cut, so much of its beginning stays."""
BLOCK_BYTES = 2**14
"""Cleaning holds the interpreter for one block at a time."""
_HELD_BYTES = 2**16
_SNIFFED_BYTES = 4096
_MOST_FILES = 10_000
_NOT_LOGS = (".py", ".pyc", ".tar", ".a", ".so")
_RANGE_ID = re.compile(r"[0-9]+-[0-9]+-[0-9]+-[0-9]+-[0-9]+")
_BEGIN, _END = b"-----BEGIN ", b"-----END "

Clean = Callable[[str], str]


def pack_logs(
    target: Path,
    top: str,
    sources: Collection[Path],
    *,
    leave_out: Collection[str] = (),
    clean: Clean = str,
    limit_bytes: int = LIMIT_BYTES,
) -> tuple[int, str]:
    """Pack files, and the logs in directories, below a directory `top`; size and adler32.

    Left out are names in `leave_out` (inputs and outputs, also with a range id behind), ROOT files,
    programs, cores, links and what is no text. `clean` gets the text block by block, each of whole
    lines. Sources come in the given order until there are `limit_bytes`; of a file that is longer
    than what is left, head and tail; of a line that is too long to be cleaned as a whole, its
    beginning. What grows or goes away meanwhile is packed as far as it is there.
    LocalError: this disk.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with tarfile.open(temporary, "w:gz", compresslevel=5) as tar:
            logs = _Logs(tar, clean, limit_bytes, scratch=target.parent)
            for source in sources:
                logs.add(source, f"{top}/{source.name}")
                for path in _walk(source, lambda name: is_log(name, leave_out)):
                    logs.add(path, f"{top}/{source.name}/{path.relative_to(source)}")
        temporary.replace(target)
        return _sum_up(target)
    except OSError as error:
        raise LocalError(f"cannot write the log archive {target}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_log(name: str, leave_out: Collection[str] = ()) -> bool:
    """Whether a file of this name belongs into a log archive."""
    root_file = ".root" in name or name.startswith("core.") or name == "core"
    of_range = any(name.startswith(f"{each}.") and _RANGE_ID.search(name) for each in leave_out)
    return not (name in leave_out or of_range or root_file or name.endswith(_NOT_LOGS))


def _walk(directory: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    for parent, names in walk_files(directory):
        for name in names:
            if wanted(name):
                yield Path(parent, name)


class _Logs:
    """Adds files to a tar, up to a number of bytes. `scratch` is a directory for one at a time."""

    def __init__(
        self, tar: tarfile.TarFile, clean: Clean, limit_bytes: int, *, scratch: Path
    ) -> None:
        self._tar = tar
        self._clean = clean
        self._scratch = scratch
        self._left_bytes = limit_bytes
        self._left_files = _MOST_FILES

    def add(self, path: Path, name: str) -> None:
        """Add one regular file of text; one that cannot be read is passed over."""
        if self._left_bytes <= 0 or self._left_files <= 0:
            return
        try:
            file = open_regular(path)
        except OSError:
            return
        with file:
            if _is_text(file):
                self._left_files -= 1
                self._add_text(file, tarfile.TarInfo(name), os.fstat(file.fileno()))

    def _add_text(self, file: IO[bytes], info: tarfile.TarInfo, status: os.stat_result) -> None:
        with tempfile.TemporaryFile(dir=self._scratch) as cleaned:
            for piece in self._pieces(file, status.st_size):
                for block in _blocks(piece):
                    cleaned.write(self._clean(block.decode("utf-8", "replace")).encode())
            info.size, info.mtime = cleaned.tell(), int(status.st_mtime)
            cleaned.seek(0)
            self._tar.addfile(info, cleaned)

    def _pieces(self, file: IO[bytes], size_bytes: int) -> Iterator[Iterator[bytes]]:
        """The lines of a file, or of its head and tail."""
        room_bytes = self._left_bytes
        if size_bytes <= room_bytes:
            yield self._lines(file, size_bytes)
            return
        head_bytes = min(HEAD_BYTES, room_bytes // 4)
        tail_bytes = room_bytes - head_bytes
        yield (line for line in self._lines(file, head_bytes) if line.endswith(b"\n"))
        yield iter([f"\n... {size_bytes - room_bytes} bytes left out ...\n".encode()])
        file.seek(size_bytes - tail_bytes)
        # A line that begins in the gap may be half a secret, which no rule would know.
        file.readline(tail_bytes)
        yield self._lines(file, size_bytes - file.tell())
        self._left_bytes = 0

    def _lines(self, file: IO[bytes], size_bytes: int) -> Iterator[bytes]:
        """Lines up to a number of bytes in all, the last may end anywhere. Of one that cannot be
        cleaned as a whole the rest is left out: a secret across a cut would not be known."""
        while size_bytes > 0 and (line := file.readline(min(size_bytes, _HELD_BYTES))):
            size_bytes -= len(line)
            self._left_bytes -= len(line)
            left_out = self._skip_line(file, size_bytes) if len(line) == _HELD_BYTES else 0
            size_bytes -= left_out
            yield _cut(line) if left_out else line

    def _skip_line(self, file: IO[bytes], size_bytes: int) -> int:
        """Go on behind a line of which a part was read; how many bytes that are."""
        part, skipped = b"", 0
        while not part.endswith(b"\n") and skipped < size_bytes:
            part = file.readline(min(size_bytes - skipped, _HELD_BYTES))
            if not part:
                break
            skipped += len(part)
        self._left_bytes -= skipped
        return skipped


def _cut(part: bytes) -> bytes:
    """The whole words of the first part of a line, and that there was more."""
    words = part.rsplit(None, 1)
    return (words[0] if len(words) > 1 else b"") + b" ... the rest of this line left out ...\n"


def _is_text(file: IO[bytes]) -> bool:
    is_text = b"\0" not in file.read(_SNIFFED_BYTES)
    file.seek(0)
    return is_text


def _blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Lines in blocks; one that holds the beginning of a key also holds its end."""
    block, size_bytes, inside = [], 0, False
    for line in lines:
        block.append(line)
        size_bytes += len(line)
        inside = (inside or _BEGIN in line) and _END not in line
        if size_bytes >= (_HELD_BYTES if inside else BLOCK_BYTES):
            yield b"".join(block)
            block, size_bytes = [], 0
    yield b"".join(block)


def _sum_up(path: Path) -> tuple[int, str]:
    size_bytes, adler = 0, 1
    with path.open("rb") as file:
        while piece := file.read(2**20):
            adler = zlib.adler32(piece, adler)
            size_bytes += len(piece)
    return size_bytes, f"{adler:08x}"
