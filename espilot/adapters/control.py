"""The control plane: a ROUTER at the supervisor, a DEALER at each worker, and doorbells between.

All sockets are `ipc://` files in a runtime directory that only its owner may enter.
Messages are bytes here; `wire/envelope.py` says what they mean.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import zmq

from espilot.errors import LocalError

MAX_BYTES = 1 << 20
QUEUED = 1000
ROLES = ("event-server", "dispatcher", "stageout")
"""The roles that have a doorbell."""
PERSON = "people-"
"""How the names of those begin who ask for a person; the rest is random."""


class ControlRouter:
    """The supervisor's end. Roles are addressed by their name."""

    def __init__(self, runtime: Path) -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        # A restarted worker connects under its predecessor's name and takes over.
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(f"ipc://{runtime}/control")

    def receive(self) -> Iterator[tuple[str, bytes]]:
        """What waits: sender and message."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            yield frames[0].decode(errors="replace"), frames[-1]

    def send(self, role: str, message: bytes) -> bool:
        """Send without blocking; False when the role does not take it (it will say hello)."""
        try:
            self.socket.send_multipart((role.encode(), message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        """Close."""
        self.socket.close(linger=0)


class ControlLink:
    """A worker's end."""

    def __init__(self, runtime: Path, role: str) -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, role.encode())
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        self.socket.setsockopt(zmq.LINGER, 500)
        self.socket.connect(f"ipc://{runtime}/control")

    def receive(self) -> Iterator[bytes]:
        """What waits."""
        while True:
            try:
                yield self.socket.recv_multipart(zmq.NOBLOCK)[-1]
            except zmq.Again:
                return

    def send(self, message: bytes) -> None:
        """Send without blocking; with a full queue the supervisor is dead or stopped."""
        try:
            self.socket.send(message, zmq.NOBLOCK)
        except zmq.Again:
            return

    def close(self) -> None:
        """Close, after what was sent is out (bounded)."""
        self.socket.close()


def ask(runtime: Path, request: bytes, *, timeout_s: float) -> bytes | None:
    """Send one request of a person to the supervisor, and wait for the one answer.

    None when none came in time. `LocalError` when the runtime directory is not there, or is not a
    private one of ours: whoever made it could answer what he likes.
    """
    require_private(runtime)
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    try:
        socket.setsockopt(zmq.IDENTITY, f"{PERSON}{secrets.token_hex(8)}".encode())
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        socket.connect(f"ipc://{runtime}/control")
        socket.send(request, zmq.NOBLOCK)
        return socket.recv_multipart()[-1] if socket.poll(int(timeout_s * 1000)) else None
    finally:
        socket.close(linger=0)


def require_private(runtime: Path) -> None:
    """`LocalError` unless the directory is ours and nobody else may enter it."""
    try:
        found = runtime.lstat()
    except OSError as error:
        raise LocalError(f"the runtime directory {runtime}: {error.strerror}") from None
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if not private or found.st_uid != os.geteuid():
        raise LocalError(f"the runtime directory {runtime} is not private to its owner, you")


class Doorbells:
    """This role's own bell, and the bells of the others."""

    def __init__(self, runtime: Path, role: str) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.socket: zmq.Socket[bytes] = context.socket(zmq.PULL)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(f"ipc://{runtime}/bell-{role}")
        self._others = {}
        for other in ROLES:
            if other != role:
                push = context.socket(zmq.PUSH)
                push.setsockopt(zmq.LINGER, 0)
                push.setsockopt(zmq.SNDHWM, 1)
                push.setsockopt(zmq.RECONNECT_IVL, 20)
                push.connect(f"ipc://{runtime}/bell-{other}")
                self._others[other] = push

    def ring(self, role: str, message: bytes) -> None:
        """Ring a bell; one that rings already need not ring twice."""
        try:
            self._others[role].send(message, zmq.NOBLOCK)
        except zmq.Again:
            return

    def ring_all(self, message: bytes) -> None:
        """Ring every bell, as each role does at its start."""
        for role in self._others:
            self.ring(role, message)

    def clear(self) -> int:
        """Take all rings that wait; returns how many."""
        count = 0
        while True:
            try:
                self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return count
            count += 1

    def close(self) -> None:
        """Close all."""
        for socket in (self.socket, *self._others.values()):
            socket.close(linger=0)
