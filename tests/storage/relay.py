"""A TCP relay between a client and a server that cuts, delays, slows down or corrupts."""

from __future__ import annotations

import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE_BYTES = 2**14

Change = Callable[[int, bytes], bytes | None]
"""Takes how many bytes of this direction went through before, and the next ones; gives what goes on
instead, or None to cut the connection."""


def as_it_is(_: int, piece: bytes) -> bytes | None:
    """Let everything through."""
    return piece


def cut_after(count: int) -> Change:
    """Cut the connection after this many bytes."""

    def change(before: int, piece: bytes) -> bytes | None:
        return piece[: count - before] if before < count else None

    return change


class CutUpload:
    """Cut one connection when this part of the body of its first PUT went through."""

    def __init__(self, part: float) -> None:
        self._part = part
        self._end: int | None = None

    def __call__(self, before: int, piece: bytes) -> bytes | None:
        if self._end is None and piece.startswith(b"PUT "):
            head, _, _ = piece.partition(b"\r\n\r\n")
            size = re.search(rb"\r\nContent-Length: (\d+)", head, re.IGNORECASE)
            if size is not None:
                self._end = before + len(head) + 4 + int(int(size[1]) * self._part)
        if self._end is None:
            return piece
        return piece[: self._end - before] if before < self._end else None


def answering(status: str, *headers: str, body: str = "") -> Change:
    """Answer this in the server's place, then cut."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", body]
    answer = "\r\n".join(lines).encode()
    return lambda before, _: answer if before == 0 else None


def rewritten(pattern: bytes, new: bytes) -> Change:
    """Replace what the pattern finds within one piece; the length must stay."""
    return lambda _, piece: re.sub(pattern, new, piece)


def slowed(bytes_per_s: float) -> Change:
    """Let so few bytes through."""

    def change(_: int, piece: bytes) -> bytes | None:
        time.sleep(len(piece) / bytes_per_s)
        return piece

    return change


def corrupted(old: bytes, new: bytes) -> Change:
    """Replace bytes, wherever they are whole in one piece."""
    return lambda _, piece: piece.replace(old, new)


def refused(_: int, __: bytes) -> bytes | None:
    """Cut at the first byte."""
    return None


@dataclass(slots=True)
class Relay:
    """A relay that runs; what it does may be changed at any time, for the bytes that follow."""

    port: int
    target: int
    up: Change = as_it_is
    down: Change = as_it_is
    connections: int = 0
    faults_left: int = -1
    """Connections that `up` and `down` still apply to; -1 for all."""
    next_ups: list[Change] = field(default_factory=list)
    """What the next connections suffer instead of `up`, one each; a `CutUpload` the next that has
    a PUT."""
    cuts: int = 0
    """Connections that a fault has cut."""
    _open: list[socket.socket] = field(default_factory=list)

    def heal(self) -> None:
        """Let everything through from now on."""
        self.up = self.down = as_it_is

    def faulty(self) -> bool:
        """Whether the next connection is one that the faults apply to."""
        self.connections += 1
        if self.faults_left == 0:
            return False
        self.faults_left -= self.faults_left > 0
        return True


@contextmanager
def relay_to(target: int) -> Iterator[Relay]:
    """A relay to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Else the buffers of the connection would swallow a whole archive at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        relay = Relay(listener.getsockname()[1], target)
        stop = threading.Event()
        threads: list[threading.Thread] = []
        acceptor = threading.Thread(target=_accept, args=(listener, relay, stop, threads))
        acceptor.start()
        try:
            yield relay
        finally:
            stop.set()
            acceptor.join()
            for each in relay._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def _accept(
    listener: socket.socket, relay: Relay, stop: threading.Event, threads: list[threading.Thread]
) -> None:
    listener.settimeout(0.05)
    while not stop.is_set():
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        thread = threading.Thread(target=_serve, args=(client, relay, relay.faulty(), stop))
        threads.append(thread)
        thread.start()


def _serve(client: socket.socket, relay: Relay, faulty: bool, stop: threading.Event) -> None:
    client.settimeout(None)
    with client, suppress(OSError), socket.create_connection(("127.0.0.1", relay.target)) as server:
        relay._open += [client, server]
        try:
            _pump(client, server, relay, faulty, stop)
        finally:
            relay._open.remove(client)
            relay._open.remove(server)


def _claim(relay: Relay, piece: bytes) -> Change | None:
    """What a connection that sends this suffers of the things that the next ones shall suffer."""
    if not relay.next_ups:
        return None
    waits = isinstance(relay.next_ups[0], CutUpload) and not piece.startswith(b"PUT ")
    return None if waits else relay.next_ups.pop(0)


def _pump(
    client: socket.socket,
    server: socket.socket,
    relay: Relay,
    faulty: bool,
    stop: threading.Event,
) -> None:
    passed = {client: 0, server: 0}
    own: Change | None = None
    with selectors.DefaultSelector() as selector:
        for each in (client, server):
            selector.register(each, selectors.EVENT_READ)
        while not stop.is_set():
            for key, _ in selector.select(0.1):
                source = key.fileobj
                assert isinstance(source, socket.socket)
                piece = source.recv(PIECE_BYTES)
                if not piece:
                    return
                change = (relay.up if source is client else relay.down) if faulty else as_it_is
                if source is client:
                    own = own or _claim(relay, piece)
                    change = own or change
                changed = change(passed[source], piece)
                passed[source] += len(piece)
                if changed is None:
                    relay.cuts += 1
                    return
                (server if source is client else client).sendall(changed)
