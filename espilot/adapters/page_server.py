"""Serves one page to people on this machine: HTTP on loopback or a UNIX socket, only for looking.

Only GET, only to a name of this machine in the Host header (so no web page elsewhere can have a
browser ask us under a name of its own), everything bounded. What is served comes from a `Source`.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from espilot.errors import EspilotError, LocalError

LOOPBACK = "127.0.0.1"
HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
MOST_WATCHERS = 16
MOST_REQUESTS = 64
EVERY_S = 0.6
IDLE_S = 15.0
"""A connection on which nothing can be read or written for so long is closed."""


class Source(Protocol):
    """What is served. Called from several threads, one at a time for each method of its own."""

    def html(self) -> str:
        """The page."""

    def policy(self) -> str:
        """Its content security policy."""

    def look(self) -> Mapping[str, Any]:
        """The present document."""

    def changes(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
        """What has changed between two of them."""

    def rows(self, query: Mapping[str, str]) -> list[Any]:
        """Rows of its map."""


class PageServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens from its making on; `serve_forever` serves. The threads end with `stop`."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, source: Source, *, port: int = 0, path: Path | None = None) -> None:
        """Bind; `LocalError` when the port or path cannot be had."""
        self.source = source
        self.stopping = threading.Event()
        self.watchers = threading.BoundedSemaphore(MOST_WATCHERS)
        self.requests = threading.BoundedSemaphore(MOST_REQUESTS)
        self._path = path
        if path is not None:
            self.address_family = socket.AF_UNIX
        address: Any = str(path) if path is not None else (LOOPBACK, port)
        try:
            if path is not None:
                remove_stale(path)
            with private_files():
                super().__init__(address, Handler)
        except (OSError, OverflowError) as error:
            where = path if path is not None else f"{LOOPBACK}:{port}"
            raise LocalError(f"cannot listen on {where}: {error}; choose another") from error

    @property
    def url(self) -> str:
        """Where people find it."""
        if self._path is not None:
            return f"unix:{self._path}"
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def stop(self) -> None:
        """End: no new requests, and the streams end too."""
        self.stopping.set()
        self.shutdown()

    def server_close(self) -> None:
        """Close the socket, and remove its file."""
        super().server_close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor that goes away is nothing to tell; a defect of ours is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread of its own, if there are not too many."""
        if not self.requests.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.requests.release()


@contextmanager
def private_files() -> Iterator[None]:
    """A socket's file is its owner's from its first moment on."""
    former = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(former)


def remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; `OSError` when somebody does, or it is no socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} is there and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(f"somebody listens on {path}")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: PageServer
    timeout = IDLE_S
    server_version = "espilot"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a request."""
        if not self._host_is_ours():
            self._refuse(403, "this page is for this machine only")
            return
        try:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        except ValueError:
            self._refuse(400, "not understood")
            return
        try:
            if parts.path == "/":
                self._answer("text/html; charset=utf-8", self.server.source.html())
            elif parts.path == "/rows":
                self._json({"rows": self.server.source.rows(query)})
            elif parts.path == "/state.json":
                self._json(self.server.source.look())
            elif parts.path == "/events":
                self._stream()
            else:
                self._refuse(404, "there is only /, /events, /rows and /state.json")
        except EspilotError as error:
            self._refuse(503, str(error))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no GET, or no HTTP, in one line that repeats nothing of it."""
        code = 405 if code == 501 else code
        self._refuse(code, "only GET" if code == 405 else "not understood")

    def _host_is_ours(self) -> bool:
        host = self.headers.get("Host", "").strip().lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        return name in HOSTS

    def _json(self, value: Any) -> None:
        self._answer("application/json", json.dumps(value, separators=(",", ":")))

    def _refuse(self, code: int, text: str) -> None:
        self._answer("text/plain; charset=utf-8", text + "\n", code)

    def _answer(self, kind: str, text: str, code: int = 200) -> None:
        data = text.encode()
        self._head(code, kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _head(self, code: int, kind: str) -> None:
        self.close_connection = True
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        policy = self.server.source.policy() + "; frame-ancestors 'none'"
        self.send_header("Content-Security-Policy", policy)
        self.send_header("Connection", "close")

    def _stream(self) -> None:
        """All of the document, then what changes, until the visitor goes or we end."""
        if not self.server.watchers.acquire(blocking=False):
            self._refuse(503, f"{MOST_WATCHERS} pages are open already")
            return
        try:
            last: Mapping[str, Any] = self.server.source.look()
            self._head(200, "text/event-stream")
            self.end_headers()
            self._event(last)
            while not self.server.stopping.wait(EVERY_S):
                new = self.server.source.look()
                news = self.server.source.changes(last, new)
                # An empty one shows that we are alive, and finds out whether somebody reads.
                self._event(news) if news else self.wfile.write(b":\n\n")
                last = new
        finally:
            self.server.watchers.release()

    def _event(self, value: Mapping[str, Any]) -> None:
        text = json.dumps(value, separators=(",", ":"))
        self.wfile.write(b"data: " + text.encode() + b"\n\n")
