"""Metrics of this pilot: a text file for the node exporter, and an address on loopback."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from espilot.adapters.background import Background
from espilot.config import MetricsConfig
from espilot.errors import LocalError
from espilot.logs import Log
from espilot.view.look import Look
from espilot.view.metrics import Metrics


class QuietHandler(WSGIRequestHandler):
    """Writes no line for each request."""

    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each request, none of which keeps us from ending."""

    daemon_threads = True


LOOPBACK = "127.0.0.1"
READABLE = 0o644


class Exporter:
    """Takes a look each `every_s`; files are written in a thread, since a disk may hang."""

    def __init__(
        self,
        config: MetricsConfig,
        instance: str,
        measure: Callable[[], Mapping[str, Any]],
        log: Log,
    ) -> None:
        self._every_s = config.every_s
        self._log = log
        self._measure = measure
        self._metrics = Metrics(instance or "0")
        self._node: dict[str, Any] = {}
        self._next = 0.0
        self._told = ""
        name = config.textfile.replace("{instance}", instance or "0")
        self._file = Path(name) if name else None
        self._server = self._open(config.port) if config.port else None
        self._thread: Background[Mapping[str, Any]] = Background("metrics")

    def look(self, look: Look) -> None:
        """Take it, if it is time."""
        now = time.monotonic()
        if now < self._next and not look.closing:
            return
        self._next = now + self._every_s
        try:
            measured = self._thread.take()
        except (OSError, LocalError) as error:
            self._warn(str(error))
        else:
            self._node |= measured or {}
        risk = look.at_risk()
        self._node |= {"lag_s": risk.lag_s, "at_risk": risk.ranges}
        self._metrics.take(look, self._node)
        text = self._metrics.text()
        self._thread.start(lambda: self._write(text))

    def close(self) -> None:
        """Close the address, and end the thread. The file stays: its age tells that we are gone."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._thread.close()

    def _open(self, port: int) -> Server:
        show = make_wsgi_app(self._metrics.registry)

        def answer(environ: dict[str, Any], start: Any) -> Any:
            # The plain format for all: in the newer one a gauge and a counter share no name.
            environ.pop("HTTP_ACCEPT", None)
            return show(environ, start)

        try:
            server = make_server(LOOPBACK, port, answer, Server, QuietHandler)
        except OSError as error:
            raise LocalError(
                f"metrics.port {port} cannot be opened: {error.strerror}; choose another"
            ) from error
        Thread(target=server.serve_forever, name="metrics-server", daemon=True).start()
        return server

    def _write(self, text: bytes) -> Mapping[str, Any]:
        if self._file is not None:
            # By another name first: a collector must not read half of it.
            temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}")
            temporary.write_bytes(text)
            temporary.chmod(READABLE)
            temporary.replace(self._file)
        return self._measure()

    def _warn(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._log.warning("state", "metrics not written", error=text)
