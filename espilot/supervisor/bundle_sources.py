"""What a support bundle asks of others: the queue, the control group, the machine's journal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from espilot.adapters.cgroup import own_group
from espilot.errors import EspilotError
from espilot.queue.reading import QueueReader

MOST_RANGES = 20_000
MOST_JOURNAL_LINES = 5_000
JOURNAL_S = 20.0
FIGURES = (
    "memory.current", "memory.peak", "memory.high", "memory.max", "memory.swap.current",
    "memory.events", "memory.pressure", "memory.stat", "pids.current", "pids.max", "pids.events",
    "cpu.stat", "cpu.max", "cpu.pressure", "io.stat", "io.pressure", "cgroup.controllers",
    "cgroup.events",
)  # fmt: skip
"""Files of a group of version 2."""
_FIGURE_BYTES = 8192


def queue_lines(state: Path) -> Iterator[str]:
    """A JSON line for each range and archive in the queue, or one with `error`."""
    try:
        with closing(QueueReader(state / "queue")) as queue:
            for at, range_id in enumerate(queue.all_ids()):
                if at >= MOST_RANGES:
                    yield json.dumps({"more": True}) + "\n"
                    break
                found = queue.find(range_id)
                if found is not None:
                    outputs = [each._asdict() for each in found.outputs]
                    told = {**asdict(found), "range": found.range._asdict(), "outputs": outputs}
                    yield json.dumps({"range": told}, default=str) + "\n"
            for archive in queue.archives():
                yield json.dumps({"archive": asdict(archive)}, default=str) + "\n"
    except EspilotError as error:
        yield json.dumps({"error": str(error)}) + "\n"


def group_text(pid: int | None) -> str:
    """The figures of the control group of a process (of our own without one) and of those above it;
    "" without version 2."""
    membership = Path(f"/proc/{pid or os.getpid()}/cgroup")
    group = own_group(_head(membership))
    if group is None or not (group / "cgroup.controllers").is_file():
        return ""
    lines = []
    for each in (group, *group.parents):
        if not (each / "cgroup.controllers").is_file():
            break
        lines.append(f"== {each}\n")
        lines += [f"{name}: {text.rstrip()}\n" for name in FIGURES if (text := _head(each / name))]
    return "".join(lines)


def journal_text(run: Mapping[str, Any]) -> str:
    """What the machine's journal has of a service since its run began, and what the service manager
    said of its unit; "" where there is no journal, or it may not be read."""
    identifier, began = run.get("journal"), run.get("began")
    program = shutil.which("journalctl")
    if not isinstance(identifier, str) or not identifier or program is None:
        return ""
    since = float(began) if isinstance(began, int | float) else 0.0
    unit = f"espilot@{identifier.removeprefix('espilot-')}.service"
    argv = [program, "--quiet", "--no-pager", "--output=short-iso-precise",
            f"--lines={MOST_JOURNAL_LINES}", f"--since=@{int(since)}",
            f"SYSLOG_IDENTIFIER={identifier}", "+", f"UNIT={unit}"]  # fmt: skip
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=JOURNAL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"journalctl did not answer: {type(error).__name__}, {time.ctime()}\n"
    return done.stdout.decode(errors="replace")


def _head(path: Path) -> str:
    """The beginning of a file of the kernel; "" when it is not there."""
    try:
        with path.open("rb") as file:
            return file.read(_FIGURE_BYTES).decode(errors="replace")
    except OSError:
        return ""
