"""Storage servers that lie, redirect, or answer with errors: what a put must find out."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from espilot.adapters.storage import Endpoint, TransferLimits, open_endpoint
from espilot.adapters.storage.transfer import READ_BYTES
from espilot.errors import StorageError, StorageFatal, StorageRetryable
from espilot.ports import Storage

DATA = bytes(range(256)) * 2000
ADLER = f"{zlib.adler32(DATA):08x}"
QUICK = TransferLimits(connect_s=2.0, idle_s=2.0)


class Shop:
    """What a server has, and how it behaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: list[str | None] = []
        self.store: Callable[[bytes], bytes | None] = lambda data: data
        self.digest: Callable[[bytes], str | None] = lambda data: f"{zlib.adler32(data):08x}"
        self.etag: Callable[[bytes], str] = lambda data: hashlib.md5(data).hexdigest()
        self.knows_crc32 = False
        self.md5s: list[str | None] = []
        self.checksums: list[str | None] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.redirect = ""
        self.bodies = 0


class Door(BaseHTTPRequestHandler):
    """Speaks as much WebDAV and S3 as a put needs."""

    protocol_version = "HTTP/1.1"
    shop: Shop

    def log_message(self, *_: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        if self.shop.redirect or self.shop.status:
            return True
        return super().handle_expect_100()

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.shop.requests.append((self.command, self.name))
        self.shop.tokens.append(self.headers.get("Authorization"))
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def name(self) -> str:
        return unquote(self.path.partition("?")[0])

    def do_PUT(self) -> None:
        if self.shop.redirect:
            return self.answer(307, Location=self.shop.redirect + self.path)
        if self.shop.status:
            self.close_connection = True
            return self.answer(self.shop.status, **self.shop.headers)
        wanted = int(self.headers["Content-Length"])
        data = self.rfile.read(wanted)
        self.shop.bodies += 1
        if len(data) < wanted:
            self.close_connection = True
            return None
        self.shop.checksums.append(self.headers.get("x-amz-checksum-crc32"))
        self.shop.md5s.append(self.headers.get("Content-MD5"))
        stored = self.shop.store(data)
        if stored is not None:
            self.shop.files[self.name] = stored
        return self.answer(200, ETag=f'"{hashlib.md5(data).hexdigest()}"', **self.crc32_of(data))

    def crc32_of(self, data: bytes) -> dict[str, str]:
        if not self.shop.knows_crc32:
            return {}
        crc32 = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        return {"x_amz_checksum_crc32": crc32}

    def do_HEAD(self) -> None:
        data = self.shop.files.get(self.name)
        if data is None:
            return self.answer(404)
        headers = {"Content_Length": str(len(data)), "ETag": f'"{self.shop.etag(data)}"'}
        headers |= self.crc32_of(data)
        if (digest := self.shop.digest(data)) is not None:
            headers["Digest"] = f"adler32={digest}"
        return self.answer(200, **headers)

    def do_GET(self) -> None:
        data = self.shop.files.get(self.name)
        return self.answer(404) if data is None else self.answer(200, data)

    def do_DELETE(self) -> None:
        self.shop.files.pop(self.name, None)
        self.answer(204)

    def do_MOVE(self) -> None:
        target = "/" + self.headers["Destination"].split("/", 3)[3]
        self.shop.files[unquote(target)] = self.shop.files.pop(self.name)
        self.answer(201)


@contextmanager
def open_shop() -> Iterator[tuple[Shop, str]]:
    shop = Shop()
    door = type("Door", (Door,), {"shop": shop})
    server = ThreadingHTTPServer(("127.0.0.1", 0), door)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield shop, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def shop_at() -> Iterator[tuple[Shop, str]]:
    with open_shop() as opened:
        yield opened


@pytest.fixture(params=["s3", "dav"])
def storage(
    request: pytest.FixtureRequest, shop_at: tuple[Shop, str], tmp_path: Path
) -> Iterator[Storage]:
    """Both kinds of storage at the same shop; objects are below /bucket/run."""
    credentials = tmp_path / "credentials"
    if request.param == "s3":
        credentials.write_text("[default]\naws_access_key_id=a\naws_secret_access_key=hush\n")
        url, more = "s3://bucket/run", {"endpoint_url": shop_at[1]}
    else:
        credentials.write_text("hush\n")
        url, more = f"{shop_at[1]}/bucket/run", {}
    credentials.chmod(0o600)
    made = open_endpoint(
        Endpoint(url, credentials=str(credentials), limits=QUICK, **more)  # type: ignore[arg-type]
    )
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "x.tar"
    path.write_bytes(DATA)
    return path


def put(storage: Storage, source: Path) -> None:
    storage.put(source, "x.tar", size_bytes=len(DATA), adler32=ADLER)


def test_honest(shop_at: tuple[Shop, str], storage: Storage, source: Path) -> None:
    """With an honest server a put is one upload, verified by what the server says."""
    put(storage, source)
    assert shop_at[0].files == {"/bucket/run/x.tar": DATA}
    assert "GET" not in {method for method, _ in shop_at[0].requests}
    assert shop_at[0].bodies == 1


@pytest.mark.parametrize(
    "store",
    [lambda data: None, lambda data: data[:-1], lambda data: b"\1" + data[1:], lambda data: b""],
    ids=["nothing", "short", "changed", "empty"],
)
def test_lie_is_found(
    shop_at: tuple[Shop, str],
    storage: Storage,
    source: Path,
    store: Callable[[bytes], bytes | None],
) -> None:
    """A server that says yes and keeps something else is found out, and nothing false stays."""
    shop_at[0].store = store
    with pytest.raises(StorageRetryable):
        put(storage, source)
    assert "/bucket/run/x.tar" not in shop_at[0].files
    shop_at[0].store = lambda data: data
    put(storage, source)
    assert shop_at[0].files["/bucket/run/x.tar"] == DATA


def test_checksum_of_another_kind(
    shop_at: tuple[Shop, str], storage: Storage, source: Path
) -> None:
    """Where the server's statement is no checksum that we know, the file is read back."""
    shop_at[0].digest, shop_at[0].etag = lambda _: None, lambda _: "not-an-md5"
    put(storage, source)
    assert "GET" in {method for method, _ in shop_at[0].requests}
    shop_at[0].store = lambda data: b"\1" + data[1:]
    with pytest.raises(StorageRetryable):
        put(storage, source)


def test_cheap_checksum_where_it_is_known(shop_at: tuple[Shop, str], source: Path) -> None:
    """A store that shows that it knows CRC32 gets no MD5 any more; a lie is found all the same."""
    shop = shop_at[0]
    shop.knows_crc32, shop.etag = True, lambda _: "not-an-md5"
    storage = open_endpoint(Endpoint("s3://bucket/run", endpoint_url=shop_at[1], limits=QUICK))
    try:
        for _ in range(3):
            put(storage, source)
        assert [md5 is not None for md5 in shop.md5s] == [True, False, False]
        gets = [method for method, _ in shop.requests].count("GET")
        assert gets == 1, "only the first one, with its foreign ETag, is read back"
        shop.store = lambda data: b"\1" + data[1:]
        with pytest.raises(StorageRetryable):
            put(storage, source)
        assert shop.files == {}
    finally:
        storage.close()


def test_known_checksum_is_sent_with_the_bytes(
    shop_at: tuple[Shop, str], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that compares CRC32 gets the one that is known, while the file is read once; one that
    has changed on this disk meanwhile never arrives complete."""
    shop = shop_at[0]
    shop.knows_crc32 = True
    data = bytes(3 * 2**20) + b"end"
    source.write_bytes(data)
    crc32 = zlib.crc32(data)
    known = {"adler32": f"{zlib.adler32(data):08x}", "crc32": f"{crc32:08x}"}
    read = count_reads(monkeypatch)
    storage = open_endpoint(Endpoint("s3://bucket/run", endpoint_url=shop_at[1], limits=QUICK))
    try:
        storage.put(source, "x.tar", size_bytes=len(data), **known)
        assert sum(read) == len(data) == max(read), "all of it, to see what the store says"
        read.clear()
        storage.put(source, "x.tar", size_bytes=len(data), **known)
        assert sum(read) == len(data)
        assert max(read) == READ_BYTES, "no need to have all of it before the first byte goes"
        assert shop.files == {"/bucket/run/x.tar": data}
        assert shop.checksums == 2 * [base64.b64encode(crc32.to_bytes(4, "big")).decode()]
        source.write_bytes(b"\1" + data[1:])
        with pytest.raises(StorageRetryable, match="are on this disk instead of"):
            storage.put(source, "x.tar", size_bytes=len(data), **known)
        assert shop.files == {"/bucket/run/x.tar": data}
    finally:
        storage.close()


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each read of a file gave."""
    counts: list[int] = []
    real = os.readv

    def readv(fd: int, buffers: list[memoryview]) -> int:
        counts.append(real(fd, buffers))
        return counts[-1]

    monkeypatch.setattr(os, "readv", readv)
    return counts


@pytest.mark.parametrize(("status", "kind"), [(500, StorageRetryable), (503, StorageRetryable),
                                              (403, StorageFatal)])  # fmt: skip
def test_error_answers(
    shop_at: tuple[Shop, str],
    storage: Storage,
    source: Path,
    status: int,
    kind: type[StorageError],
) -> None:
    """An error tells action, address, HTTP code and remedy, and never a secret."""
    shop_at[0].status, shop_at[0].headers = status, {"Retry_After": "7"}
    with pytest.raises(kind, match=rf"cannot upload x\.tar(\.part)?: HTTP {status}") as caught:
        put(storage, source)
    assert shop_at[1].partition("//")[2] in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "; " in str(caught.value)
    if isinstance(caught.value, StorageRetryable):
        assert caught.value.retry_after_s == 7.0
    assert shop_at[0].bodies == 0


def test_early_redirect(shop_at: tuple[Shop, str], source: Path, tmp_path: Path) -> None:
    """The body waits for the server's word: it goes to the disk server only, the token does not."""
    token = tmp_path / "token"
    token.write_text("hush")
    token.chmod(0o600)
    with open_shop() as (disk, disk_url):
        shop, url = shop_at
        shop.redirect = disk_url
        # One name space behind both doors.
        shop.files = disk.files
        storage = open_endpoint(Endpoint(f"{url}/run", credentials=str(token), limits=QUICK))
        put(storage, source)
        storage.close()
        assert disk.files == {"/run/x.tar": DATA}
        assert (shop.bodies, disk.bodies) == (0, 1)
        assert set(shop.tokens) == {"Bearer hush"}
        assert set(disk.tokens) == {None}


def test_renewed_token_counts_at_once(
    shop_at: tuple[Shop, str], source: Path, tmp_path: Path
) -> None:
    """A token is read for each request: a renewed one needs no restart."""
    token = tmp_path / "token"
    for text in ("one", "two"):
        token.write_text(text)
        token.chmod(0o600)
        storage = open_endpoint(Endpoint(f"{shop_at[1]}/run", credentials=str(token)))
        put(storage, source)
        storage.close()
        assert shop_at[0].tokens[-1] == f"Bearer {text}"


def test_credentials_that_others_may_read(
    shop_at: tuple[Shop, str], storage: Storage, source: Path, tmp_path: Path
) -> None:
    """A file with credentials that others may read is refused, with the remedy."""
    (tmp_path / "credentials").chmod(0o644)
    with pytest.raises(StorageFatal, match="chmod 600"):
        put(storage, source)
    assert shop_at[0].requests == []


def test_connection_refused(tmp_path: Path, source: Path) -> None:
    """Where nobody listens, the error says so and may be tried again."""
    for endpoint in (
        Endpoint("s3://bucket/x", endpoint_url="http://127.0.0.1:9", limits=QUICK),
        Endpoint("http://127.0.0.1:9/x", limits=QUICK),
    ):
        storage = open_endpoint(endpoint)
        with pytest.raises(StorageRetryable, match="no connection"):
            put(storage, source)
        storage.close()
