"""WebDAV servers with words of their own before they answer an upload."""

from __future__ import annotations

import ssl
import subprocess
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from espilot.adapters.storage import Endpoint, TransferLimits, open_endpoint
from espilot.errors import StorageFatal

DATA = bytes(range(256)) * 2000
ADLER = f"{zlib.adler32(DATA):08x}"
LIMITS = TransferLimits(connect_s=4.0, idle_s=10.0)
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nX-More: y\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Door(BaseHTTPRequestHandler):
    """A web server that says `word` when a body is announced, and `late` before each answer."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    word, late, status = b"", b"", 201

    def log_message(self, *_: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        self.wfile.write(self.word)
        return True

    def answer(self, code: int, **headers: str) -> None:
        self.wfile.write(self.late)
        self.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_PUT(self) -> None:
        if self.status != 201:
            self.close_connection = True
            return self.answer(self.status)
        self.files[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        return self.answer(201)

    def do_HEAD(self) -> None:
        data = self.files.get(self.path)
        if data is None:
            return self.answer(404)
        told = {"Content-Length": str(len(data)), "Digest": f"adler32={zlib.adler32(data):08x}"}
        return self.answer(200, **told)

    def do_MOVE(self) -> None:
        target = "/" + self.headers["Destination"].split("/", 3)[3]
        self.files[target] = self.files.pop(self.path)
        self.answer(201)

    def do_DELETE(self) -> None:
        self.files.pop(self.path, None)
        self.answer(204)


@contextmanager
def serving(door: type[Door], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on a port of its own; the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), door)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for this machine, and its key in one file with it."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    name = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", "key.pem", "-out", "cert.pem")
    argv = ["openssl", "req", "-x509", *key, "-days", "2", *name, *files]
    subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "cert.pem"


def upload(url: str, tmp_path: Path, times: int = 1, **more: Any) -> None:
    source = tmp_path / "x.tar"
    source.write_bytes(DATA)
    storage = open_endpoint(Endpoint(url, limits=LIMITS, **more))
    try:
        for _ in range(times):
            storage.put(source, "x.tar", size_bytes=len(DATA), adler32=ADLER)
    finally:
        storage.close()


def make_door(**behaviour: object) -> type[Door]:
    return type("OneDoor", (Door,), {"files": {}, **behaviour})


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_silent_server_with_encryption(
    certificate: Path, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A server that says nothing gets its body after a moment, also where the encryption itself
    has bytes to read (the tickets of TLS 1.3)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    context.minimum_version = context.maximum_version = version
    door = make_door()
    with serving(door, context) as port:
        url = f"davs://localhost:{port}/run"
        upload(url, tmp_path, times=2, ca_file=str(certificate))
    assert door.files == {"/run/x.tar": DATA}


@pytest.mark.parametrize(
    "behaviour",
    [
        {"word": PROCESSING + HINTS + CONTINUE},
        {"word": HINTS + PROCESSING},
        {"word": CONTINUE, "late": PROCESSING + HINTS},
    ],
    ids=["before the yes", "no yes", "before each answer"],
)
def test_interim_words(tmp_path: Path, behaviour: dict[str, bytes]) -> None:
    """A server that is still at work, or gives hints, has not answered yet."""
    door = make_door(**behaviour)
    with serving(door) as port:
        upload(f"dav://localhost:{port}/run", tmp_path)
    assert door.files == {"/run/x.tar": DATA}


def test_refusal_after_an_interim_word(tmp_path: Path) -> None:
    """What is refused after an interim word is refused, and no body is sent."""
    taken: list[bytes] = []

    def refuse(self: Any) -> None:
        self.close_connection = True
        self.answer(403)
        self.connection.settimeout(10.0)
        taken.append(self.rfile.read(1))

    door = make_door(word=PROCESSING, do_PUT=refuse)
    with serving(door) as port, pytest.raises(StorageFatal, match="HTTP 403"):
        upload(f"dav://localhost:{port}/run", tmp_path)
    assert (door.files, taken) == ({}, [b""])
