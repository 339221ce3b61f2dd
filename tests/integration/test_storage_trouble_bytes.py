"""Downloads while this node's own disk fails: nothing that lacks a byte is ever called good."""

from __future__ import annotations

import re
import resource
import shutil
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from espilot.adapters.storage import Endpoint, TransferLimits, open_endpoint, open_storage
from espilot.adapters.storage.transfer import BREAKS
from espilot.errors import LocalError, StorageRetryable
from espilot.ports import Storage

DATA = bytes(range(256)) * 8192
"""Two MiB."""
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


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    """No file becomes longer than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Door(BaseHTTPRequestHandler):
    """Gives `DATA` from any byte on; when asked again there is room on the disk again."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.asked > 1:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        ranged = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        data = DATA[int(ranged[1]) if ranged else 0 :]
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            self.wfile.write(data)
        except OSError:
            self.close_connection = True


def get_with_full_disk(storage: Storage, target: Path) -> None:
    """Require that the download tells this node's fault and leaves nothing."""
    target.parent.mkdir()
    with full_disk(2**20), pytest.raises(LocalError, match=r"cannot write .*got: File too large"):
        storage.get("x.tar", target, size_bytes=len(DATA), adler32=ADLER)
    assert list(target.parent.iterdir()) == []


def test_disk_that_is_full_for_a_moment(tmp_path: Path) -> None:
    """Bytes that came and were not written are never counted: a download does not go on behind
    them."""
    door = type("Door", (Door,), {})
    with serving(door) as url:
        storage = open_endpoint(Endpoint(f"{url}/run", limits=QUICK))
        get_with_full_disk(storage, tmp_path / "local" / "got")
        storage.close()
    assert door.asked == 1, "a full disk is no broken connection"


class BreakingDoor(BaseHTTPRequestHandler):
    """Begins at the first byte each time, and breaks at half."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        type(self).asked += 1
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA[: len(DATA) // 2])


def test_download_that_breaks_at_the_same_place(tmp_path: Path) -> None:
    """Where a server always begins anew, the same bytes again are no progress: it is given up."""
    door = type("Door", (BreakingDoor,), {})
    limits = TransferLimits(connect_s=5.0, idle_s=5.0, base_s=5.0)
    with serving(door) as url:
        storage = open_endpoint(Endpoint(f"{url}/run", limits=limits))
        with pytest.raises(StorageRetryable):
            storage.get("x.tar", tmp_path / "got", size_bytes=len(DATA), adler32=ADLER)
        storage.close()
    assert door.asked == 1 + BREAKS
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_not_the_storages_fault(tmp_path: Path) -> None:
    """A local file that cannot grow is told as such, and not as a storage that cannot be read."""
    (tmp_path / "x.tar").write_bytes(DATA)
    get_with_full_disk(open_storage(str(tmp_path)), tmp_path / "local" / "got")


def test_directory_that_refuses_also_the_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even the temporary file can be removed, the first error is the one that counts."""

    def unlink(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    (tmp_path / "x.tar").write_bytes(DATA)
    (tmp_path / "local").mkdir()
    monkeypatch.setattr(Path, "unlink", unlink)
    with full_disk(2**20), pytest.raises(LocalError, match="File too large"):
        open_storage(str(tmp_path)).get(
            "x.tar", tmp_path / "local" / "got", size_bytes=len(DATA), adler32=ADLER
        )
    shutil.rmtree(tmp_path / "local")
