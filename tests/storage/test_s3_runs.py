"""Whole runs of the pilot with a real object store, well or sick; each ends with the accounting."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import real_servers
import relay as relays
from fault_rows import ROWS, survive
from pilot_run import FAKE, ROOT, Run, eventually, job_text, runner_in
from real_servers import BUCKET, SECRET, Server
from relay import relay_to
from small_disk import enlarge, small_disk
from storage_runs import EVENTS, QUICK, S3Runs, StorageRuns, storage_places

FILLING_BYTES = 2**20


@pytest.fixture
def s3_runs(seaweedfs: Server, tmp_path: Path) -> Iterator[S3Runs]:
    with relay_to(seaweedfs.ports["s3"]) as relay, runner_in(tmp_path) as runner:
        yield S3Runs(seaweedfs, relay, runner)


def test_main_job(s3_runs: S3Runs) -> None:
    """The main job runs with an object store, and reports the store's id."""
    run = s3_runs.start()
    eventually(lambda: run.pid_of("stageout"), what="stage-out worker")
    secret_of_no_process(run)
    s3_runs.require_finished(run)
    assert storage_places(run) == {"42/1000"}


def secret_of_no_process(run: Run) -> None:
    """Lesson 50: neither command lines nor environments of the pilot's processes hold the keys."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            texts = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(run.workdir).encode() in b"".join(texts):
            assert SECRET.encode() not in b"".join(texts), entry


def test_ready_made_job(s3_runs: S3Runs) -> None:
    """The job of `make run`, shortened, ends with its merged file in the store."""
    uproot = pytest.importorskip("uproot")
    pytest.importorskip("pythia8mc")
    jobs = ROOT / "etc" / "jobs"
    text = (jobs / "zmumu.toml").read_text().replace("{jobdir}", str(jobs))
    text = text.replace("events = 1000\n", "events = 40\n")
    text += "\n[limits]\nfree_start_bytes = 0\nfree_bytes = 0\n"
    text += f"\n[endpoints.storage]\n{s3_runs.endpoint()}\n"
    run = s3_runs.runner.start(text, "--storage", s3_runs.url)
    assert run.end(120.0) == 0, run.stderr + run.log[-4000:]
    merged = s3_runs.runner.directory / "zmumu.root"
    merged.write_bytes(s3_runs.listing()["zmumu.root"])
    with uproot.open(merged) as file:
        assert file["events"]["event"].array(library="np").tolist() == list(range(1, 41))
    s3_runs.require_no_secret()


def test_lesson_50_named_variables(s3_runs: S3Runs) -> None:
    """Keys in named variables of our environment reach the stage-out worker and nobody else."""
    endpoint = s3_runs.endpoint(credentials="env:THE_ACCESS, THE_SECRET")
    text = job_text(f"{FAKE} --delay-ms 50", events=EVENTS, stageout=QUICK)
    run = s3_runs.runner.start(
        f"{text}\n[endpoints.storage]\n{endpoint}\n",
        "--storage",
        s3_runs.url,
        env={"THE_ACCESS": real_servers.ACCESS, "THE_SECRET": SECRET},
    )
    run.wait_booked(1)
    allowed = {run.pid_of("stageout"), run.pid_of("supervisor")}
    roles = ("dispatcher", "event-server", "builtin-server", "launcher", "payload")
    for pid in {pid for role in roles if (pid := run.pid_of(role))} - allowed:
        assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes(), pid
    s3_runs.require_finished(run, size=100)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_fault(s3_runs: S3Runs, row: Callable[[StorageRuns], None]) -> None:
    """Whatever the store does, the run ends with every output in it."""
    row(s3_runs)


def test_checksum_told_wrongly(s3_runs: S3Runs) -> None:
    """A store that tells wrong checksums of what it has right is read back, and believed then."""
    for pattern in (rb'(?i)(etag: ")..', rb"(?i)(x-amz-checksum-crc32: ).."):
        s3_runs.relay.down = both(s3_runs.relay.down, relays.rewritten(pattern, rb"\1zz"))
    run = s3_runs.start()
    s3_runs.require_finished(run)


def both(first: relays.Change, second: relays.Change) -> relays.Change:
    """One change after the other."""
    return lambda before, piece: second(before, first(before, piece) or b"")


def test_wrong_keys_then_renewed(s3_runs: S3Runs) -> None:
    """Keys that the store refuses are trouble; renewed ones count without a restart."""
    good = s3_runs.keys.read_text()
    s3_runs.keys.write_text(good.replace(SECRET, "wrong"))
    run = s3_runs.start()
    eventually(lambda: "HTTP 403 SignatureDoesNotMatch" in run.log, what="refusal")
    s3_runs.keys.write_text(good)
    s3_runs.require_finished(run)


def test_expired_token_then_renewed(s3_runs: S3Runs) -> None:
    """A token that has expired waits for its renewal, and costs no stage-out."""
    body = "<Error><Code>ExpiredToken</Code><Message>old</Message></Error>"
    s3_runs.relay.down = relays.answering("403 Forbidden", body=body)
    survive(s3_runs, s3_runs.start(), "HTTP 403 ExpiredToken; renew the credentials")


def test_disk_full_at_the_store(tmp_path: Path) -> None:
    """A store whose disk is full is trouble; when it has room the run finishes."""
    disk = partial(small_disk, size="32m")
    with (
        real_servers.seaweedfs(disk) as server,
        relay_to(server.ports["s3"]) as relay,
        runner_in(tmp_path) as runner,
    ):
        real_servers.make_bucket(server, BUCKET)
        fill(server)
        runs = S3Runs(server, relay, runner)
        run = runs.start()
        eventually(lambda: "HTTP 500 InternalError" in run.log, what="full store")
        assert run.booked == 0
        enlarge(server.directory / "data", "256m")
        runs.require_finished(run)


def fill(server: Server) -> None:
    """Put objects that cannot be compressed until there is no room."""
    from botocore.exceptions import ClientError

    client = real_servers.s3_client(server)
    try:
        for number in range(1000):
            body = os.urandom(FILLING_BYTES)
            client.put_object(Bucket="probe", Key=f"filling-{number}", Body=body)
    except ClientError:
        return
    finally:
        client.close()
    raise AssertionError("the store is not full")


def test_failover(s3_runs: S3Runs) -> None:
    """When the first store is away, the outputs go to the second, whose id is reported, with its
    convention of paths."""
    s3_runs.relay.up = relays.refused
    second = s3_runs.direct(activities=["es_failover"], path_convention=1007)
    run = s3_runs.start(endpoints=f"\n[endpoints.second]\n{second}\n")
    s3_runs.require_finished(run)
    assert storage_places(run) == {"43/1007"}
    assert "state=trouble" not in run.log


def test_host_is_unknown(s3_runs: S3Runs) -> None:
    """A name that is not known is told with its address; the fail-over takes the outputs."""
    first = s3_runs.endpoint(endpoint_url="http://no-such-host.invalid:1", url="s3://gone/x")
    text = job_text(f"{FAKE} --outsize 1000", events=EVENTS, stageout=QUICK)
    text += f"\n[endpoints.a]\nactivities = ['es_events']\n{first}\n"
    text += f"\n[endpoints.b]\nactivities = ['es_failover']\n{s3_runs.direct()}\n"
    run = s3_runs.runner.start(text)
    s3_runs.require_finished(run, size=1000)
    assert re.search(r"upload failed.*no-such-host.invalid", run.log)
