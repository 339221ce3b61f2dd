"""Where the keys of an object store come from: the rights of the machine, asked for on loopback."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pilot_run import FAKE, job_text, runner_in
from real_servers import ACCESS, BUCKET, SECRET, Server
from relay import relay_to
from storage_runs import QUICK, S3Runs

from espilot.adapters.storage import Endpoint, TransferLimits, open_endpoint
from espilot.adapters.storage.contract import adler32_of
from espilot.errors import ConfigError, StorageRetryable
from espilot.ports import Storage

COUNTER = itertools.count(1)
SESSION = "a-session-of-the-metadata-service"
DATA = b"some bytes"
LIMITS = TransferLimits(connect_s=2.0, idle_s=5.0)


class Metadata:
    """What the metadata service of a machine says: the keys of its role, for `lifetime_s`."""

    def __init__(self) -> None:
        self.secret = SECRET
        self.lifetime_s = 3600.0
        self.asked = 0

    def keys(self) -> str:
        """The document with the keys."""
        self.asked += 1
        until = time.gmtime(time.time() + self.lifetime_s)
        document = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": ACCESS,
            "SecretAccessKey": self.secret,
            "Token": "",
            "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", until),
        }
        return json.dumps(document)


class Door(BaseHTTPRequestHandler):
    """The service as machines of a cloud see it: a session first, then role, then keys."""

    metadata: Metadata

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        self.answer(200 if self.path == "/latest/api/token" else 404, SESSION)

    def do_GET(self) -> None:
        roles = "/latest/meta-data/iam/security-credentials/"
        if self.headers.get("X-aws-ec2-metadata-token") != SESSION:
            return self.answer(401, "")
        if self.path == roles:
            return self.answer(200, "pilots")
        if self.path == f"{roles}pilots":
            return self.answer(200, self.metadata.keys())
        return self.answer(404, "")


@contextmanager
def metadata_service() -> Iterator[tuple[Metadata, str]]:
    metadata = Metadata()
    door = type("Door", (Door,), {"metadata": metadata})
    server = ThreadingHTTPServer(("127.0.0.1", 0), door)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield metadata, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def service() -> Iterator[tuple[Metadata, str]]:
    with metadata_service() as opened:
        yield opened


def storage_of(server: Server, credentials: str) -> Storage:
    return open_endpoint(
        Endpoint(
            f"s3://{BUCKET}/keys-{next(COUNTER)}",
            endpoint_url=server.facts["url"],
            credentials=credentials,
            limits=LIMITS,
        )
    )


def put(storage: Storage, directory: Path) -> None:
    source = directory / "x.tar"
    source.write_bytes(DATA)
    storage.put(source, "x.tar", size_bytes=len(DATA), adler32=adler32_of(DATA))


def test_rights_of_the_machine(
    seaweedfs: Server, service: tuple[Metadata, str], tmp_path: Path
) -> None:
    """The keys of the machine's role open the store, and are asked for once."""
    metadata, url = service
    storage = storage_of(seaweedfs, f"instance:{url}")
    put(storage, tmp_path)
    put(storage, tmp_path)
    storage.close()
    assert metadata.asked == 1


def test_rights_of_the_machine_are_renewed(
    seaweedfs: Server,
    service: tuple[Metadata, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keys that end soon are asked for again by the same storage."""
    # Botocore lets keys live on for a random time, to spare a service that is in trouble.
    monkeypatch.setattr("random.randint", lambda least, _: least)
    metadata, url = service
    metadata.lifetime_s = 30.0
    storage = storage_of(seaweedfs, f"instance:{url}")
    put(storage, tmp_path)
    first = metadata.asked
    put(storage, tmp_path)
    storage.close()
    assert metadata.asked > first


def test_machine_without_rights(seaweedfs: Server, tmp_path: Path) -> None:
    """Where no metadata service answers, the error says that there are no credentials."""
    storage = storage_of(seaweedfs, "instance:http://127.0.0.1:9")
    with pytest.raises(StorageRetryable, match="no credentials"):
        put(storage, tmp_path)
    storage.close()


@pytest.mark.parametrize("text", ["instance:", "instance:ftp://x", "instance:http://a b"])
def test_useless_address(seaweedfs: Server, text: str) -> None:
    """An address that can never answer is refused before anything starts."""
    with pytest.raises(ConfigError, match="instance:http://HOST"):
        storage_of(seaweedfs, text)


def test_whole_run(seaweedfs: Server, service: tuple[Metadata, str], tmp_path: Path) -> None:
    """The main job runs with the rights of the machine; nothing it writes holds the secret."""
    with runner_in(tmp_path) as runner, relay_to(seaweedfs.ports["s3"]) as relay:
        runs = S3Runs(seaweedfs, relay, runner)
        runs.keys.unlink()
        text = job_text(f"{FAKE} --outsize 1000", events=60, stageout=QUICK)
        section = runs.endpoint(credentials=f"instance:{service[1]}")
        run = runner.start(f"{text}\n[endpoints.storage]\n{section}\n", "--storage", runs.url)
        runs.require_finished(run, size=1000)
