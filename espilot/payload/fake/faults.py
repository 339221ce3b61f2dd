"""What a payload can do wrong to the machine and to itself."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from espilot.payload.fake.options import Options

CHUNK_BYTES = 2**20
PAUSE_MS = 1
LONG_S = "3600"

GARBAGE_TEXT = (b"\xff\xfe\x00 no text", b"What is this?", b"", b"/a/path,without,an,id")
GARBAGE_NATIVE = (b"\x81", b"\x93\x01\x02\x03", b"\x81\xa1t\xa8nonsense", b"")
OVERSIZE_BYTES = 2 * 2**20
OUTSIDE_FILE = "/etc/passwd"
UNKNOWN_ID = "0-0-0-0-0"


def start_others(options: Options) -> None:
    """Start the orphans and the ordinary children. Call it before any socket exists."""
    for _ in range(options.orphans):
        _start_orphan()
    for _ in range(options.spawn):
        if os.fork() == 0:
            _become_sleeper()


def _start_orphan() -> None:
    """Fork twice into a new session, so that parent and process group know nothing of it."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            _become_sleeper()
        os._exit(0)
    os.waitpid(pid, 0)


def _become_sleeper() -> NoReturn:
    """Become a process that only sleeps and keeps nobody's pipe open."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.execvp("sleep", ["sleep", LONG_S])
    finally:
        os._exit(127)


def eat(options: Options) -> list[bytearray]:
    """Flood stdout, fill the disk and take memory, gradually; return what holds the memory."""
    for size_bytes in _chunks(options.flood_stdout):
        sys.stdout.write("x" * (size_bytes - 1) + "\n")
        sys.stdout.flush()
    if options.eat_disk:
        with Path(options.outdir, "eaten").open("wb") as file:
            for size_bytes in _chunks(options.eat_disk):
                file.write(b"\xaa" * size_bytes)
                file.flush()
    return [bytearray(b"\xaa") * size_bytes for size_bytes in _chunks(options.eat_memory)]


def _chunks(total_bytes: int) -> Iterator[int]:
    """Cut a size into chunks, a little time apart."""
    for start in range(0, total_bytes, CHUNK_BYTES):
        pass_time(PAUSE_MS)
        yield min(CHUNK_BYTES, total_bytes - start)


def hang() -> NoReturn:
    """Stop for ever without message or CPU use."""
    while True:
        signal.pause()


def crash(how: str) -> NoReturn:
    """End this process at once, with nothing flushed and no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if how.startswith("exit"):
        os._exit(int(how.removeprefix("exit")) & 0xFF)
    number = {"segv": signal.SIGSEGV, "abort": signal.SIGABRT, "kill": signal.SIGKILL}[how]
    os.kill(os.getpid(), number)
    hang()


def pass_time(milliseconds: float) -> None:
    """Be busy with an imagined event."""
    if milliseconds > 0:
        time.sleep(milliseconds / 1000)
