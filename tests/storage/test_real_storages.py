"""The contract suite against real servers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import real_servers
from real_servers import BUCKET, Server

from espilot.adapters.storage import Endpoint, open_endpoint
from espilot.adapters.storage.contract import CHECKS, Subject

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
