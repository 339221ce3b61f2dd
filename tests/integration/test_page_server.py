"""The page's server: only for looking, only for this machine, whatever a visitor sends."""

from __future__ import annotations

import http.client
import json
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from espilot.adapters import page_server
from espilot.errors import LocalError
from espilot.supervisor.page import serving


class Still:
    """A source that shows a number, which goes up when told."""

    def __init__(self) -> None:
        self.n = 0
        self.fails = False

    def html(self) -> str:
        return "<!DOCTYPE html>"

    def policy(self) -> str:
        return "default-src 'none'"

    def look(self) -> Mapping[str, Any]:
        if self.fails:
            raise LocalError("cannot read the queue")
        return {"n": self.n}

    def changes(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
        return {} if old == new else dict(new)

    def rows(self, query: Mapping[str, str]) -> list[Any]:
        return [dict(query)]


@pytest.fixture
def source() -> Still:
    return Still()


@pytest.fixture
def port(source: Still) -> Iterator[int]:
    with serving(source) as url:
        yield int(url.rstrip("/").rpartition(":")[2])


def get(
    port: int, path: str, method: str = "GET", **headers: str
) -> tuple[int, str, Mapping[str, str]]:
    """Status, text and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.headers)
    finally:
        connection.close()


def test_what_it_serves(port: int) -> None:
    """The page with its policy, the document, rows; anything else is not there."""
    status, text, headers = get(port, "/")
    assert (status, text) == (200, "<!DOCTYPE html>")
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Cache-Control"] == "no-store" and "Set-Cookie" not in headers
    assert "Access-Control-Allow-Origin" not in headers
    assert json.loads(get(port, "/state.json")[1]) == {"n": 0}
    assert json.loads(get(port, "/rows?from=7&state=x")[1]) == {
        "rows": [{"from": "7", "state": "x"}]
    }
    for path in ("/etc/passwd", "/../x", "/page.js", "/<b>"):
        status, text, _ = get(port, path)
        assert status == 404 and "<" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "X<b>"])
def test_only_get(port: int, method: str) -> None:
    """Nothing can be changed, and a refusal repeats nothing of the request."""
    status, text, _ = get(port, "/", method)
    assert status == 405 and "<b>" not in text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:99", 200), ("LOCALHOST", 200), ("[::1]:80", 200),
        ("evil.example", 403), ("evil.example:80", 403), ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403), ("", 403), ("localhost:80:80", 403), ("10.0.0.7", 403),
    ],
)  # fmt: skip
def test_host(port: int, host: str, status: int) -> None:
    """Only who asks under a name of this machine is answered: no page elsewhere can rebind."""
    assert get(port, "/", Host=host)[0] == status


def test_bound_to_loopback(source: Still) -> None:
    """The socket is bound to loopback."""
    server = page_server.PageServer(source)
    assert server.socket.getsockname()[0] == "127.0.0.1"
    server.server_close()


def test_stream(port: int, source: Still) -> None:
    """All of the document first, then what changes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert next_event(answer) == {"n": 0}
    source.n = 5
    assert next_event(answer) == {"n": 5}
    connection.close()


def next_event(answer: http.client.HTTPResponse) -> Any:
    """The next message of a stream."""
    while True:
        line = answer.fp.readline()
        assert line, "the stream has ended"
        if line.startswith(b"data: "):
            return json.loads(line[6:])


def test_too_many_watchers(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of open pages is bounded; one that is closed makes room."""
    streams = []
    for _ in range(page_server.MOST_WATCHERS):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/events")
        next_event(connection.getresponse())
        streams.append(connection)
    assert get(port, "/events")[0] == 503
    assert get(port, "/")[0] == 200
    for connection in streams:
        connection.close()


def test_a_source_that_fails(port: int, source: Still) -> None:
    """What cannot be read is said in a line."""
    source.fails = True
    assert get(port, "/state.json")[:2] == (503, "cannot read the queue\n")
    assert get(port, "/events")[0] == 503


@pytest.mark.parametrize("data", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                                  b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n",
                                  b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n"])  # fmt: skip
def test_garbage(port: int, data: bytes) -> None:
    """What is no HTTP is refused or hung up on; others are served on."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as visitor:
        visitor.sendall(data)
        try:
            answer = visitor.recv(9000)
        except ConnectionResetError:
            answer = b""
    assert b"200" not in answer.partition(b"\r\n")[0] and b"Traceback" not in answer
    assert get(port, "/")[0] == 200


@pytest.mark.parametrize("target", ["http://[", "http://[::1/"])
def test_target_that_is_no_address(port: int, target: str) -> None:
    """It is answered, with a refusal that repeats nothing of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as visitor:
        visitor.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = visitor.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.0 400") and b"[" not in answer


def test_unix_socket(source: Still, tmp_path: Path) -> None:
    """A socket is its owner's alone, a stale one is replaced, and it goes away at the end."""
    path = tmp_path / "page.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with serving(source, path=path) as url:
        assert url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.connect(str(path))
            visitor.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in visitor.recv(9000)
        with pytest.raises(LocalError, match="somebody listens"), serving(source, path=path):
            pass
    assert not path.exists()


def test_addresses_that_cannot_be_had(source: Still, port: int, tmp_path: Path) -> None:
    """A port in use, a file in the way, a name too long: one line that says what to do."""
    file = tmp_path / "file"
    file.write_text("precious")
    for where in ({"port": port}, {"path": file}, {"path": tmp_path / ("x" * 200)}):
        with pytest.raises(LocalError, match="choose another"), serving(source, **where):
            pass
    assert file.read_text() == "precious"


def test_ends_at_once(source: Still) -> None:
    """Open streams do not keep it from ending."""
    with serving(source) as url:
        connection = http.client.HTTPConnection(url[7:].rstrip("/"), timeout=10)
        connection.request("GET", "/events")
        next_event(connection.getresponse())
    connection.close()
    assert not [t for t in threading.enumerate() if t.name == "page"]
