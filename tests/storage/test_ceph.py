"""Ceph's object gateway: the contract, and a whole run with broken and corrupted uploads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import real_servers
from fault_rows import corrupts_on_the_way, cut_at_each_tenth, keeps_other_bytes
from pilot_run import runner_in
from real_servers import BUCKET, Server
from relay import relay_to
from storage_runs import S3Runs, StorageRuns

from espilot.adapters.storage import Endpoint, open_endpoint
from espilot.adapters.storage.contract import CHECKS, Subject

COUNTER = itertools.count(1)


@pytest.fixture
def subject(ceph: Server, tmp_path: Path) -> Iterator[Subject]:
    """An empty prefix of a bucket; parts are small, so that a file has several."""
    prefix = f"contract-{next(COUNTER)}"
    endpoint = Endpoint(
        f"s3://{BUCKET}/{prefix}",
        storage_id=7,
        endpoint_url=ceph.facts["url"],
        credentials=ceph.facts["keys"],
        part_bytes=5 * 2**20,
    )
    storage = open_endpoint(endpoint)
    yield Subject(storage, tmp_path, lambda: real_servers.s3_listing(ceph, BUCKET, f"{prefix}/"))
    storage.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Subject], None], subject: Subject) -> None:
    """The gateway fulfils the contract, in one PUT and in parts."""
    check(subject)


@pytest.mark.parametrize(
    "row",
    [cut_at_each_tenth, corrupts_on_the_way, keeps_other_bytes],
    ids=lambda row: row.__name__,
)
def test_fault(ceph: Server, tmp_path: Path, row: Callable[[StorageRuns], None]) -> None:
    """The faults in which stores differ from one another: what is partial, false or rotten."""
    with relay_to(ceph.ports["s3"]) as relay, runner_in(tmp_path) as runner:
        row(S3Runs(ceph, relay, runner))
