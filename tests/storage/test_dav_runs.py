"""Whole runs of the pilot with real WebDAV servers, well or sick; each ends with the accounting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import real_servers
import relay as relays
from fault_rows import ROWS, survive
from pilot_run import FAKE, eventually, job_text, runner_in
from real_servers import SECRET, Server
from relay import relay_to
from small_disk import enlarge, small_disk
from storage_runs import EVENTS, QUICK, FileRuns, StorageRuns, storage_ids


class NginxRuns(FileRuns):
    """With a WebDAV server that wants a token and tells no checksums."""

    below = "guarded"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.relay.port}/guarded/{self.place}"

    @property
    def token(self) -> Path:
        """The file with the token."""
        return self.runner.directory / "token"

    @property
    def secrets(self) -> tuple[Path, ...]:
        return (self.token,)

    def facts(self) -> dict[str, Any]:
        if not self.token.exists():
            real_servers.token_file(self.runner.directory)
        return {"credentials": "token"}


class DoorRuns(FileRuns):
    """With the HTTP door of XRootD, which tells checksums."""

    below = "data"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.relay.port}/data/{self.place}"


@pytest.fixture
def nginx_runs(nginx: Server, tmp_path: Path) -> Iterator[NginxRuns]:
    with relay_to(nginx.ports["http"]) as relay, runner_in(tmp_path) as runner:
        yield NginxRuns(nginx, relay, runner)


@pytest.fixture
def door_runs(xrootd: Server, tmp_path: Path) -> Iterator[DoorRuns]:
    with relay_to(xrootd.ports["http"]) as relay, runner_in(tmp_path) as runner:
        yield DoorRuns(xrootd, relay, runner)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_fault(nginx_runs: NginxRuns, row: Callable[[StorageRuns], None]) -> None:
    """Whatever the server does, the run ends with every output on it and nothing else."""
    row(nginx_runs)


def test_expired_token_then_renewed(nginx_runs: NginxRuns) -> None:
    """A token that the server refuses is trouble; a renewed one counts without a restart."""
    real_servers.token_file(nginx_runs.runner.directory, "expired")
    run = nginx_runs.start()
    eventually(lambda: "HTTP 403; give these credentials the right" in run.log, what="refusal")
    real_servers.token_file(nginx_runs.runner.directory)
    nginx_runs.require_finished(run)
    assert storage_ids(run) == {42}


def test_disk_full_at_the_server(nginx_runs: NginxRuns) -> None:
    """A server whose disk is full is trouble; when it has room the run finishes."""
    nginx_runs.directory.mkdir(parents=True)
    with small_disk(nginx_runs.directory, "1m"):
        run = nginx_runs.start()
        eventually(lambda: "HTTP 500" in run.log, what="full disk")
        assert run.booked == 0
        enlarge(nginx_runs.directory, "64m")
        nginx_runs.require_finished(run)


def test_host_is_unknown(nginx_runs: NginxRuns) -> None:
    """A name that is not known is told with its address; the fail-over takes the outputs."""
    text = job_text(f"{FAKE} --outsize 1000", events=EVENTS, stageout=QUICK)
    text += "\n[endpoints.a]\nactivities = ['es_events']\nurl = 'davs://no-such-host.invalid/x'\n"
    text += f"\n[endpoints.b]\nactivities = ['es_failover']\nurl = '{nginx_runs.url}'\n"
    text += nginx_runs.endpoint()
    run = nginx_runs.runner.start(text)
    nginx_runs.require_finished(run, size=1000)
    assert "no-such-host.invalid/x: cannot upload" in run.log
    assert "the host is unknown" in run.log


def test_door_of_xrootd(door_runs: DoorRuns) -> None:
    """The main job runs with the HTTP door of XRootD; a cut upload leaves nothing behind there."""
    door_runs.relay.next_ups = [relays.CutUpload(0.5)]
    run = door_runs.start()
    door_runs.require_finished(run)
    assert door_runs.relay.cuts == 1


def test_checksum_told_wrongly(door_runs: DoorRuns) -> None:
    """A server that tells wrong checksums is not believed until it tells the right ones."""
    door_runs.relay.down = relays.rewritten(rb"(?i)(digest: adler32=)[0-9a-f]{4}", rb"\g<1>0bad")
    run = door_runs.start()
    eventually(lambda: "with adler32 0bad" in run.log, what="difference")
    assert run.booked == 0
    survive(door_runs, run, "instead of")


def test_no_secret_goes_to_the_payload(nginx_runs: NginxRuns) -> None:
    """Neither environment nor command line of any process holds the token."""
    run = nginx_runs.start()
    pid = eventually(lambda: run.pid_of("payload"), what="payload")
    assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    nginx_runs.require_finished(run)
