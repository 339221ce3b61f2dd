"""Certificate authorities that a setting names: a file, or a directory as grid sites have."""

from __future__ import annotations

import os
import re
import weakref
from pathlib import Path

from espilot.errors import StorageFatal

_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""A certificate's name in such a directory; other files there are no certificates."""
_LARGEST_BYTES = 2**20


def require_authorities(path: str) -> None:
    """Require that the file or directory can be read; an empty path stands for the system's."""
    if path and not os.access(path, os.R_OK):
        raise StorageFatal(
            f"ca_file: {path} cannot be read; name a file or directory of certificate authorities"
        )


class Bundle:
    """Authorities as one file, for a library that takes no directory; it lives in memory only."""

    def __init__(self, path: str) -> None:
        require_authorities(path)
        self.path = path
        """Path of the file, in this process, until `close`."""
        self._closing: weakref.finalize[..., Bundle] | None = None
        if path and Path(path).is_dir():
            data = _join(Path(path))
            fd = os.memfd_create("authorities")
            # One that is forgotten, as when credentials were renewed, goes with its owner.
            self._closing = weakref.finalize(self, os.close, fd)
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            self.path = f"/proc/self/fd/{fd}"

    def close(self) -> None:
        """Give up the memory."""
        if self._closing is not None:
            self._closing()


def _join(directory: Path) -> bytes:
    """All certificates of a directory."""
    texts = []
    try:
        for path in sorted(directory.iterdir()):
            if _HASHED.fullmatch(path.name) and path.stat().st_size <= _LARGEST_BYTES:
                texts.append(path.read_bytes())
    except OSError as error:
        raise StorageFatal(f"ca_file: cannot read {directory}: {error.strerror}") from error
    if not texts:
        raise StorageFatal(
            f"ca_file: {directory} has no file named HASH.0; openssl rehash {directory} makes it"
        )
    return b"\n".join(texts)
