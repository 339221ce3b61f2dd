"""Put, take and finish of ranges across two processes: the queue against bare py-lmdb.

Both sides do the same moves with the same rows and keys; the bare one has no classes and checks no
state. The producer tells the consumer of its commits over a pipe, so that neither spins.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.bare_queue import BareQueue
from bench.children import ROOT, RUN_S, BenchError, last_json, scratch
from bench.rows import Emit, compare, rounds

CASES = {"one by one": (1, 10_000), "groups of 50": (50, 30_000)}
TINY_RANGES = 100
ROUNDS = 5
BUDGET_S = 8.0


def run(emit: Emit, *, tiny: bool) -> None:
    """Measure both cases."""
    for case, (group, full) in CASES.items():
        count = TINY_RANGES if tiny else full
        pairs = [
            (measure("real", group, count), measure("bare", group, count))
            for _ in rounds(1 if tiny else ROUNDS, BUDGET_S)
        ]
        emit(compare("queue", case, "cycles/s", pairs, rounds=len(pairs)))


def measure(kind: str, group: int, count: int) -> float:
    """Cycles per second from the first put to the last finish."""
    # The environment is open here meanwhile, as it is in the supervisor before any role starts.
    with scratch() as root, closing(BareQueue(root / "queue")):
        read_fd, write_fd = os.pipe()
        consumer = start(kind, "consumer", root, group, count, read_fd)
        producer = start(kind, "producer", root, group, count, write_fd)
        os.close(read_fd)
        os.close(write_fd)
        begun, ended = hear(producer), hear(consumer)
        return count / (float(ended["last"]) - float(begun["first"]))


def start(
    kind: str, part: str, root: Path, group: int, count: int, fd: int
) -> subprocess.Popen[str]:  # fmt: skip
    """Start one of the two processes."""
    argv = [sys.executable, "-m", "bench.queue_part", kind, part, str(root / "queue")]
    argv += [str(group), str(count), str(fd)]
    return subprocess.Popen(argv, cwd=ROOT, pass_fds=(fd,), stdout=subprocess.PIPE, text=True)


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for its end; what it said."""
    try:
        output, _ = process.communicate(timeout=RUN_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise BenchError(f"a part of the queue bench ended with exit code {process.returncode}")
    return last_json(output)
