"""Sealing: outputs become an archive that is complete and on disk, or nothing.

Nothing here ever deletes or changes an output.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from espilot.adapters.archive.manifest import (
    Manifest,
    PackedRange,
    format_manifest,
    manifest_path,
)
from espilot.adapters.archive.names import (
    member_names,
    require_archive_name,
    require_member_name,
)
from espilot.adapters.archive.tar import PackedFile, TarWriter
from espilot.errors import LocalError, OutputError
from espilot.model import Archive, DoneRange, Output


@dataclass(frozen=True, slots=True)
class Member:
    """A range's part of an archive: its outputs, and under which names they go in."""

    range_id: str
    events: int
    names: tuple[str, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Sealed:
    """The result of sealing: the archive (None: no range was left), and what dropped out, why."""

    archive: Archive | None
    dropped: tuple[tuple[str, OutputError], ...] = ()


def member_of(done: DoneRange, output_lfns: Sequence[str]) -> Member:
    """Make the member of a done range; OutputError for an unusable name."""
    names = member_names(output_lfns, done.id, len(done.outputs))
    return Member(done.id, done.events, names, done.outputs)


def seal(
    directory: Path,
    name: str,
    members: Iterable[Member],
    *,
    job_id: int,
    open_output: Callable[[Output], int],
) -> Sealed:
    """Write the archive `name` and its manifest, complete and on disk, or nothing under that name.

    `open_output` opens an output as it was reported or raises OutputError; then, and when a file
    changes while it is copied, its whole range drops out. LocalError: this node cannot write.
    """
    require_archive_name(name)
    try:
        with _temporary(directory, name) as (fd, temporary):
            writer = TarWriter(fd)
            packing = _Packing(writer, open_output)
            for member in members:
                packing.add(member)
            if not packing.ranges:
                return Sealed(None, tuple(packing.dropped))
            size_bytes, adler32, crc32 = writer.finish()
            ranges = tuple(packing.ranges)
            manifest = Manifest(job_id, name, size_bytes, adler32, packing.events, ranges)
            _commit(directory, temporary, manifest)
    except OSError as error:
        raise LocalError(
            f"cannot write archive {name} in {directory}: {error.strerror}; "
            "free space there or choose another state directory"
        ) from error
    archive = Archive(name, manifest.ids, size_bytes, adler32, packing.events, crc32=crc32)
    return Sealed(archive, tuple(packing.dropped))


class _Packing:
    """One archive in the making: which ranges are in, which dropped out."""

    __slots__ = ("_open_output", "_taken", "_writer", "dropped", "events", "ranges")

    def __init__(self, writer: TarWriter, open_output: Callable[[Output], int]) -> None:
        self._writer = writer
        self._open_output = open_output
        self._taken: set[str | tuple[int, int]] = set()
        self.ranges: list[PackedRange] = []
        self.dropped: list[tuple[str, OutputError]] = []
        self.events = 0

    def add(self, member: Member) -> None:
        """Append a range with all its files, or leave no trace of it but a reason."""
        mark = self._writer.mark()
        try:
            keys = self._require_new(member)
            pairs = zip(member.names, member.outputs, strict=True)
            files = tuple(self._add_file(name, output) for name, output in pairs)
        except OutputError as error:
            self._writer.step_back(mark)
            # A new error: the caught one keeps this frame, and so the buffer, alive.
            self.dropped.append((member.range_id, OutputError(str(error))))
            return
        self._taken |= keys
        self.ranges.append(PackedRange(member.range_id, files, member.events))
        self.events += member.events

    def _require_new(self, member: Member) -> set[str | tuple[int, int]]:
        """Require that neither a name nor a file of the range is in the archive already."""
        files = [(output.device, output.inode) for output in member.outputs]
        keys: list[str | tuple[int, int]] = [member.range_id, *member.names, *files]
        unique = set(keys)
        if len(unique) < len(keys) or not unique.isdisjoint(self._taken):
            raise OutputError(f"range {member.range_id!a}: a file or name of it comes twice")
        return unique

    def _add_file(self, name: str, output: Output) -> PackedFile:
        """Append one file, and require that it was still the same when the last byte was read."""
        require_member_name(name)
        fd = self._open_output(output)
        try:
            packed = self._writer.add(name, output, fd)
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if (status.st_size, status.st_mtime_ns) != (output.size_bytes, output.mtime_ns):
            raise OutputError(f"output {output.path!a}: changed while it was packed")
        return packed


@contextmanager
def _temporary(directory: Path, name: str) -> Iterator[tuple[int, Path]]:
    """Open a temporary file for `name`, and leave none behind whatever happens."""
    path = directory / f".{name}.tmp"
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o644)
    try:
        yield fd, path
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


def _commit(directory: Path, temporary: Path, manifest: Manifest) -> None:
    """Give manifest and tar their names.

    The manifest goes first: a tar under its final name then always has one, and a crash between
    the two renames leaves a manifest without a tar, which is debris. For the same reason a tar of
    an earlier try (debris too, as no transaction fixed its name) goes before its manifest does.
    A crash of the machine may undo one rename without the other; `verify` finds that.
    """
    target = directory / manifest.name
    final = manifest_path(target)
    try:
        target.unlink(missing_ok=True)
        with _temporary(directory, final.name) as (fd, path):
            with open(fd, "wb", closefd=False) as file:
                file.write(format_manifest(manifest))
            os.fsync(fd)
            path.rename(final)
        temporary.rename(target)
        _sync_directory(directory)
    except OSError:
        # The next try has another name, and would not overwrite them.
        target.unlink(missing_ok=True)
        final.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    """Make renames in `directory` last."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
