"""A whole pilot with the fake payload, for the length of a block."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.children import END_S, ROOT

JOB = """\
[task]
name = "bench"
events = {events}
outputs = ["output"]

[payload]
command = "{{python}} {fake} --prefix output --clients {clients} {options}"
cores = {clients}
term_grace_s = 2.0
"""


def write_job(path: Path, *, events: int, clients: int, options: str) -> None:
    """A job file: one event per range, the fake payload as the payload."""
    fake = ROOT / "bin" / "fake-payload"
    path.write_text(JOB.format(events=events, clients=clients, options=options, fake=fake))


@contextmanager
def pilot(job: Path, workdir: Path) -> Iterator[subprocess.Popen[str]]:
    """`espilot run --local JOB --json`; ended in good order if it still runs after the block."""
    argv = [sys.executable, str(ROOT / "bin" / "espilot"), "run", "--local", str(job)]
    argv += ["--workdir", str(workdir), "--json"]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Ask it to drain, and again to end at once; kill it if it does not."""
    for _ in range(3):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                continue
    if process.poll() is None:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
