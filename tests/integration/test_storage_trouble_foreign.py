"""What servers, tools and files of credentials may say: each is told as an error of a storage,
none ends the worker."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from espilot.adapters.storage import Endpoint, TransferLimits, open_endpoint
from espilot.errors import StorageError, StorageFatal, StorageRetryable
from espilot.ports import Storage

DATA = b"some bytes" * 1000
ADLER = f"{zlib.adler32(DATA):08x}"
QUICK = TransferLimits(connect_s=5.0, idle_s=5.0)
Answer = Callable[[BaseHTTPRequestHandler], bytes]


@contextmanager
def answering(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that answers each request with these raw bytes and closes; its port."""

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_expect_100(self) -> bool:
            self.wfile.write(answer(self))
            self.close_connection = True
            return False

        def handle_any(self) -> None:
            self.close_connection = True
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.wfile.write(answer(self))

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_MOVE = handle_any

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
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


def say(head: str, body: bytes = b"") -> Answer:
    """An answer with these lines before the body."""
    raw = (
        ("HTTP/1.1 " + head + "\nConnection: close").replace("\n", "\r\n").encode()
        + b"\r\n\r\n"
        + body
    )
    return lambda _: raw


def write_secret(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    path.chmod(0o600)
    return str(path)


def dav_at(port: int, credentials: str = "") -> Storage:
    url = f"dav://127.0.0.1:{port}/run"
    return open_endpoint(Endpoint(url, credentials=credentials, limits=QUICK))


def presigned_at(port: int, credentials: str = "") -> Storage:
    here = f"http://127.0.0.1:{port}"
    return open_endpoint(
        Endpoint("s3://bucket/run", endpoint_url=here, signer=here, credentials=credentials,
                 limits=QUICK)
    )  # fmt: skip


@pytest.mark.parametrize("location", ["http://[oops/x", "http://[1::/", "//[/", "//x:99999/"])
def test_redirect_that_is_no_address(location: str) -> None:
    """A server that redirects to nonsense fails this try."""
    with answering(say(f"307 Over There\nLocation: {location}\nContent-Length: 0")) as port:
        storage = dav_at(port)
        with pytest.raises(StorageRetryable, match=r"no usable address|cannot delete x\.tar"):
            storage.delete("x.tar")
        storage.close()


@pytest.mark.parametrize("length", ["0, 0", "none", "9" * 5000])
def test_length_that_is_no_number(length: str) -> None:
    """A length that is no number, as of two servers in a row, is as good as none."""
    with answering(say(f"204 Gone\nContent-Length: {length}")) as port:
        storage = dav_at(port)
        storage.delete("x.tar")
        storage.close()


def test_length_that_is_told_twice(tmp_path: Path) -> None:
    """A file whose length is told twice is read to know it."""
    double = f"200 Fine\nDigest: adler32={ADLER}\nContent-Length: {len(DATA)}, {len(DATA)}"

    def answer(door: BaseHTTPRequestHandler) -> bytes:
        return say(double, DATA if door.command == "GET" else b"")(door)

    with answering(answer) as port:
        storage = dav_at(port)
        storage.verify("x.tar", size_bytes=len(DATA), adler32=ADLER)
        storage.close()


def test_status_of_many_digits(tmp_path: Path) -> None:
    """A first line that is none of HTTP fails this try, also while a body waits."""
    source = tmp_path / "x.tar"
    source.write_bytes(DATA)

    with answering(say("2" * 5000)) as port:
        storage = dav_at(port)
        with pytest.raises(StorageRetryable, match="cannot upload"):
            storage.put(source, "x.tar", size_bytes=len(DATA), adler32=ADLER)
        storage.close()


@pytest.mark.parametrize("open_at", [dav_at, presigned_at])
@pytest.mark.parametrize("token", ["hush-\N{EM DASH}-hush", "hush-\u00e4", "hush\nhush"])
def test_token_of_other_characters(
    open_at: Callable[[int, str], Storage], token: str, tmp_path: Path
) -> None:
    """A token that no header can hold is told with its file, and never shown."""
    path = write_secret(tmp_path / "token", token.encode())
    with answering(say("200 Fine\nContent-Length: 0")) as port:
        storage = open_at(port, path)
        with pytest.raises(StorageFatal, match="holds no usable token") as caught:
            storage.delete("x.tar")
        storage.close()
    assert path in str(caught.value)
    assert "hush" not in str(caught.value)


def test_token_after_a_mark(tmp_path: Path) -> None:
    """The mark that some editors put first is no part of a token."""
    seen: list[str | None] = []

    def answer(door: BaseHTTPRequestHandler) -> bytes:
        seen.append(door.headers.get("Authorization"))
        return say("204 Gone\nContent-Length: 0")(door)

    with answering(answer) as port:
        storage = dav_at(port, write_secret(tmp_path / "token", b"\xef\xbb\xbfhush\r\n"))
        storage.delete("x.tar")
        storage.close()
    assert seen == ["Bearer hush"]


def test_signer_that_answers_with_a_page() -> None:
    """A page of a web site in place of a signature is refused, however it reads as a form."""
    page = b"<html>" + b"a&nbsp;b " * 30 + b"</html>"
    with answering(say(f"200 Fine\nContent-Length: {len(page)}", page)) as port:
        storage = presigned_at(port)
        with pytest.raises(StorageFatal, match="no answer of its kind; ask who runs it"):
            storage.delete("x.tar")
        storage.close()


def test_tool_that_gives_all_and_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that has closed its output and stays is ended, and the try has failed."""
    (tmp_path / "bin").mkdir()
    for name in ("xrdcp", "xrdfs"):
        tool = tmp_path / "bin" / name
        tool.write_text("#!/bin/sh\nexec sleep 1000 >&- 2>&-\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    limits = TransferLimits(idle_s=0.2)
    storage = open_endpoint(Endpoint("root://127.0.0.1:1//data", limits=limits))
    with pytest.raises(StorageRetryable, match="did not end in time"):
        storage.get("x.tar", tmp_path / "got", size_bytes=1, adler32="00000001")


def test_object_store_that_tells_nothing(tmp_path: Path) -> None:
    """A good answer without what an upload in parts needs fails this try."""
    data = bytes(6 * 2**20)
    source = tmp_path / "x.tar"
    source.write_bytes(data)
    with answering(say("200 Fine\nContent-Length: 0")) as port:
        here = f"http://127.0.0.1:{port}"
        storage = open_endpoint(
            Endpoint("s3://bucket/run", endpoint_url=here, part_bytes=5 * 2**20, limits=QUICK)
        )
        with pytest.raises(StorageRetryable, match="has no UploadId"):
            storage.put(source, "x.tar", size_bytes=len(data), adler32=f"{zlib.adler32(data):08x}")
        storage.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for this machine, and its key beside it."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    name = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", "key.pem", "-out", "cert.pem")
    argv = ["openssl", "req", "-x509", *key, "-days", "2", *name, *files]
    subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "cert.pem"


def test_object_store_whose_encryption_breaks(certificate: Path, tmp_path: Path) -> None:
    """Damage of the encryption in the middle of a download is a lost connection."""

    def answer(door: BaseHTTPRequestHandler) -> bytes:
        door.wfile.write(say(f"200 Fine\nContent-Length: {len(DATA)}", DATA[:100])(door))
        # Past the encryption: a record that nobody has signed.
        os.write(door.connection.fileno(), b"\x17\x03\x03\x00\x40" + bytes(64))
        return b""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with answering(answer, context) as port:
        storage = open_endpoint(
            Endpoint(
                "s3://bucket/run",
                endpoint_url=f"https://localhost:{port}",
                ca_file=str(certificate),
                limits=QUICK,
            )
        )
        with pytest.raises(StorageError, match="the connection was lost"):
            storage.get("x.tar", tmp_path / "got", size_bytes=len(DATA), adler32=ADLER)
        storage.close()
