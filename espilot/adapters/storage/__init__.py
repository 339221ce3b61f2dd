"""Storage elements, one module per kind; `open_storage` finds the kind in the URL."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from espilot.adapters.storage.posix import PosixStorage
from espilot.errors import ConfigError
from espilot.ports import Storage

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SUPPORTED = "a directory, or file:///DIRECTORY"


def open_storage(url: str, *, storage_id: int = 1) -> Storage:
    """Make the storage that `url` (a directory or a `file:` URL) names; ConfigError if none can.

    A relative directory counts from the current one. The text of an error never repeats what may
    be a secret.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        return PosixStorage(_directory(url), storage_id)
    if scheme[1].lower() != "file":
        raise ConfigError(f"storage: unknown kind {scheme[1]!r}; supported: {_SUPPORTED}")
    return PosixStorage(_file_url_directory(url), storage_id)


def _file_url_directory(url: str) -> Path:
    """Read the directory out of a `file:` URL of this machine."""
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except ValueError as error:
        raise ConfigError(f"storage: not a usable file URL; supported: {_SUPPORTED}") from error
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise ConfigError(f"storage: a file URL names a local directory only: {_SUPPORTED}")
    if not path.startswith("/"):
        raise ConfigError(f"storage: a file URL needs an absolute directory: {_SUPPORTED}")
    return _directory(path)


def _directory(text: str) -> Path:
    """Make an absolute path of a directory's name."""
    if not text or "\0" in text or "\n" in text:
        raise ConfigError(f"storage: no usable directory name; supported: {_SUPPORTED}")
    return Path(text).absolute()
