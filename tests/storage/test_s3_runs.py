"""Whole runs of the pilot with a real object store, well or sick; each ends with the accounting."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import real_servers
import relay as relays
from pilot_run import FAKE, Run, Runner, eventually, job_text, runner_in
from real_servers import BUCKET, SECRET, Server
from relay import Relay, relay_to

COUNTER = itertools.count(1)
EVENTS = 60
QUICK: dict[str, Any] = {
    "attempts": 3,
    "retry_min_s": 0.05,
    "retry_max_s": 0.3,
    "give_up_after": 2,
    "storage_wait_s": 120.0,
}


class S3Runs:
    """Runs with a prefix of their own in the store, through a relay."""

    def __init__(self, server: Server, relay: Relay, runner: Runner, directory: Path) -> None:
        self.server = server
        self.relay = relay
        self.runner = runner
        self.prefix = f"run-{next(COUNTER)}"
        self.keys = real_servers.keys_file(directory)
        self._seen = directory / "seen"

    def endpoint(self, port: int | None = None, **more: Any) -> str:
        """The endpoint's section of the job file."""
        facts = {
            "endpoint_url": f"http://127.0.0.1:{port or self.relay.port}",
            "credentials": self.keys.name,
            "id": 42,
            **more,
        }
        return "\n".join(f"{key} = {value!r}" for key, value in facts.items())

    def start(
        self, *, endpoints: str = "", transfer: dict[str, Any] | None = None, size: int = 100_000
    ) -> Run:
        """Start the main job with this storage."""
        text = job_text(
            f"{FAKE} --clients 2 --delay-ms 1 --outsize {size}",
            events=EVENTS,
            stageout=QUICK,
            transfer=transfer or {},
        )
        text += "\n[endpoints.storage]\n" + self.endpoint() + "\n" + endpoints
        return self.runner.start(text, "--storage", f"s3://{BUCKET}/{self.prefix}")

    def require_finished(self, run: Run, *, size: int = 100_000) -> None:
        """The run ends well and the accounting is content with what others see in the store."""
        assert run.end(120.0) == 0, run.stderr[-2000:] + run.log[-4000:]
        self._seen.mkdir()
        for name, data in self.listing().items():
            (self._seen / name).write_bytes(data)
        run.storage = self._seen
        run.require_finished(EVENTS, size_bytes=size)
        self.require_no_secret(run)

    def listing(self) -> dict[str, bytes]:
        """What others see below the prefix."""
        return real_servers.s3_listing(self.server, BUCKET, f"{self.prefix}/")

    def require_no_secret(self, run: Run) -> None:
        """No log, output or file of the run holds the secret, but the credentials themselves."""
        for path in self.runner.directory.rglob("*"):
            if path.is_file() and path != self.keys:
                assert SECRET.encode() not in path.read_bytes(), path


@pytest.fixture
def s3_runs(seaweedfs: Server, tmp_path: Path) -> Iterator[S3Runs]:
    with relay_to(seaweedfs.ports["s3"]) as relay, runner_in(tmp_path) as runner:
        yield S3Runs(seaweedfs, relay, runner, tmp_path)


def test_main_job(s3_runs: S3Runs) -> None:
    """The main job runs with an object store, and reports the store's id."""
    run = s3_runs.start()
    eventually(lambda: run.pid_of("stageout"), what="stage-out worker")
    secret_of_no_process(run)
    s3_runs.require_finished(run)
    assert storage_ids(run) == {42}


def secret_of_no_process(run: Run) -> None:
    """Lesson 50: neither command lines nor environments of the pilot's processes hold the keys."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            texts = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(run.workdir).encode() in b"".join(texts):
            assert SECRET.encode() not in b"".join(texts), entry


def storage_ids(run: Run) -> set[int]:
    """The storage ids that the server was told."""
    import sqlite3

    db = sqlite3.connect(f"file:{run.database}?mode=ro", uri=True)
    try:
        return {int(row[0].partition("/")[0]) for row in db.execute("SELECT storage FROM archive")}
    finally:
        db.close()


def test_lesson_50_named_variables(s3_runs: S3Runs) -> None:
    """Keys in named variables of our environment reach the stage-out worker and nobody else."""
    endpoint = s3_runs.endpoint(credentials="env:THE_ACCESS, THE_SECRET")
    text = job_text(f"{FAKE} --delay-ms 50", events=EVENTS, stageout=QUICK)
    run = s3_runs.runner.start(
        f"{text}\n[endpoints.storage]\n{endpoint}\n",
        "--storage",
        f"s3://{BUCKET}/{s3_runs.prefix}",
        env={"THE_ACCESS": real_servers.ACCESS, "THE_SECRET": SECRET},
    )
    run.wait_booked(1)
    allowed = {run.pid_of("stageout"), run.pid_of("supervisor")}
    roles = ("dispatcher", "event-server", "builtin-server", "launcher", "payload")
    for pid in {pid for role in roles if (pid := run.pid_of(role))} - allowed:
        assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes(), pid
    s3_runs.require_finished(run, size=100)


@pytest.mark.parametrize("tenth", range(10))
def test_cut_at_each_tenth(s3_runs: S3Runs, tenth: int) -> None:
    """Connections that break in an upload cost a retry and nothing else."""
    s3_runs.relay.up = relays.cut_after(400 + tenth * 200_000)
    s3_runs.relay.faults_left = 4
    run = s3_runs.start()
    s3_runs.require_finished(run)
    assert s3_runs.relay.faults_left == 0, "nothing was cut"


def test_store_is_gone_for_a_while(s3_runs: S3Runs) -> None:
    """A store that takes no connection is trouble; when it is back the run finishes."""
    s3_runs.relay.up = relays.refused
    run = s3_runs.start()
    eventually(lambda: "storage health changed state=trouble" in run.log, what="trouble")
    s3_runs.relay.up = relays.as_it_is
    s3_runs.require_finished(run)


def test_corrupted_on_the_way(s3_runs: S3Runs) -> None:
    """Bytes that change on the way never get a name in the store."""
    s3_runs.relay.up = relays.corrupted(b"ustar", b"uster")
    run = s3_runs.start()
    eventually(lambda: run.log.count("upload failed") > 1, what="refused uploads")
    assert s3_runs.listing() == {}
    s3_runs.relay.up = relays.as_it_is
    s3_runs.require_finished(run)


def test_slow_store(s3_runs: S3Runs) -> None:
    """A store at 10 kB/s is seen as slow long before the transfer's time is over."""
    s3_runs.relay.up = relays.slowed(10_000)
    run = s3_runs.start(transfer={"slow_after_s": 1.0, "slow_bytes_per_s": 2e6}, size=500_000)
    eventually(lambda: "bytes/s are below the floor" in run.log, what="slow")
    s3_runs.relay.up = relays.as_it_is
    s3_runs.require_finished(run, size=500_000)


def test_wrong_keys_then_renewed(s3_runs: S3Runs) -> None:
    """Keys that the store refuses are trouble; renewed ones count without a restart."""
    good = s3_runs.keys.read_text()
    s3_runs.keys.write_text(good.replace(SECRET, "wrong"))
    run = s3_runs.start()
    eventually(lambda: "HTTP 403 SignatureDoesNotMatch" in run.log, what="refusal")
    s3_runs.keys.write_text(good)
    s3_runs.require_finished(run)


def test_failover(s3_runs: S3Runs) -> None:
    """When the first store is away, the outputs go to the second, whose id is reported."""
    s3_runs.relay.up = relays.refused
    second = s3_runs.endpoint(
        s3_runs.server.ports["s3"],
        id=43,
        url=f"s3://{BUCKET}/{s3_runs.prefix}",
        activities=["es_failover"],
    )
    run = s3_runs.start(endpoints=f"\n[endpoints.second]\n{second}\n")
    s3_runs.require_finished(run)
    assert storage_ids(run) == {43}
    assert "state=trouble" not in run.log


def test_host_is_unknown(s3_runs: S3Runs, tmp_path: Path) -> None:
    """A name that is not known is told with its address; the fail-over takes the outputs."""
    first = s3_runs.endpoint(endpoint_url="http://no-such-host.invalid:1", url="s3://gone/x")
    second = s3_runs.endpoint(
        s3_runs.server.ports["s3"], id=43, url=f"s3://{BUCKET}/{s3_runs.prefix}"
    )
    text = job_text(f"{FAKE} --outsize 1000", events=EVENTS, stageout=QUICK)
    text += f"\n[endpoints.a]\nactivities = ['es_events']\n{first}\n"
    text += f"\n[endpoints.b]\nactivities = ['es_failover']\n{second}\n"
    run = s3_runs.runner.start(text)
    s3_runs.require_finished(run, size=1000)
    assert re.search(r"upload failed.*no-such-host.invalid", run.log)


def test_server_error(s3_runs: S3Runs, five_hundred: Callable[[Relay], None]) -> None:
    """A store that answers 500 or 503 is tried again."""
    five_hundred(s3_runs.relay)
    run = s3_runs.start()
    eventually(lambda: "HTTP 503" in run.log, what="503")
    s3_runs.relay.down = relays.as_it_is
    s3_runs.require_finished(run)


@pytest.fixture
def five_hundred() -> Callable[[Relay], None]:
    """Make a relay answer 503 with Retry-After instead of what the server says."""
    answer = b"HTTP/1.1 503 Slow Down\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"

    def apply(relay: Relay) -> None:
        relay.down = lambda before, _: answer if before == 0 else None

    return apply
