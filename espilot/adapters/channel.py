"""The payload channel: a ROUTER as yampl's ZeroMQ plug-in expects it.

Facts of the wire that the settings answer: with the default receive high-water mark a client that
sends a burst and exits loses its last messages, so there is none; a client that stops reading must
not stall the others, so no send blocks; a restarted client under its old name takes over, so
hand-over is on; a message over the limit cuts the connection of its sender only.
"""

from __future__ import annotations

import os
import re
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from espilot.errors import LocalError, UsageError

MAX_MESSAGE_BYTES = 1 << 20
MAX_NAME = 98
SOCKET_PREFIX = "/tmp/zmq_"
UNNAMED_BYTES = 5
"""ZeroMQ's own routing ids: a zero byte and four others. A client may name itself b"\\0"."""

# As plain numbers: joining flags of an enumeration costs as much as sending a frame.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = _NOBLOCK | int(zmq.SNDMORE)


class Sending(Enum):
    """What became of a reply."""

    SENT = "sent"
    """Accepted; no proof of delivery."""
    GONE = "gone"
    """The client is not there any more."""
    BUSY = "busy"
    """The client does not read; try again later."""


class Incoming(NamedTuple):
    """One message; `pid` is the sender's process at its first message, else None."""

    identity: bytes
    message: bytes
    pid: int | None = None
    extra_frames: int = 0


def socket_path(name: str) -> Path | None:
    """The socket file of a channel name; None for `host:port`, which is TCP."""
    return None if re.fullmatch(r"[^/]+:\d+", name) else Path(f"{SOCKET_PREFIX}{name}")


class PayloadChannel:
    """The pilot's end of one channel. Not thread-safe: one I/O thread."""

    def __init__(self, name: str, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """Bind the channel; the name must be unguessable and unique on the node."""
        if len(name) > MAX_NAME or "/" in name or not name:
            raise UsageError(
                f"channel name {name[:40]!r} must have 1 to {MAX_NAME} characters, no /"
            )
        self.path = socket_path(name)
        self._known: set[bytes] = set()
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._configure(max_message_bytes)
        self._bind(f"tcp://{name}" if self.path is None else f"ipc://{self.path}")
        self._inode = None if self.path is None else self.path.stat().st_ino

    def receive(self, limit: int) -> list[Incoming]:
        """The messages that wait, at most `limit`, without blocking."""
        messages: list[Incoming] = []
        receive, known = self.socket.recv, self._known
        try:
            while len(messages) < limit:
                identity = receive(_NOBLOCK)
                frame = receive(copy=False)
                pid = None
                # Only unnamed identities are kept as known: one is made for one connection, so its
                # process never changes. A name may be taken over by another process each time.
                if identity not in known:
                    pid = peer_pid(frame)
                    if len(identity) == UNNAMED_BYTES and identity[0] == 0:
                        known.add(identity)
                extra = self._skip_frames() if frame.more else 0
                messages.append(Incoming(identity, frame.bytes, pid, extra))
        except zmq.Again:
            return messages
        return messages

    def send(self, identity: bytes, message: bytes) -> Sending:
        """Send one reply, exactly two frames, without blocking."""
        try:
            self.socket.send(identity, _NOBLOCK_MORE)
            self.socket.send(message, _NOBLOCK)
        except zmq.Again:
            # The caller gives it up; if it speaks again, its process is looked at anew.
            self._known.discard(identity)
            return Sending.BUSY
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._known.discard(identity)
            return Sending.GONE
        return Sending.SENT

    def forget(self, identity: bytes) -> None:
        """The client behind an identity is gone."""
        self._known.discard(identity)

    def close(self) -> None:
        """Close, and remove the socket file if it is still ours."""
        self.socket.close(linger=0)
        if self.path is not None and self._is_ours():
            self.path.unlink(missing_ok=True)

    def _configure(self, max_message_bytes: int) -> None:
        options = {
            zmq.ROUTER_MANDATORY: 1,
            zmq.ROUTER_HANDOVER: 1,
            zmq.RCVHWM: 0,
            zmq.MAXMSGSIZE: max_message_bytes,
            zmq.LINGER: 0,
        }
        for option, value in options.items():
            self.socket.setsockopt(option, value)

    def _bind(self, address: str) -> None:
        # Whoever may write to the socket file can take ranges: its mode follows the umask.
        umask = os.umask(0o177)
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.socket.close()
            raise LocalError(f"cannot bind the payload channel {address}: {error}") from None
        finally:
            os.umask(umask)

    def _skip_frames(self) -> int:
        count = 0
        while self.socket.getsockopt(zmq.RCVMORE):
            self.socket.recv()
            count += 1
        return count

    def _is_ours(self) -> bool:
        assert self.path is not None
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False


def peer_pid(frame: Any) -> int | None:
    """The pid of a message's sender, which the kernel told the socket; None where nobody knows it.

    That is over TCP, and for a client in a PID namespace that we cannot see: the kernel says 0.
    """
    try:
        address = str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return None
    fields = address.rsplit(":", 3)
    if len(fields) != 4 or not all(part.isdigit() for part in fields[1:]):
        return None
    return int(fields[3]) or None
