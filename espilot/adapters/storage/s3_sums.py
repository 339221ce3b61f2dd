"""Checksums that a store compares on arrival and tells afterwards."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from isal.isal_zlib import crc32


class Crc32:
    """CRC32 of the parts; that of several parts is the CRC32 of theirs, with their number."""

    __slots__ = ("_digests",)

    def __init__(self) -> None:
        self._digests: list[bytes] = []

    @property
    def parts(self) -> int:
        """How many were added."""
        return len(self._digests)

    def add(self, data: bytes | memoryview) -> dict[str, str]:
        """Take the next part; returns the argument that its upload needs."""
        return self._append(crc32(data).to_bytes(4, "big"))

    def add_known(self, digest: str) -> dict[str, str]:
        """Take the next part by its CRC32 in hex digits."""
        return self._append(bytes.fromhex(digest))

    def _append(self, digest: bytes) -> dict[str, str]:
        self._digests.append(digest)
        return {"ChecksumCRC32": _base64(digest)}

    def agree(self, answer: Mapping[str, Any]) -> bool:
        """Whether this is what the store says it has."""
        if len(self._digests) == 1 and answer.get("ChecksumCRC32") == _base64(self._digests[0]):
            return True
        whole = crc32(b"".join(self._digests)).to_bytes(4, "big")
        return bool(answer.get("ChecksumCRC32") == f"{_base64(whole)}-{len(self._digests)}")


class Md5:
    """MD5 of the parts; the ETag of several is the MD5 of theirs, with their number."""

    __slots__ = ("_digests",)

    def __init__(self) -> None:
        self._digests: list[bytes] = []

    @property
    def parts(self) -> int:
        """How many were added."""
        return len(self._digests)

    def add(self, data: bytes | memoryview) -> dict[str, str]:
        """Take the next part; returns the argument that its upload needs."""
        self._digests.append(_md5(data))
        return {"ContentMD5": _base64(self._digests[-1])}

    def agree(self, answer: Mapping[str, Any]) -> bool:
        """Whether this is what the store says it has."""
        etag = str(answer.get("ETag", "")).strip('"').lower()
        if len(self._digests) == 1 and etag == self._digests[0].hex():
            return True
        whole = _md5(b"".join(self._digests)).hex()
        return etag == f"{whole}-{len(self._digests)}"


def sums_of(algorithm: str) -> Crc32 | Md5:
    """The checksums of an upload in parts for which the store has announced this algorithm."""
    return Crc32() if algorithm == "CRC32" else Md5()


def _md5(data: bytes | memoryview) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
