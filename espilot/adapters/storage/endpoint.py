"""What is told about a storage element: where it is, how it is reached, how long that may take."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from espilot.errors import ConfigError, StorageFatal

_SCOPE = re.compile(r"[A-Za-z0-9_-]{1,60}(?:\.[A-Za-z0-9_-]{1,60}){0,9}")
NAME_BYTES = 240
"""Longest name of an object; leaves room for what a temporary name adds."""


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How long a transfer may take.

    In all: `base_s` and the time that its bytes take at `bytes_per_s`, at most `longest_s`. After
    `slow_after_s` it must have moved `slow_bytes_per_s` on average.
    """

    connect_s: float = 30.0
    idle_s: float = 60.0
    base_s: float = 400.0
    bytes_per_s: float = 1e6
    longest_s: float = 10800.0
    slow_after_s: float = 60.0
    slow_bytes_per_s: float = 20e3

    def total_s(self, size_bytes: int) -> float:
        """Longest duration of a transfer of this size."""
        return min(self.base_s + size_bytes / self.bytes_per_s, self.longest_s)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One storage element.

    With a `scope` files lie where Rucio looks for those of this scope; else all in one directory.

    `credentials` is the path of a file, `env:ACCESS,SECRET[,TOKEN]` with names of environment
    variables, `instance` or `instance:URL` for the rights of the machine, or empty for none.
    With a `signer` they are those for it, and it signs the addresses of an object store.
    """

    url: str
    storage_id: int = 1
    scope: str = ""
    endpoint_url: str = ""
    region: str = "us-east-1"
    signer: str = ""
    signer_keys: str = ""
    credentials: str = ""
    profile: str = "default"
    ca_file: str = ""
    proxy: str = ""
    group_readable: bool = False
    part_bytes: int = 32 * 2**20
    part_threads: int = 2
    limits: TransferLimits = field(default_factory=TransferLimits)


def check_scope(scope: str) -> None:
    """Refuse a scope that makes no path."""
    if scope and not _SCOPE.fullmatch(scope):
        raise ConfigError(f"scope: {scope!r:.60} is none; write words joined by dots")


def place_of(name: str, scope: str) -> str:
    """The path of a file below the storage's directory: SCOPE/ab/cd/NAME by the MD5 of SCOPE:NAME,
    with a slash for each dot of the scope, as Rucio's deterministic storages have it."""
    if not scope:
        return name
    digest = hashlib.md5(f"{scope}:{name}".encode(), usedforsecurity=False).hexdigest()
    return f"{scope.replace('.', '/')}/{digest[:2]}/{digest[2:4]}/{name}"


def require_name(name: str, url: str) -> None:
    """Require a flat, visible, printable name that every kind of storage takes."""
    flat = "/" not in name and "\\" not in name and not name.startswith(".") and name.isprintable()
    if not flat or not 0 < len(os.fsencode(name)) <= NAME_BYTES or PurePosixPath(name).name != name:
        raise StorageFatal(
            f"storage {url}: cannot use the name {ascii(name)[:80]}; it must be a flat "
            f"file name of at most {NAME_BYTES} bytes"
        )
