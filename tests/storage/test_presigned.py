"""An object store by signed addresses: a signer of the test's own, the real store behind it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import pytest
import real_servers
from pilot_run import FAKE, eventually, job_text, runner_in
from real_servers import BUCKET, Server
from relay import relay_to
from storage_runs import EVENTS, QUICK, S3Runs

from espilot.adapters.storage import Endpoint, open_endpoint
from espilot.adapters.storage.contract import CHECKS, Subject, adler32_of
from espilot.errors import ConfigError, StorageFatal, StorageRetryable

COUNTER = itertools.count(1)
TOKEN = "the-pilots-own-token"
DATA = bytes(range(256)) * 400


class Signer:
    """Signs what it is asked to, with keys that the pilot never sees."""

    def __init__(self, server: Server) -> None:
        self.client: Any = real_servers.s3_client(server)
        self.token = TOKEN
        self.valid_s = 60
        self.forms: list[dict[str, str]] = []

    def answer(self, form: dict[str, str]) -> dict[str, str]:
        """The answer to one form."""
        self.forms.append(form)
        if form.get("publicKey", "publicKey:usual") != "publicKey:usual":
            return {"StatusCode": "70", "ErrorMsg": "no such key"}
        _, bucket, key = unquote(urlsplit(form["url"]).path).split("/", 2)
        operation = {"PUT": "put_object", "GET": "get_object", "DELETE": "delete_object"}
        signed = self.client.generate_presigned_url(
            operation[form["method"]],
            Params={"Bucket": bucket, "Key": key},
            ExpiresIn=self.valid_s,
        )
        port = urlsplit(form["url"]).port
        # A signature holds the host as it is asked for: none but the store itself.
        assert urlsplit(signed).port == port
        return {"StatusCode": "0", "presignedURL": signed}


class Door(BaseHTTPRequestHandler):
    """The service as the pilot sees it."""

    signer: Signer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        known = self.headers.get("Authorization") == f"Bearer {self.signer.token}"
        code = 404 if self.path != "/proxy/panda/getPresignedURL" else 200 if known else 403
        form = {name: values[0] for name, values in parse_qs(text).items()}
        body = urlencode(self.signer.answer(form) if code == 200 else {}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def signer_at(seaweedfs: Server) -> Iterator[tuple[Signer, str]]:
    signer = Signer(seaweedfs)
    door = type("Door", (Door,), {"signer": signer})
    server = ThreadingHTTPServer(("127.0.0.1", 0), door)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield signer, f"http://127.0.0.1:{server.server_address[1]}/proxy/panda"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        signer.client.close()


def endpoint_of(server: Server, url: str, directory: Path, **more: Any) -> Endpoint:
    token = real_servers.token_file(directory, TOKEN)
    return Endpoint(
        f"s3://{BUCKET}/signed-{next(COUNTER)}",
        storage_id=7,
        endpoint_url=server.facts["url"],
        signer=url,
        credentials=str(token),
        **more,
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(
    check: Callable[[Subject], None],
    seaweedfs: Server,
    signer_at: tuple[Signer, str],
    tmp_path: Path,
) -> None:
    """By signed addresses the store fulfils the contract."""
    local = tmp_path / "local"
    local.mkdir()
    endpoint = endpoint_of(seaweedfs, signer_at[1], tmp_path)
    prefix = endpoint.url.removeprefix(f"s3://{BUCKET}/") + "/"
    storage = open_endpoint(endpoint)
    check(Subject(storage, local, lambda: real_servers.s3_listing(seaweedfs, BUCKET, prefix)))
    storage.close()


def put(endpoint: Endpoint, directory: Path) -> None:
    source = directory / "x.tar"
    source.write_bytes(DATA)
    storage = open_endpoint(endpoint)
    try:
        storage.put(source, "x.tar", size_bytes=len(DATA), adler32=adler32_of(DATA))
    finally:
        storage.close()


def test_refusals(seaweedfs: Server, signer_at: tuple[Signer, str], tmp_path: Path) -> None:
    """A signer that does not know us, or refuses, is told with its reason; and never a secret."""
    signer, url = signer_at
    with pytest.raises(StorageFatal, match=r"proxy/panda: refuses: no such key") as caught:
        put(endpoint_of(seaweedfs, url, tmp_path, signer_keys="rare,rarer"), tmp_path)
    assert signer.forms[-1]["privateKey"] == "privateKey:rarer"
    signer.token = "another"
    with pytest.raises(StorageFatal, match="HTTP 403; renew the credentials") as caught:
        put(endpoint_of(seaweedfs, url, tmp_path), tmp_path)
    assert TOKEN not in str(caught.value)
    with pytest.raises(ConfigError, match="signer: write https://"):
        put(endpoint_of(seaweedfs, "http://elsewhere.example/proxy", tmp_path), tmp_path)


def test_bad_signature_is_no_secret(
    seaweedfs: Server, signer_at: tuple[Signer, str], tmp_path: Path
) -> None:
    """A store that refuses a signature is tried again with a new one; the error repeats neither."""
    signer, url = signer_at
    signer.client.close()
    signer.client = real_servers.s3_client(seaweedfs, secret="wrong")
    with pytest.raises(StorageRetryable, match="HTTP 403; it is tried again") as caught:
        put(endpoint_of(seaweedfs, url, tmp_path), tmp_path)
    assert "ignature=" not in str(caught.value)


def test_whole_run(seaweedfs: Server, signer_at: tuple[Signer, str], tmp_path: Path) -> None:
    """The main job runs without any key: refused first, then with the renewed token. Signatures
    are of the old kind, as old services make them."""
    signer, url = signer_at
    signer.client.close()
    signer.client = real_servers.s3_client(seaweedfs, signature="s3")
    signer.token = "renewed"
    with runner_in(tmp_path) as runner, relay_to(seaweedfs.ports["s3"]) as relay:
        runs = S3Runs(seaweedfs, relay, runner)
        runs.keys.unlink()
        real_servers.token_file(tmp_path, "old")
        text = job_text(f"{FAKE} --outsize 1000", events=EVENTS, stageout=QUICK)
        section = runs.endpoint(
            endpoint_url=seaweedfs.facts["url"], signer=url, credentials="token"
        )
        run = runner.start(f"{text}\n[endpoints.storage]\n{section}\n", "--storage", runs.url)
        eventually(lambda: "HTTP 403; renew the credentials" in run.log, what="refusal")
        real_servers.token_file(tmp_path, "renewed")
        runs.require_finished(run, size=1000)
