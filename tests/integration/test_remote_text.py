"""Texts at an address: what a web server has, after some tries; what it has not is said."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from espilot.errors import ConfigError, LocalError, ServerUnavailable
from espilot.supervisor import remote_text
from espilot.supervisor.remote_text import fetch_text


@contextmanager
def web_server(*statuses: int) -> Iterator[tuple[str, list[str]]]:
    """A server that answers with these, one after the other; its address, and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status = statuses[min(len(asked), len(statuses)) - 1]
            body = b'{"Q": {}}'
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_text, "PAUSE_S", 0.01)


def test_text_of_a_web_server() -> None:
    """The whole address counts, its query too; an error of the moment is asked again."""
    with web_server(500, 200) as (address, asked):
        assert fetch_text(f"{address}/query/?json&preset=x", environ={}) == '{"Q": {}}'
        assert asked == ["/query/?json&preset=x"] * 2


def test_what_is_not_there() -> None:
    """After some tries it is said which address has nothing, and why."""
    with web_server(404) as (address, asked), pytest.raises(ServerUnavailable, match="HTTP 404"):
        fetch_text(f"{address}/q.json", environ={})
    assert len(asked) == 3
    with pytest.raises(ServerUnavailable, match=r"q\.json"):
        fetch_text(f"{address}/q.json", environ={})
    with pytest.raises(LocalError, match="nothing"):
        fetch_text("/nothing/here", environ={})


@pytest.mark.parametrize(
    "address", ["http://[x/", "http://[", "//[x", "file://[x/y", "file:///a%00b"]
)
def test_what_is_no_address(address: str) -> None:
    """It is refused by name."""
    with pytest.raises(ConfigError, match=re.escape(f"{address!r} is no address")):
        fetch_text(address, environ={})
