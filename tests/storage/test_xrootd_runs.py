"""Whole runs of the pilot with a real XRootD server; each ends with the accounting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import real_servers
import relay as relays
from fault_rows import survive
from pilot_run import eventually, runner_in
from real_servers import Server
from relay import relay_to
from storage_runs import FileRuns, storage_ids


class RootRuns(FileRuns):
    """With the root protocol, through the tools of its client."""

    below = "data"

    @property
    def url(self) -> str:
        return f"root://127.0.0.1:{self.relay.port}//data/{self.place}"


@pytest.fixture
def root_runs(xrootd: Server, tmp_path: Path) -> Iterator[RootRuns]:
    real_servers.require_program("xrdcp", "xrootd-client")
    with relay_to(xrootd.ports["root"]) as relay, runner_in(tmp_path) as runner:
        yield RootRuns(xrootd, relay, runner)


SHORT: dict[str, Any] = {"connect_s": 2.0, "idle_s": 3.0, "base_s": 5.0}


def test_main_job_with_broken_uploads(root_runs: RootRuns) -> None:
    """The main job runs with the root protocol; broken uploads cost retries and leave nothing."""
    root_runs.relay.next_ups = [relays.cut_after(tenth * 200_000) for tenth in (1, 4, 7, 9)]
    run = root_runs.start(transfer=SHORT)
    root_runs.require_finished(run)
    assert root_runs.relay.cuts >= 1
    assert storage_ids(run) == {42}


def test_server_is_gone_for_a_while(root_runs: RootRuns) -> None:
    """A server that takes no connection is trouble; when it is back the run finishes."""
    root_runs.relay.up = relays.refused
    run = root_runs.start(transfer=SHORT)
    survive(root_runs, run, "storage health changed state=trouble")


def test_corrupted_on_the_way(root_runs: RootRuns) -> None:
    """Bytes that change on the way are found by the server's checksum and never get the name."""
    root_runs.relay.up = relays.corrupted(b"ustar", b"uster")
    run = root_runs.start(transfer=SHORT)
    eventually(lambda: run.log.count("upload failed") > 1, what="refused uploads")
    assert not [name for name in root_runs.listing() if name.endswith(".tar")]
    survive(root_runs, run, "upload failed")
