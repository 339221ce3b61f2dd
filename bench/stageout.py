"""How fast outputs are packed, uploaded to a real object store and verified there.

The limit, in the same run, is the slower of `tar` to the same disk and a bare PUT of the same bytes
to the same store over one kept connection. The old way is one `tar -r` process for each file, and
then one PUT.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from bench.children import ROOT, BenchError, scratch
from bench.rows import Emit, compare, make_row, rounds
from espilot.adapters.archive import Member, member_names, seal
from espilot.adapters.outputs import OutputInspector
from espilot.adapters.storage import Endpoint, open_endpoint
from espilot.model import Archive
from espilot.ports import Storage

_CASES = (("2000 x 50 KiB", 2000, 50 * 2**10, 500), ("200 x 5 MiB", 200, 5 * 2**20, 50))
_ROUNDS, _BUDGET_S = 9, 30.0
"""No round of a case begins later; the small one takes little more than a second."""
_OLD_FILES = 1000
_UPLOADS = 2
_SEND_BYTES = 2**20
_MB = 1e6


def run(emit: Emit, *, tiny: bool) -> None:
    """Measure each case against its limit, and the first one against the old way."""
    with _store() as facts:
        for case, count, size_bytes, per_archive in _CASES:
            with scratch() as root:
                _measure(
                    emit, case, _Work(root, facts, 8 if tiny else count, size_bytes), per_archive
                )
        with scratch() as root:
            _measure_old(emit, _Work(root, facts, 8 if tiny else _OLD_FILES, _CASES[0][2]))


class _Work:
    """Outputs on disk, a storage, and what is needed to do without us."""

    def __init__(self, root: Path, facts: dict[str, Any], count: int, size_bytes: int) -> None:
        self.root = root
        self.facts = facts
        self.directory = root / "outputs"
        self.directory.mkdir()
        self.inspector = OutputInspector(self.directory, (), size_bytes)
        self.members = [self._make_member(k, size_bytes) for k in range(count)]
        self.megabytes = count * size_bytes / _MB
        self.storage: Storage = open_endpoint(
            Endpoint(
                f"s3://{facts['bucket']}/bench",
                endpoint_url=facts["url"],
                credentials=facts["keys"],
            )
        )

    def _make_member(self, k: int, size_bytes: int) -> Member:
        range_id = f"1234-5678-90123-{k}-1"
        path = self.directory / f"output-{k}"
        path.write_bytes(os.urandom(size_bytes))
        output = self.inspector.inspect(str(path))
        return Member(range_id, 1, member_names(("outputs.root",), range_id, 1), (output,))


def _measure(emit: Emit, case: str, work: _Work, per_archive: int) -> None:
    """Our way, tar, and a bare PUT, in turn."""
    pairs = []
    try:
        # The first upload imports the library and opens the connections: once in a run.
        _ours(work, work.members[:1], "warm", 1)
        for number in rounds(_ROUNDS, _BUDGET_S):
            tar_s = _tar(work)
            put_s = _bare_put(work, work.root / "all.tar", number)
            ours_s = _ours(work, work.members, f"round{number}", per_archive)
            (work.root / "all.tar").unlink()
            pairs.append((work.megabytes / ours_s, work.megabytes / max(tar_s, put_s)))
    finally:
        work.storage.close()
    emit(compare("stageout", case, "MB/s", pairs, rounds=len(pairs)))


def _measure_old(emit: Emit, work: _Work) -> None:
    """Our way against one process for each file."""
    try:
        _ours(work, work.members[:1], "warm", 1)
        ours_s = _ours(work, work.members, "new", len(work.members))
        started = time.perf_counter()
        target = work.root / "old.tar"
        for member in work.members:
            path = Path(member.outputs[0].path)
            subprocess.run(["tar", "-rf", target, "-C", path.parent, path.name], check=True)
        _bare_put(work, target, 0)
        old_s = time.perf_counter() - started
    finally:
        work.storage.close()
    emit(make_row("stageout", "times the old way", old_s / ours_s, "x"))


def _ours(work: _Work, members: list[Member], name: str, per_archive: int) -> float:
    """Pack one archive after the other while those before are uploaded; the seconds."""
    started = time.perf_counter()
    with ThreadPoolExecutor(_UPLOADS) as pool:
        uploads = []
        for k in range(0, len(members), per_archive):
            sealed = seal(
                work.root,
                f"{name}-{k}.tar",
                members[k : k + per_archive],
                job_id=1,
                open_output=work.inspector.open_checked,
            )
            if sealed.archive is None or sealed.dropped:
                raise BenchError(f"the archive is not complete: {sealed.dropped[:1]}")
            uploads.append(pool.submit(_upload, work, sealed.archive))
        archives = [upload.result() for upload in uploads]
    seconds = time.perf_counter() - started
    # As the others' files, after the clock has stopped.
    for name in archives:
        (work.root / name).unlink()
    return seconds


def _upload(work: _Work, archive: Archive) -> str:
    work.storage.put(
        work.root / archive.name,
        archive.name,
        size_bytes=archive.size_bytes,
        adler32=archive.adler32,
        crc32=archive.crc32,
    )
    return archive.name


def _tar(work: _Work) -> float:
    """One tar of all outputs; the seconds."""
    names = "\0".join(sorted(path.name for path in work.directory.iterdir()))
    argv = ["tar", "-cf", f"{work.root}/all.tar", "-C", str(work.directory), "--null", "-T", "-"]
    started = time.perf_counter()
    subprocess.run(argv, input=names.encode(), check=True)
    return time.perf_counter() - started


def _bare_put(work: _Work, path: Path, number: int) -> float:
    """PUT a file with nothing around it over a connection that is open already; the seconds."""
    url = urlsplit(_signed(work.facts, f"bare-{number}"))
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
    try:
        connection.connect()
        started = time.perf_counter()
        connection.putrequest("PUT", f"{url.path}?{url.query}")
        connection.putheader("Content-Length", str(path.stat().st_size))
        connection.endheaders()
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_SEND_BYTES):
                connection.send(piece)
        status = connection.getresponse().status
        if status != 200:
            raise BenchError(f"the bare PUT got HTTP {status}")
        return time.perf_counter() - started
    finally:
        connection.close()


def _signed(facts: dict[str, Any], key: str) -> str:
    """An address that may be PUT to."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=facts["url"],
        region_name="us-east-1",
        aws_access_key_id=facts["access"],
        aws_secret_access_key=facts["secret"],
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, proxies={}),
    )
    url: str = client.generate_presigned_url("put_object", {"Bucket": facts["bucket"], "Key": key})
    client.close()
    return url


@contextmanager
def _store() -> Iterator[dict[str, Any]]:
    """A real object store for the length of the block."""
    argv = [sys.executable, f"{ROOT}/tests/storage/real_servers.py", "seaweedfs"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise BenchError("the object store did not start; make servers installs it")
        yield json.loads(line)
    finally:
        process.communicate(timeout=60)
