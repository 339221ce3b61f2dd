"""Storage elements, one module per kind; `open_endpoint` finds the kind in the URL.

A package of somebody else adds a kind by an entry point of the group `espilot.storage`: its name is
the scheme of the URL, its object takes an `Endpoint` and gives a `ports.Storage`. What a storage
must do is in `contract.py`, as checks that run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from espilot.adapters.storage.endpoint import Endpoint, TransferLimits
from espilot.adapters.storage.posix import PosixStorage
from espilot.errors import ConfigError
from espilot.ports import Storage

__all__ = [
    "PLUGIN_GROUP",
    "Endpoint",
    "TransferLimits",
    "has_scheme",
    "open_endpoint",
    "open_storage",
]

PLUGIN_GROUP = "espilot.storage"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SUPPORTED = (
    "a directory, file:///DIRECTORY, s3://BUCKET/PREFIX, davs://HOST/PATH, root://HOST//PATH"
)


def open_storage(url: str, *, storage_id: int = 1) -> Storage:
    """Make the storage at `url`, with everything else as by default."""
    return open_endpoint(Endpoint(url, storage_id))


def has_scheme(url: str) -> bool:
    """Whether this is a URL of some kind; else it is a directory."""
    return _SCHEME.match(url) is not None


def open_endpoint(endpoint: Endpoint) -> Storage:
    """Make the storage that `endpoint.url` (a directory or a URL) names; ConfigError if none can.

    Nothing is reached yet. A relative directory counts from the current one. The text of an error
    never repeats what may be a secret.
    """
    scheme = _SCHEME.match(endpoint.url)
    kind = _KINDS.get(scheme[1].lower() if scheme else "")
    if kind is not None:
        return kind(endpoint)
    assert scheme is not None
    return _open_plugin(scheme[1].lower(), endpoint)


def _open_plugin(scheme: str, endpoint: Endpoint) -> Storage:
    """Let a plug-in make the storage."""
    for entry in entry_points(group=PLUGIN_GROUP, name=scheme):
        try:
            factory = entry.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"storage: the plug-in {entry.value} for {scheme}: cannot be imported: {error}"
            ) from error
        storage: Storage = factory(endpoint)
        return storage
    plugins = ", ".join(sorted({f"{entry.name}:" for entry in entry_points(group=PLUGIN_GROUP)}))
    raise ConfigError(
        f"storage: unknown kind {scheme!r}; supported: {_SUPPORTED}, "
        f"and what plug-ins add ({plugins or 'none is installed'})"
    )


def _open_directory(endpoint: Endpoint) -> Storage:
    return _open_posix(_directory(endpoint.url), endpoint)


def _open_file_url(endpoint: Endpoint) -> Storage:
    return _open_posix(_file_url_directory(endpoint.url), endpoint)


def _open_posix(directory: Path, endpoint: Endpoint) -> Storage:
    if endpoint.scope:
        raise ConfigError("scope: a directory has none; it is for s3, davs and root")
    return PosixStorage(
        directory,
        endpoint.storage_id,
        group_readable=endpoint.group_readable,
        limits=endpoint.limits,
    )


def _open_members(endpoint: Endpoint) -> Storage:
    from espilot.adapters.storage.members import MemberStorage

    directory = _directory(endpoint.url.partition(":")[2])
    return MemberStorage(directory, endpoint.storage_id, limits=endpoint.limits)


def _open_s3(endpoint: Endpoint) -> Storage:
    if endpoint.signer:
        from espilot.adapters.storage.presigned import PresignedStorage

        return PresignedStorage(endpoint)
    from espilot.adapters.storage.s3 import S3Storage

    return S3Storage(endpoint)


def _open_webdav(endpoint: Endpoint) -> Storage:
    from espilot.adapters.storage.webdav import WebdavStorage

    return WebdavStorage(endpoint)


def _open_xrootd(endpoint: Endpoint) -> Storage:
    from espilot.adapters.storage.xrootd import XrootdStorage

    return XrootdStorage(endpoint)


_KINDS: Mapping[str, Callable[[Endpoint], Storage]] = MappingProxyType(
    {
        "": _open_directory,
        "file": _open_file_url,
        "members": _open_members,
        "s3": _open_s3,
        "davs": _open_webdav,
        "dav": _open_webdav,
        "https": _open_webdav,
        "http": _open_webdav,
        "root": _open_xrootd,
        "roots": _open_xrootd,
        "xroot": _open_xrootd,
    }
)


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
