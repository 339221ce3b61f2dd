"""The contract suite against real servers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import real_servers
from real_servers import BUCKET, Server

from espilot.adapters.storage import Endpoint, TransferLimits, contract, open_endpoint
from espilot.adapters.storage.contract import CHECKS, Subject, adler32_of
from espilot.errors import ConfigError, StorageRetryable
from espilot.ports import Storage

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


@pytest.fixture
def root_storage(xrootd: Server) -> Storage:
    """A directory that does not exist yet."""
    real_servers.require_program("xrdcp", "xrootd-client")
    url = f"root://127.0.0.1:{xrootd.ports['root']}//data/run{next(COUNTER)}"
    return open_endpoint(Endpoint(url, storage_id=7))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_xrootd(
    check: Callable[[Subject], None], root_storage: Storage, xrootd: Server, tmp_path: Path
) -> None:
    """XRootD through its own tools fulfils the contract."""
    seen = xrootd.directory / "data" / "data" / root_storage.url.rpartition("/")[2]
    check(
        Subject(
            root_storage,
            tmp_path,
            lambda: real_servers.files_below(seen),
            name="plain-1_2.tar",
        )
    )


def test_lesson_45_tool_that_hangs(
    xrootd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that does not end is ended, whatever it does."""
    (tmp_path / "bin").mkdir()
    for name in ("xrdcp", "xrdfs"):
        tool = tmp_path / "bin" / name
        tool.write_text("#!/bin/sh\nexec sleep 1000\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    source = tmp_path / "x.tar"
    source.write_bytes(b"x")
    limits = TransferLimits(idle_s=0.2, base_s=0.2)
    storage = open_endpoint(Endpoint("root://127.0.0.1:1//data", limits=limits))
    with pytest.raises(StorageRetryable, match="did not end in time"):
        storage.put(source, "x.tar", size_bytes=1, adler32=adler32_of(b"x"))


@pytest.mark.parametrize(
    ("words", "told"),
    [("echo on; echo the door is shut", "the door is shut"), ("", "ended with exit code 54")],
)
def test_lesson_21_tool_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    """The last words of a tool, else its exit code, are in the error; nothing counts as stored."""
    (tmp_path / "bin").mkdir()
    for name in ("xrdcp", "xrdfs"):
        tool = tmp_path / "bin" / name
        tool.write_text(f"#!/bin/sh\nexec >&2\n{words}\nexit 54\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    source = tmp_path / "x.tar"
    source.write_bytes(b"x")
    storage = open_endpoint(Endpoint("root://127.0.0.1:1//data"))
    with pytest.raises(StorageRetryable, match=told):
        storage.put(source, "x.tar", size_bytes=1, adler32=adler32_of(b"x"))


def test_tools_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the tools the address is refused, with what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"xrdcp is not installed.*XRootD client"):
        open_endpoint(Endpoint("root://localhost//data"))
