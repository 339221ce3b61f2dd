"""A directory of this machine that keeps inputs for later jobs.

Files have the name of their content (adler32, size and a digest of their LFN), so that an input
with other content is another file. A copy is verified each time it is used: a cache may rot, and
others of the same user may write there. Several pilots may use one cache at the same time: files
come by rename, and one that vanishes meanwhile was just not there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import time
import zlib
from contextlib import suppress
from pathlib import Path

from espilot.foreign_files import open_regular

_CHUNK_BYTES = 2**20
_DEBRIS_S = 86400.0
"""A temporary file of this age belongs to nobody any more."""
_ENTRY = r"[0-9a-f]{16}-[0-9]+-[0-9a-f]{8}"
_OWN = re.compile(rf"{_ENTRY}|\.{_ENTRY}\.[0-9]+")
"""The names of our files: of kept ones, and of temporary ones."""


class InputCache:
    """Inputs by LFN, size and adler32, within a number of bytes. Errors of the cache cost time and
    nothing else: what cannot be read or kept is fetched."""

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes

    def take(self, lfn: str, target: Path, *, size_bytes: int, adler32: str) -> bool:
        """Copy an input to `target`, verified; False when it is not here."""
        path = self._path(lfn, size_bytes, adler32)
        temporary = target.with_name(f".{target.name}.part")
        try:
            found = _copy(path, temporary)
            if found == (size_bytes, adler32):
                os.utime(path)
                temporary.replace(target)
                return True
            path.unlink(missing_ok=True)
        except OSError:
            return False
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return False

    def keep(self, lfn: str, source: Path, *, size_bytes: int, adler32: str) -> bool:
        """Keep a copy of a verified input, and let the oldest go; False when that cannot be."""
        if size_bytes > self._most_bytes:
            return False
        path = self._path(lfn, size_bytes, adler32)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(size_bytes)
            if shutil.disk_usage(self._directory).free < 2 * size_bytes:
                return False
            if _copy(source, temporary) == (size_bytes, adler32):
                temporary.replace(path)
                return True
        except OSError:
            return False
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return False

    def _path(self, lfn: str, size_bytes: int, adler32: str) -> Path:
        digest = hashlib.sha256(lfn.encode()).hexdigest()[:16]
        return self._directory / f"{digest}-{size_bytes}-{adler32}"

    def _make_room(self, size_bytes: int) -> None:
        """Remove what was used least lately, and old debris; others may have files here."""
        kept = []
        for path in self._directory.iterdir():
            if not _OWN.fullmatch(path.name):
                continue
            with suppress(FileNotFoundError):
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    continue
                if not path.name.startswith("."):
                    kept.append((status.st_mtime, status.st_size, path))
                elif status.st_mtime < time.time() - _DEBRIS_S:
                    path.unlink()
        held_bytes = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if held_bytes + size_bytes <= self._most_bytes:
                return
            path.unlink(missing_ok=True)
            held_bytes -= size


def _copy(source: Path, target: Path) -> tuple[int, str]:
    """Copy a plain file; size and adler32 of what was copied."""
    with open_regular(source) as file:
        target.unlink(missing_ok=True)
        size_bytes, adler = 0, 1
        with target.open("xb") as copy:
            while piece := file.read(_CHUNK_BYTES):
                adler = zlib.adler32(piece, adler)
                size_bytes += copy.write(piece)
    return size_bytes, f"{adler:08x}"
