"""An object store that speaks S3, through boto3.

An archive goes up in parts of bounded size, each with a checksum that the store compares; one part
is one PUT, more are a multipart upload. The checksum of the whole file is compared before the
upload is completed, so that nothing false or partial ever has the final name; then the store is
asked for size and checksum of what it has. Each byte is read once.

The checksum is a CRC32 where the store shows that it knows it, else Content-MD5, which every store
compares and which costs four times as much. Where the CRC32 of a whole archive is known from its
sealing, it is sent while it is read, and its last bytes only if they are what they should be.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from isal.isal_zlib import adler32

from espilot.adapters.storage.credentials import check_credentials, read_keys
from espilot.adapters.storage.endpoint import Endpoint, require_name
from espilot.adapters.storage.s3_address import Address, read_address
from espilot.adapters.storage.s3_sums import Crc32, Md5, sums_of
from espilot.adapters.storage.transfer import (
    PIECE_BYTES,
    Summing,
    Watch,
    WatchedBytes,
    WatchedFile,
    opened_source,
    receive,
    require_same,
    require_source_size,
    sum_up,
)
from espilot.direct_io import (
    BLOCK_BYTES,
    aligned_buffer,
    go_past_cache,
    read_some,
    whole_blocks,
)
from espilot.errors import StorageError

if TYPE_CHECKING:
    from espilot.adapters.storage.s3_client import S3Client

LEAST_PART_BYTES = 5 * 2**20
"""Smaller parts are refused by stores, but for the last one."""
MOST_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class _Upload:
    """What is known of an upload: where it goes, what it must be, its clock."""

    key: str
    size_bytes: int
    adler32: str
    watch: Watch


class S3Storage:
    """Stores files as objects below one prefix of a bucket."""

    def __init__(self, endpoint: Endpoint) -> None:
        check_credentials(endpoint.credentials)
        self._endpoint = endpoint
        self._address: Address = read_address(endpoint.url, endpoint.endpoint_url, endpoint.scope)
        self._client: S3Client | None = None
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._buffers = _Buffers(self._part_bytes(0))

    @property
    def url(self) -> str:
        """Where it is."""
        return self._address.url

    @property
    def storage_id(self) -> int:
        """The id of the endpoint, for reports."""
        return self._endpoint.storage_id

    def put(
        self, source: Path, name: str, *, size_bytes: int, adler32: str, crc32: str = ""
    ) -> None:
        """Upload `source` as `name`; the store verifies each part, and we what it then has."""
        require_name(name, self.url)
        what = f"storage {self.url}: upload of {name}"
        watch = Watch(self._endpoint.limits, size_bytes, what)
        upload = _Upload(self._address.key(name), size_bytes, adler32.lower(), watch)
        with opened_source(source, name, self.url) as file, self._translated("upload", name):
            require_source_size(file, size_bytes, what)
            part_bytes = self._part_bytes(size_bytes)
            stored: Crc32 | Md5
            if size_bytes <= part_bytes and crc32 and self._connected().knows_crc32:
                stored = self._put_known(file, crc32, upload, what)
            else:
                stored = self._put_summed(file, part_bytes, upload, what)
            self._verify_stored(name, upload, stored)

    def verify(self, name: str, *, size_bytes: int, adler32: str) -> None:
        """Read `name` and compare."""
        require_name(name, self.url)
        what = f"storage {self.url}: {name}"
        found = sum_up(self._opened(name, 0), Watch(self._endpoint.limits, size_bytes, what))
        require_same(what, found, size_bytes=size_bytes, adler32=adler32, where="is there")

    def get(self, name: str, target: Path, *, size_bytes: int, adler32: str) -> None:
        """Download `name`, verified; goes on where a connection broke."""
        require_name(name, self.url)
        what = f"storage {self.url}: download of {name}"
        receive(
            lambda offset: self._opened(name, offset),
            target,
            size_bytes=size_bytes,
            adler32=adler32,
            watch=Watch(self._endpoint.limits, size_bytes, what),
            what=what,
        )

    def delete(self, name: str) -> None:
        """Remove `name`; a missing one, and a missing bucket, is no error."""
        require_name(name, self.url)
        with self._translated("delete", name, missing_is_well=True):
            self._connected().call("delete_object", Key=self._address.key(name))

    def url_of(self, name: str) -> str:
        """Give the object's URL."""
        require_name(name, self.url)
        return self._address.url_of(name)

    def close(self) -> None:
        """Close the connections and end the threads."""
        with self._lock:
            client, self._client = self._client, None
            pool, self._pool = self._pool, None
        if client is not None:
            client.close()
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    # -- uploading ------------------------------------------------------------------------------

    def _part_bytes(self, size_bytes: int) -> int:
        """Bytes of one part; larger ones where there would be too many."""
        wanted = max(self._endpoint.part_bytes, LEAST_PART_BYTES)
        return max(wanted, -(-size_bytes // MOST_PARTS))

    def _put_known(self, file: BinaryIO, crc32: str, upload: _Upload, what: str) -> Crc32:
        """Send while it is read: the checksum that the store compares is known before."""
        crc = Crc32()
        body = WatchedFile(
            file, upload.watch, what, size_bytes=upload.size_bytes, adler32=upload.adler32
        )
        self._connected().call(
            "put_object",
            Key=upload.key,
            Body=body,
            Metadata={"adler32": upload.adler32},
            **crc.add_known(crc32),
        )
        return crc

    def _put_summed(
        self, file: BinaryIO, part_bytes: int, upload: _Upload, what: str
    ) -> Crc32 | Md5:
        """Read each part, sum it up and send it."""
        go_past_cache(file.fileno())
        count = min(self._endpoint.part_threads, -(-upload.size_bytes // part_bytes))
        with self._buffers.borrowed(max(1, count), part_bytes) as buffers:
            if upload.size_bytes <= part_bytes:
                return self._put_at_once(file, buffers[0], upload, what)
            return self._put_in_parts(file, buffers, part_bytes, upload, what)

    def _put_at_once(
        self, file: BinaryIO, room: memoryview, upload: _Upload, what: str
    ) -> Crc32 | Md5:
        data = _read_part(file, room, upload.size_bytes)
        found = len(data), f"{adler32(data):08x}"
        _require_source(what, found, upload)
        client = self._connected()
        crc = Crc32()
        arguments = crc.add(data)
        md5 = Md5()
        if not client.knows_crc32:
            arguments |= md5.add(data)
        answer = client.call(
            "put_object",
            Key=upload.key,
            Body=WatchedBytes(data, upload.watch),
            Metadata={"adler32": upload.adler32},
            **arguments,
        )
        if client.knows_crc32:
            return crc
        # From now on it is enough.
        client.knows_crc32 = answer.get("ChecksumCRC32") == arguments["ChecksumCRC32"]
        return md5

    def _put_in_parts(
        self, file: BinaryIO, buffers: list[memoryview], part_bytes: int, upload: _Upload, what: str
    ) -> Crc32 | Md5:
        """Send a few parts at a time; the multipart upload is completed, or else aborted."""
        client = self._connected()
        client.abort_leftovers(upload.key)
        with client.multipart(upload.key, {"adler32": upload.adler32}) as multipart:
            sums = sums_of(multipart.algorithm)
            waiting: list[Future[None]] = []
            sink = Summing()
            # A part that was sent leaves its buffer.
            most = len(buffers)
            left = upload.size_bytes
            try:
                while data := _read_part(file, buffers[sums.parts % most][:part_bytes], left):
                    left -= len(data)
                    sink.add(data)
                    checksum = sums.add(data)
                    body, number = WatchedBytes(data, upload.watch), sums.parts
                    waiting.append(self._threads().submit(multipart.send, number, body, checksum))
                    if len(waiting) == most:
                        waiting.pop(0).result()
                for future in waiting:
                    future.result()
            finally:
                for future in waiting:
                    future.cancel()
                # A part that arrived after the abort would stay at the store.
                wait(waiting)
            _require_source(what, sink.found, upload)
            multipart.complete()
        return sums

    def _verify_stored(self, name: str, upload: _Upload, sums: Crc32 | Md5) -> None:
        """Ask the store what it has; where it tells no checksum that we know, read it back."""
        answer = self._connected().call("head_object", Key=upload.key, ChecksumMode="ENABLED")
        if answer.get("ContentLength") == upload.size_bytes and sums.agree(answer):
            return
        try:
            self.verify(name, size_bytes=upload.size_bytes, adler32=upload.adler32)
        except StorageError:
            self.delete(name)
            raise

    # -- downloading ----------------------------------------------------------------------------

    @contextmanager
    def _opened(self, name: str, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        with self._translated("read", name):
            ranged = {"Range": f"bytes={offset}-"} if offset else {}
            answer = self._connected().call("get_object", Key=self._address.key(name), **ranged)
            body = answer["Body"]
            try:
                start = offset if "ContentRange" in answer else 0
                yield start, body.iter_chunks(PIECE_BYTES)
            finally:
                body.close()

    # -- the client -----------------------------------------------------------------------------

    def _connected(self) -> S3Client:
        """Give the client; a new one when the credentials were renewed."""
        # Here, since it takes half a second to import.
        from espilot.adapters.storage.s3_client import S3Client

        keys = read_keys(self._endpoint.credentials, self._endpoint.profile)
        with self._lock:
            if self._client is None or self._client.keys != keys:
                self._client = S3Client(self._endpoint, self._address, keys)
            return self._client

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._endpoint.part_threads)
            return self._pool

    @contextmanager
    def _translated(self, action: str, name: str, missing_is_well: bool = False) -> Iterator[None]:
        """Turn boto's errors into a StorageError that says what to do."""
        from espilot.adapters.storage.s3_client import FOREIGN_ERRORS, explain, is_missing

        try:
            yield
        except FOREIGN_ERRORS as error:
            if missing_is_well and is_missing(error):
                return
            what = f"storage {self._address.where}: cannot {action} {name}"
            raise explain(what, error, renewable=bool(self._endpoint.credentials)) from None


def _require_source(what: str, found: tuple[int, str], upload: _Upload) -> None:
    require_same(
        what, found, size_bytes=upload.size_bytes, adler32=upload.adler32, where="are on this disk"
    )


def _read_part(file: BinaryIO, view: memoryview, left_bytes: int) -> memoryview:
    """Fill the view from the file; returns what was read, less at the end of the file.

    So many bytes are left in it; if it has become longer, one more is read.
    """
    view, count = view[: whole_blocks(max(0, left_bytes) + 1)], 0
    while count < len(view) and (more := read_some(file.fileno(), view[count:])):
        count += more
    return view[:count]


class _Buffers:
    """Memory for what is on its way, used again while any upload goes on: fresh memory costs as
    much as the checksums of what is read into it."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._free: list[memoryview] = []
        self._borrowers = 0
        self._lock = threading.Lock()

    @contextmanager
    def borrowed(self, count: int, size_bytes: int) -> Iterator[list[memoryview]]:
        """So many buffers with room for `size_bytes`, and for a block more."""
        room = max(self._size_bytes, size_bytes) + BLOCK_BYTES
        with self._lock:
            self._borrowers += 1
            taken, self._free = self._free[:count], self._free[count:]
        try:
            taken = [view for view in taken if len(view) >= room]
            taken += [aligned_buffer(room) for _ in range(count - len(taken))]
            yield taken
        finally:
            with self._lock:
                self._borrowers -= 1
                self._free = [*self._free, *taken] if self._borrowers else []
