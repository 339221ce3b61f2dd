"""The manifest beside an archive, and what it is good for: finding out what is left after a crash.

A pair `NAME` and `NAME.json` is complete when `NAME` exists. Whatever carries a temporary name, or
belongs to no transaction of the queue, is debris.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espilot.adapters.archive.tar import PackedFile, checksum
from espilot.errors import LocalError

MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class PackedRange:
    """One range in an archive, with its files in order and its number of events."""

    id: str
    members: tuple[PackedFile, ...]
    events: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in an archive, and what its tar must look like."""

    job_id: int
    name: str
    size_bytes: int
    adler32: str
    events: int
    ranges: tuple[PackedRange, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ranges in member order."""
        return tuple(row.id for row in self.ranges)


def manifest_path(path: Path) -> Path:
    """Tell where the manifest of the tar `path` is."""
    return path.with_name(f"{path.name}.json")


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the tar `path`; LocalError if there is no usable one."""
    try:
        manifest = _parse_manifest(json.loads(manifest_path(path).read_bytes()))
    except OSError as error:
        raise LocalError(f"manifest of {path.name}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LocalError(f"manifest of {path.name}: not a manifest: {str(error)!a}") from error
    if manifest.name != path.name:
        raise LocalError(f"manifest of {path.name}: belongs to {manifest.name!a}")
    return manifest


def verify(path: Path) -> Manifest:
    """Read tar and manifest again and compare sizes, adler32 and names; LocalError if they differ.

    The adler32 of the tar covers every member, so each byte is read once.
    """
    manifest = read_manifest(path)
    try:
        with path.open("rb", buffering=0) as file:
            found = checksum(file.fileno())
            if found != (manifest.size_bytes, manifest.adler32):
                raise LocalError(
                    f"archive {path.name}: {found[0]} bytes with adler32 {found[1]} instead of "
                    f"{manifest.size_bytes} bytes with {manifest.adler32}"
                )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                listed = [(entry.name, entry.size) for entry in tar]
    except (OSError, tarfile.TarError) as error:
        raise LocalError(f"archive {path.name}: cannot be read: {error}") from error
    named = [(file.name, file.size_bytes) for row in manifest.ranges for file in row.members]
    if listed != named:
        raise LocalError(f"archive {path.name}: the members are not those of its manifest")
    return manifest


def remove_debris(directory: Path, known: Collection[str]) -> tuple[str, ...]:
    """Remove temporaries, and tars and manifests that are not `known`; return their names.

    `known` are the archive names of the queue's transactions. Other files are left alone.
    """
    removed = []
    try:
        if not directory.is_dir():
            return ()
        for path in sorted(directory.iterdir()):
            if _is_debris(path.name, known) and (path.is_file() or path.is_symlink()):
                path.unlink(missing_ok=True)
                removed.append(path.name)
    except OSError as error:
        raise LocalError(f"cannot clean {directory}: {error.strerror}") from error
    return tuple(removed)


def format_manifest(manifest: Manifest) -> bytes:
    """Write the manifest as one JSON object."""
    document = {
        "version": MANIFEST_VERSION,
        "job_id": manifest.job_id,
        "name": manifest.name,
        "size_bytes": manifest.size_bytes,
        "adler32": manifest.adler32,
        "events": manifest.events,
        "ranges": [
            {
                "id": row.id,
                "events": row.events,
                "members": [_format_file(file) for file in row.members],
            }
            for row in manifest.ranges
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _parse_manifest(document: Any) -> Manifest:
    """Read the JSON object; ValueError, KeyError or TypeError if it is not as we write it."""
    if document["version"] != MANIFEST_VERSION:
        raise ValueError(f"version {document['version']}")
    ranges = tuple(
        PackedRange(
            _text(row, "id"),
            tuple(_parse_file(file) for file in row["members"]),
            _number(row, "events"),
        )
        for row in document["ranges"]
    )
    return Manifest(
        _number(document, "job_id"),
        _text(document, "name"),
        _number(document, "size_bytes"),
        _text(document, "adler32"),
        _number(document, "events"),
        ranges,
    )


def _format_file(file: PackedFile) -> dict[str, Any]:
    return {"name": file.name, "size_bytes": file.size_bytes, "adler32": file.adler32}


def _parse_file(row: Any) -> PackedFile:
    return PackedFile(_text(row, "name"), _number(row, "size_bytes"), _text(row, "adler32"))


def _text(row: Any, key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is no text")
    return value


def _number(row: Any, key: str) -> int:
    value = row[key]
    if not isinstance(value, int):
        raise TypeError(f"{key} is no number")
    return value


def _is_debris(name: str, known: Collection[str]) -> bool:
    """Tell whether a file name is ours and stands for nothing."""
    if name.startswith(".") and name.endswith(".tmp"):
        return True
    tar_name = name.removesuffix(".json")
    return tar_name.endswith(".tar") and tar_name not in known
