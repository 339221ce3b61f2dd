"""What this process has, to see what a test leaves behind."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

PATIENCE_S = 5.0
"""How long what a test has ended may take to be gone."""
LOOK_EVERY_S, REMEMBERED_S = 5.0, 120.0
SOCKET_PATTERNS = ("zmq_*", "espilot-*")


@dataclass(frozen=True)
class Belongings:
    """What this process has, each under a name for people."""

    fds: frozenset[str]
    threads: frozenset[str]
    children: frozenset[str]
    sockets: frozenset[str]

    def beyond(self, former: Belongings) -> list[str]:
        """What is here and was not before."""
        return [
            f"{kind} {name}"
            for kind, mine, theirs in (
                ("descriptor", self.fds, former.fds),
                ("thread", self.threads, former.threads),
                ("child", self.children, former.children),
                ("socket file", self.sockets, former.sockets),
            )
            for name in sorted(mine - theirs)
        ]


def belongings() -> Belongings:
    """What this process has now."""
    NEIGHBOURS.look()
    return Belongings(
        fds=frozenset(_descriptors()),
        threads=frozenset(f"{t.name} ({t.ident})" for t in threading.enumerate()),
        children=frozenset(_children()),
        sockets=frozenset(_socket_files()),
    )


def _descriptors() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists is closed by now
            yield f"{name} -> {os.readlink(f'/proc/self/fd/{name}')}"


def _children() -> Iterator[str]:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            yield f"{child.pid} {child.name()}"


def _socket_files() -> Iterator[str]:
    """Socket files in /tmp that this process listens on, or nobody does."""
    paths = [str(path) for pattern in SOCKET_PATTERNS for path in Path("/tmp").glob(pattern)]
    held = set(_descriptors_of_sockets())
    for path in paths:
        inodes = _inodes_of(path)
        if held & inodes or not inodes:
            yield path


def _descriptors_of_sockets() -> Iterator[str]:
    for entry in _descriptors():
        if "socket:[" in entry:
            yield entry.partition("socket:[")[2].rstrip("]")


def _inodes_of(path: str) -> set[str]:
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return {row[6] for row in rows if row[-1] == path}


def leaks(former: Belongings, *, patience_s: float = PATIENCE_S) -> list[str]:
    """What is new since `former` and does not go away within the patience."""
    deadline = time.monotonic() + patience_s
    found = _new_since(former)
    while found and time.monotonic() < deadline:
        gc.collect()
        threading.Event().wait(0.02)
        found = _new_since(former)
    return found


def _new_since(former: Belongings) -> list[str]:
    found = belongings().beyond(former)
    files = [name for name in found if name.startswith("socket file")]
    if not files or not _others_run():
        return found
    # Somebody else's tests on this machine leave socket files for a while: not ours to judge.
    mine = {f"socket file {path}" for path in _socket_files() if _inodes_of(path)}
    return [name for name in found if name not in files or name in mine]


def _others_run() -> bool:
    """Whether somebody else works with espilot on this machine, or did a short while ago."""
    return "PYTEST_XDIST_WORKER" in os.environ or NEIGHBOURS.were_here()


class Neighbours:
    """Processes outside this test run that work with espilot, looked for every few seconds."""

    def __init__(self) -> None:
        self._looked = self._seen = -math.inf

    def look(self) -> None:
        """Look around, if the last time is long enough ago."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        here = psutil.Process()
        family = {here.pid, *(p.pid for p in (*here.parents(), *here.children(recursive=True)))}
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            foreign = process.info["pid"] not in family
            if foreign and any(word in words for word in ("pytest", "espilot", "bench")):
                self._seen = now

    def were_here(self) -> bool:
        """Whether one was seen not long ago."""
        self.look()
        return time.monotonic() - self._seen < REMEMBERED_S


NEIGHBOURS = Neighbours()
