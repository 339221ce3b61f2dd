"""What sites do to storages: busy servers, missing files, narrow rights and masks, odd names."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from espilot.adapters.storage import Endpoint, TransferLimits, open_endpoint, open_storage
from espilot.adapters.storage.posix import PosixStorage
from espilot.core.retry import Backoff
from espilot.errors import StorageDiffers, StorageFatal, StorageRetryable
from espilot.ports import Storage
from espilot.workers.shipping import CheckedOutput, StageOut

DATA = bytes(range(256)) * (6 * 2**12)
"""Six MiB: more than one part of an object store."""
ADLER = f"{zlib.adler32(DATA):08x}"
QUICK = TransferLimits(connect_s=5.0, idle_s=5.0)


@contextmanager
def serving(door: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on a port of its own; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), door)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "x.tar"
    path.write_bytes(DATA)
    return path


class Quiet:
    """For the log of a stage-out that fails."""

    def warning(self, *_: object, **__: object) -> None:
        pass


class BusyDoor(BaseHTTPRequestHandler):
    """A server that asks for a pause of a day."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        return True

    def do_PUT(self) -> None:
        self.close_connection = True
        self.send_response(503)
        self.send_header("Retry-After", "86400")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_DELETE = do_PUT


def test_pause_that_a_server_asks_for(source: Path) -> None:
    """An output waits as long as the server asks for, but not beyond our own longest pause."""
    pauses: list[float] = []
    log: Any = Quiet()
    output = CheckedOutput("x.tar", source, len(DATA), ADLER)
    with serving(BusyDoor) as url:
        storage = open_endpoint(Endpoint(f"{url}/run", limits=QUICK))
        stageout = StageOut(
            {"busy": storage},
            Backoff(1.0, 50.0, attempts=2),
            log=log,
            pause=lambda pause_s: bool(pauses.append(pause_s)),
        )
        with pytest.raises(StorageRetryable, match="HTTP 503"):
            stageout.ship(output)
        storage.close()
    assert pauses == [50.0]


@pytest.fixture
def root_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """The tools of XRootD say that there is no such file, whatever they are to do."""
    (tmp_path / "bin").mkdir()
    for name in ("xrdcp", "xrdfs"):
        tool = tmp_path / "bin" / name
        words = "Server responded with an error: [3011] No such file"
        tool.write_text(f"#!/bin/sh\necho '[ERROR] {words}' >&2\nexit 54\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return open_endpoint(Endpoint("root://127.0.0.1:1//data", limits=QUICK))


def test_xrootd_misses_a_file(root_storage: Storage, tmp_path: Path, source: Path) -> None:
    """A file that is not there differs, as on every other kind of storage; deleting it is well."""
    with pytest.raises(StorageDiffers, match="No such file"):
        root_storage.get("x.tar", tmp_path / "got", size_bytes=1, adler32=ADLER)
    with pytest.raises(StorageDiffers, match="No such file"):
        root_storage.verify("x.tar", size_bytes=1, adler32=ADLER)
    root_storage.delete("x.tar")
    with pytest.raises(StorageRetryable) as caught:
        root_storage.put(source, "x.tar", size_bytes=len(DATA), adler32=ADLER)
    assert type(caught.value) is StorageRetryable, "an upload misses a directory, and no file"


def test_members_with_a_narrow_mask(tmp_path: Path) -> None:
    """Whatever the mask of this process, the group may read what it shall take."""
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("out.1-2-3-4-1")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"first"))
    data = archive.read_bytes()
    old = os.umask(0o077)
    try:
        open_storage(f"members:{tmp_path / 'shared'}").put(
            archive, "a.tar", size_bytes=len(data), adler32=f"{zlib.adler32(data):08x}"
        )
    finally:
        os.umask(old)
    assert (tmp_path / "shared" / "out.1-2-3-4-1").stat().st_mode & 0o777 == 0o640


class StoreDoor(BaseHTTPRequestHandler):
    """As much of an object store as an upload in parts needs; nobody may list."""

    protocol_version = "HTTP/1.1"
    parts: dict[str, bytes]
    done: list[bytes]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, body: str = "", **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body.encode() if self.command != "HEAD" else b"")

    def do_GET(self) -> None:
        if self.path.partition("?")[2]:
            return self.answer(403, "<Error><Code>AccessDenied</Code></Error>")
        self.answer(200, **{"Content-Length": str(len(self.done[0]))})
        self.wfile.write(self.done[0])
        return None

    def do_HEAD(self) -> None:
        self.answer(200, **{"Content-Length": str(len(self.done[0])), "ETag": '"x"'})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if "uploadId" in self.path:
            self.done.append(b"".join(part for _, part in sorted(self.parts.items())))
            return self.answer(200, "<R><ETag>x</ETag></R>")
        return self.answer(200, "<R><Bucket>b</Bucket><Key>k</Key><UploadId>u1</UploadId></R>")

    def do_PUT(self) -> None:
        number = self.path.partition("partNumber=")[2].partition("&")[0]
        self.parts[number] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, ETag='"x"')

    def do_DELETE(self) -> None:
        self.answer(204)


def test_parts_without_the_right_to_list(source: Path) -> None:
    """Credentials that may only put, get and delete are enough for an upload in parts."""
    door = type("OneDoor", (StoreDoor,), {"parts": {}, "done": []})
    with serving(door) as url:
        storage = open_endpoint(
            Endpoint("s3://bucket/run", endpoint_url=url, part_bytes=5 * 2**20, limits=QUICK)
        )
        storage.put(source, "x.tar", size_bytes=len(DATA), adler32=ADLER)
        storage.close()
    assert door.done == [DATA]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_name_of_what_is_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A pipe, a directory or a device in a storage is refused and not waited on."""
    make(tmp_path / "x.tar")
    storage = PosixStorage(tmp_path, 1)
    told: list[BaseException] = []

    def read() -> None:
        for call in (
            lambda: storage.verify("x.tar", size_bytes=1, adler32=ADLER),
            lambda: storage.get("x.tar", tmp_path / "got", size_bytes=1, adler32=ADLER),
        ):
            try:
                call()
            except StorageFatal as error:
                told.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10.0)
    assert ["is no file" in str(error) for error in told] == [True, True]
