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
from urllib.parse import parse_qs

from aiohttp import web

from espilot.errors import LocalError
from espilot.server import answers, parameters
from espilot.server.answers import Answer
from espilot.server.api_v1 import Api
from espilot.server.options import Faults, Quirks, ServerOptions
from espilot.server.store import Store
from espilot.wire.panda_v1 import CALLS, Call

BODY_LIMIT_BYTES = 64 * 2**20
_TICK_S = 1.0
_JSON = "application/json"


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
    gate = _Gate(store, options.quirks)
    server = web.Server(gate.handle, auto_decompress=False, access_log=None)
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


class _Gate:
    """From an HTTP request to the API and back, by the rules of real servers."""

    def __init__(self, store: Store, quirks: Quirks) -> None:
        self._quirks = quirks
        self._faults = Faults(quirks)
        self._api = Api(store, quirks, self._faults, time.time)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        call, method_name = _find_call(request.path)
        if call is None:
            return self._respond(request, answers.forbid(method_name))
        try:
            body = await _read_body(request)
        except (OSError, web.RequestPayloadError):
            # Fewer bytes than announced, and most likely nobody there to hear the answer.
            return self._respond(request, answers.crash("the body is short"))
        if body is None:
            return self._respond(request, Answer(status=413, text="ERROR : the body is too large"))
        answer = self._carry_out(request, call, body)
        if self._quirks.answer_delay_s > 0:
            await asyncio.sleep(self._quirks.answer_delay_s)
        if self._faults.take("drop_answer", call.name) and request.transport is not None:
            request.transport.abort()
        return self._respond(request, answer)

    def _carry_out(self, request: web.BaseRequest, call: Call, body: bytes) -> Answer:
        if request.method != call.method:
            return answers.fail(f"expecting {call.method}, received {request.method}")
        try:
            values = self._read_values(request, call, body)
            checked = parameters.check(call, values, strict=self._quirks.v1_strict_types)
        except parameters.BadRequest as error:
            return answers.fail(str(error))
        except parameters.BrokenRequest as error:
            return answers.crash(str(error))
        return self._api.answer(call.name, checked)

    def _read_values(self, request: web.BaseRequest, call: Call, body: bytes) -> dict[str, object]:
        if call.method == "GET":
            query = parse_qs(request.rel_url.raw_query_string, keep_blank_values=True)
            return parameters.read_query(call, query)
        content_type = request.headers.get("Content-Type", "")
        if not self._quirks.v1_exact_content_type:
            content_type = content_type.partition(";")[0].strip()
        if content_type == _JSON:
            return parameters.read_json(body, request.headers.get("Content-Encoding", ""))
        return parameters.read_form(body)

    def _respond(self, request: web.BaseRequest, answer: Answer) -> web.Response:
        """JSON only for those who say so in a header; labelled as text all the same."""
        headers = (request.headers.get("Accept"), request.headers.get("Content-Type"))
        as_json = _JSON in headers or not self._quirks.v1_repr_without_json_headers
        status, text = answers.write_body(answer, as_json=as_json)
        is_json = as_json and answer.text is None and status == 200
        labelled = is_json and not self._quirks.v1_text_plain
        return web.Response(
            status=status, text=text, content_type=_JSON if labelled else "text/plain"
        )


def _find_call(path: str) -> tuple[Call | None, str]:
    """The call of a path of exactly five parts, and the method name for the refusal."""
    parts = path.split("/")
    if len(parts) != 5 or parts[1] != "api" or parts[2] not in ("v1", "latest"):
        return None, parts[3] if len(parts) == 4 and parts[1:3] == ["server", "panda"] else ""
    return CALLS.get(f"{parts[3]}/{parts[4]}"), parts[4]


async def _read_body(request: web.BaseRequest) -> bytes | None:
    """The body; None when it is too large. A request without a length has an empty body."""
    length = request.content_length
    if length is None:
        return b""
    if length > BODY_LIMIT_BYTES:
        return None
    return await request.content.read(-1)
