"""What tests with real storage servers share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_servers
from real_servers import BUCKET, Server

# The runs of the pilot and their accounting are those of the fault tests.
sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[Server]:
    """An object store with an empty bucket."""
    with real_servers.seaweedfs() as server:
        real_servers.make_bucket(server, BUCKET)
        yield server


@pytest.fixture(scope="module")
def ceph() -> Iterator[Server]:
    """The object gateway of Ceph, with an empty bucket."""
    with real_servers.ceph() as server:
        real_servers.make_bucket(server, BUCKET)
        yield server


@pytest.fixture(scope="module")
def nginx() -> Iterator[Server]:
    """A web server that takes WebDAV."""
    with real_servers.nginx() as server:
        yield server


@pytest.fixture(scope="module")
def xrootd() -> Iterator[Server]:
    """An XRootD server with its HTTP door."""
    with real_servers.xrootd() as server:
        yield server
