"""How fast outputs are packed, against a bare copy of the same bytes in the same run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.children import scratch
from bench.rows import Emit, Row, compare, make_row
from espilot.adapters.archive import Member, archive_name, member_names, seal
from espilot.adapters.outputs import OutputInspector
from espilot.model import Output

_CASES = (("2000 x 50 KiB", 2000, 50 * 2**10), ("50 x 5 MiB", 50, 5 * 2**20))
_ROUNDS = 5
_BUFFER_BYTES = 4 * 2**20
_MB = 1e6


def run(emit: Emit, *, tiny: bool) -> None:
    """Measure each case and emit one row per case."""
    for case, count, size_bytes in _CASES:
        with scratch() as root:
            emit(_measure(case, root, 5 if tiny else count, size_bytes))
    emit(_measure_inspection(100 if tiny else 20_000))


def _measure(case: str, root: Path, count: int, size_bytes: int) -> Row:
    """Seal and copy in turn."""
    outputs = root / "outputs"
    outputs.mkdir()
    inspector = OutputInspector(outputs, (), size_bytes)
    members = [_make_member(inspector, outputs, k, size_bytes) for k in range(count)]
    megabytes = count * size_bytes / _MB
    pairs = []
    for number in range(_ROUNDS):
        copy_s = _time_copy(members, root / "copy")
        seal_s = _time_seal(root, members, inspector, number)
        pairs.append((megabytes / seal_s, megabytes / copy_s))
    return compare("packing", case, "MB/s", pairs)


def _measure_inspection(count: int) -> Row:
    """Time the check of one reported output, the hot path of the dispatcher."""
    with scratch() as root:
        path = root / "output"
        path.write_bytes(b"x")
        inspector = OutputInspector(root, (root / "state", root / "storage"), 10)
        text = str(path)
        started = time.perf_counter()
        for _ in range(count):
            inspector.inspect(text)
        value = (time.perf_counter() - started) / count * 1e6
    return make_row("packing", "inspect", value, "us")


def _make_member(inspector: OutputInspector, directory: Path, k: int, size_bytes: int) -> Member:
    """Write one output of random bytes and describe it as the range that made it."""
    range_id = f"1234-5678-90123-{k}-1"
    path = directory / f"output-{k}"
    path.write_bytes(os.urandom(size_bytes))
    output = inspector.inspect(str(path))
    return Member(range_id, 1, member_names(("outputs.root",), range_id, 1), (output,))


def _time_seal(root: Path, members: list[Member], inspector: OutputInspector, number: int) -> float:
    """Seal once; return the seconds it took."""
    name = archive_name(number, members[0].range_id, time.time())
    started = time.perf_counter()
    sealed = seal(root, name, members, job_id=1, open_output=inspector.open_checked)
    elapsed_s = time.perf_counter() - started
    if sealed.archive is None or sealed.dropped:
        raise RuntimeError(f"the archive is not complete: {sealed.dropped[:1]}")
    (root / name).unlink()
    return elapsed_s


def _time_copy(members: list[Member], target: Path) -> float:
    """Copy all outputs into one file, synced; return the seconds it took."""
    view = memoryview(bytearray(_BUFFER_BYTES))
    started = time.perf_counter()
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for member in members:
        for output in member.outputs:
            _copy(output, fd, view)
    os.fsync(fd)
    os.close(fd)
    elapsed_s = time.perf_counter() - started
    target.unlink()
    return elapsed_s


def _copy(output: Output, fd: int, view: memoryview) -> None:
    """Append one output to an open file."""
    source = os.open(output.path, os.O_RDONLY)
    while count := os.readv(source, [view]):
        os.write(fd, view[:count])
    os.close(source)
