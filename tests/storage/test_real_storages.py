"""The contract suite against real servers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import real_servers
from real_servers import BUCKET, Server

from espilot.adapters.storage import Endpoint, contract, open_endpoint
from espilot.adapters.storage.contract import CHECKS, Subject, adler32_of

DATA = bytes(range(256)) * 4000
COUNTER = itertools.count(1)


@pytest.fixture
def s3_subject(seaweedfs: Server, tmp_path: Path) -> Iterator[Subject]:
    """An empty prefix of a bucket; parts are small, so that a file has several."""
    prefix = f"run {next(COUNTER)}"
    endpoint = Endpoint(
        f"s3://{BUCKET}/{prefix.replace(' ', '%20')}",
        storage_id=7,
        endpoint_url=seaweedfs.facts["url"],
        credentials=seaweedfs.facts["keys"],
        part_bytes=5 * 2**20,
    )
    storage = open_endpoint(endpoint)
    yield Subject(
        storage, tmp_path, lambda: real_servers.s3_listing(seaweedfs, BUCKET, f"{prefix}/")
    )
    storage.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_seaweedfs(check: Callable[[Subject], None], s3_subject: Subject) -> None:
    """An object store fulfils the contract, in one PUT and in parts."""
    check(s3_subject)


def dav_subject(
    server: Server, directory: Path, path: str, below: str, name: str = contract.NAME
) -> Subject:
    """A directory of a WebDAV server that does not exist yet."""
    run = f"run{next(COUNTER)}"
    url = f"http://127.0.0.1:{server.ports['http']}/{path}{run}"
    seen = server.directory / "data" / below / run
    return Subject(
        open_endpoint(Endpoint(url, storage_id=7)),
        directory,
        lambda: real_servers.files_below(seen),
        name=name,
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nginx(check: Callable[[Subject], None], nginx: Server, tmp_path: Path) -> None:
    """A WebDAV server that tells no checksum fulfils the contract."""
    subject = dav_subject(nginx, tmp_path, "", "")
    check(subject)
    subject.storage.close()


def test_redirect_to_a_disk_server(nginx: Server, tmp_path: Path) -> None:
    """A server that sends the upload elsewhere gets no body, the other one does."""
    run = f"run{next(COUNTER)}"
    storage = open_endpoint(Endpoint(f"http://127.0.0.1:{nginx.ports['http']}/moved/{run}"))
    source = tmp_path / "x.tar"
    source.write_bytes(DATA)
    storage.put(source, "x.tar", size_bytes=len(DATA), adler32=adler32_of(DATA))
    storage.close()
    seen = real_servers.files_below(nginx.directory / "data" / "disk" / "moved" / run)
    assert seen["x.tar"] == DATA


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_xrootd_http(check: Callable[[Subject], None], xrootd: Server, tmp_path: Path) -> None:
    """The HTTP door of XRootD, which tells checksums, fulfils the contract."""
    # Its MOVE takes the characters of a quoted name as they are.
    subject = dav_subject(xrootd, tmp_path, "data/", "data", name="plain-1_2.tar")
    check(subject)
    subject.storage.close()
