"""The built-in event server as a process: HTTP in front of the store."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict, Unpack

from aiohttp import web

from espilot.errors import LocalError
from espilot.server.gate import Gate, HttpRequest
from espilot.server.options import Quirks, ServerOptions
from espilot.server.store import Store

BODY_LIMIT_BYTES = 64 * 2**20
_TICK_S = 1.0


class Hooks(TypedDict, total=False):
    """What the embedding process wants to hear of, and how it stops the server."""

    on_listening: Callable[[str], None]
    """Called once with the URL when connections are taken."""
    on_tick: Callable[[], None] | None
    """Called once a second."""
    stop_fd: int | None
    """The server ends when this descriptor is readable or at its end: a death pipe."""


def serve(
    *,
    db: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    options: ServerOptions | None = None,
    **hooks: Unpack[Hooks],
) -> None:
    """Serve the database at `db` until SIGTERM, SIGINT, or `stop_fd` says so.

    Port 0 takes a free one. Errors: `LocalError` when the database or the port cannot be used.
    """
    options = options or ServerOptions()
    store = Store(db, options, now=time.time())
    try:
        asyncio.run(_serve(store, options, (host, port), hooks))
    finally:
        store.close()


async def _serve(
    store: Store, options: ServerOptions, address: tuple[str, int], hooks: Hooks
) -> None:
    front = _Front(store, options.quirks)
    server = front.server = web.Server(front.handle, auto_decompress=False, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, *address)
        try:
            await site.start()
        except OSError as error:
            raise LocalError(f"cannot listen on {address[0]}:{address[1]}: {error}") from error
        with _stop_event(hooks.get("stop_fd")) as stop:
            if "on_listening" in hooks:
                hooks["on_listening"](_url_of(runner))
            await _tick_until(stop, store, hooks)
    finally:
        await runner.cleanup()


def _url_of(runner: web.ServerRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _stop_event(stop_fd: int | None) -> Iterator[asyncio.Event]:
    """An event that is set by a signal or the descriptor."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    # Only the main thread may take signals; tests run a server in another one.
    in_main_thread = threading.current_thread() is threading.main_thread()
    for number in signals if in_main_thread else ():
        loop.add_signal_handler(number, stop.set)

    def hear_end(fd: int) -> None:
        loop.remove_reader(fd)
        stop.set()

    if stop_fd is not None:
        loop.add_reader(stop_fd, hear_end, stop_fd)
    try:
        yield stop
    finally:
        if stop_fd is not None:
            loop.remove_reader(stop_fd)
        for number in signals if in_main_thread else ():
            loop.remove_signal_handler(number)


async def _tick_until(stop: asyncio.Event, store: Store, hooks: Hooks) -> None:
    """Look for lost jobs once a second."""
    on_tick = hooks.get("on_tick")
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _TICK_S)
        store.fail_lost_jobs(time.time())
        if on_tick is not None:
            on_tick()


class _Front:
    """What takes requests from the framework and gives replies back to it."""

    def __init__(self, store: Store, quirks: Quirks) -> None:
        self._gate = Gate(store, quirks)
        self._takes_chunks = not quirks.chunked_is_empty
        self.server: web.Server | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        reply = self._gate.refuse(request.path, request.headers)
        if reply is None:
            try:
                body = await self._read_body(request)
            except _TooLarge:
                return web.Response(status=413, text="ERROR : the body is too large")
            reply = self._gate.answer(_read_head(request, body))
        if reply.delay_s > 0:
            await asyncio.sleep(reply.delay_s)
        if reply.is_dropped and request.transport is not None:
            request.transport.abort()
        if reply.is_fatal:
            self._end_connections(request)
        return web.Response(status=reply.status, text=reply.text, content_type=reply.content_type)

    async def _read_body(self, request: web.BaseRequest) -> bytes | None:
        """The body, None when less came than was announced. Without a length it is empty."""
        length = request.content_length
        if length is None and not self._takes_chunks:
            return b""
        if length is not None and length > BODY_LIMIT_BYTES:
            raise _TooLarge
        try:
            return await request.content.read(-1)
        except (OSError, web.RequestPayloadError):
            return None

    def _end_connections(self, request: web.BaseRequest) -> None:
        """The process is replaced: all its other connections break, this one after its answer."""
        for connection in self.server.connections if self.server is not None else ():
            if connection is request.protocol:
                connection.close()
            elif connection.transport is not None:
                connection.transport.abort()


def _read_head(request: web.BaseRequest, body: bytes | None) -> HttpRequest:
    return HttpRequest(
        request.method, request.path, request.rel_url.raw_query_string, request.headers, body
    )


class _TooLarge(Exception):
    """A body that is not even read."""
