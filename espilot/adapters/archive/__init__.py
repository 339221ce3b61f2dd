"""Sealed archives: a tar of outputs and its manifest, written once, verified, never repacked."""

from espilot.adapters.archive.manifest import (
    Manifest,
    PackedRange,
    manifest_path,
    read_manifest,
    remove_debris,
    verify,
)
from espilot.adapters.archive.names import archive_name, member_names
from espilot.adapters.archive.sealing import Member, Sealed, member_of, seal
from espilot.adapters.archive.tar import PackedFile
from espilot.adapters.archive.unpack import Allowance, unpack

__all__ = [
    "Allowance",
    "Manifest",
    "Member",
    "PackedFile",
    "PackedRange",
    "Sealed",
    "archive_name",
    "manifest_path",
    "member_names",
    "member_of",
    "read_manifest",
    "remove_debris",
    "seal",
    "unpack",
    "verify",
]
