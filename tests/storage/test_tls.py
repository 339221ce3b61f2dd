"""Storage over TLS with an authority of one's own: WebDAV and S3 behind a real TLS server."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import real_servers
from authority import Authority, make_authority
from pilot_run import FAKE, job_text, runner_in
from real_servers import BUCKET, Server, answers, free_ports, require_program, running

from espilot.adapters.storage import Endpoint, TransferLimits, open_endpoint
from espilot.adapters.storage.contract import adler32_of
from espilot.errors import StorageError, StorageFatal
from espilot.ports import Storage

COUNTER = itertools.count(1)
DATA = bytes(range(256)) * 4000
QUICK = TransferLimits(connect_s=5.0, idle_s=5.0)

NGINX = """\
load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
daemon off; worker_processes 1; {user} pid nginx.pid; error_log logs/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path tmp;
  ssl_certificate {tls.server}; ssl_certificate_key {tls.server_key};
  server {{
    listen 127.0.0.1:{dav} ssl; root data;
    ssl_client_certificate {tls.certificate}; ssl_verify_client optional;
    dav_methods PUT DELETE MKCOL COPY MOVE; create_full_put_path on;
    location /members/ {{
      if ($ssl_client_verify != SUCCESS) {{
        return 403;
      }}
    }}
  }}
  server {{
    listen 127.0.0.1:{s3} ssl;
    location / {{
      proxy_pass http://127.0.0.1:{store}; proxy_set_header Host $http_host;
      proxy_request_buffering off; proxy_http_version 1.1;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Tls:
    """A server that speaks nothing but TLS: WebDAV at one port, the object store at another."""

    authority: Authority
    directory: Path
    dav: int
    s3: int
    keys: str


@pytest.fixture(scope="module")
def tls(seaweedfs: Server) -> Iterator[Tls]:
    program = require_program("nginx", "nginx-extras")
    with real_servers.server_directory("tls") as directory, free_ports(2) as (dav, s3):
        directory.chmod(0o755)
        for name in ("data", "tmp", "logs"):
            (directory / name).mkdir()
        authority = make_authority(directory)
        text = NGINX.format(
            user="user root;" if os.geteuid() == 0 else "",
            tls=authority, dav=dav, s3=s3, store=seaweedfs.ports["s3"],
        )  # fmt: skip
        (directory / "nginx.conf").write_text(text)
        argv = [program, "-p", str(directory), "-c", str(directory / "nginx.conf")]
        with running(argv, directory) as process:
            server = Server("nginx", directory, {"dav": dav, "s3": s3}, process)
            real_servers.wait_ready(server, lambda: answers(dav) and answers(s3))
            yield Tls(authority, directory, dav, s3, seaweedfs.facts["keys"])


def endpoint_of(tls: Tls, kind: str, ca_file: str) -> Endpoint:
    """A place of its own at one of the two."""
    place = f"tls-{next(COUNTER)}"
    if kind == "davs":
        url = f"davs://127.0.0.1:{tls.dav}/{place}"
        return Endpoint(url, ca_file=ca_file, limits=QUICK)
    return Endpoint(
        f"s3://{BUCKET}/{place}",
        endpoint_url=f"https://127.0.0.1:{tls.s3}",
        credentials=tls.keys,
        ca_file=ca_file,
        limits=QUICK,
    )


def put_and_get(storage: Storage, directory: Path) -> None:
    """A file goes there and comes back."""
    source = directory / "x.tar"
    source.write_bytes(DATA)
    facts = {"size_bytes": len(DATA), "adler32": adler32_of(DATA)}
    try:
        storage.put(source, "x.tar", **facts)  # type: ignore[arg-type]
        storage.get("x.tar", directory / "y.tar", **facts)  # type: ignore[arg-type]
    finally:
        storage.close()
    assert (directory / "y.tar").read_bytes() == DATA


@pytest.mark.parametrize("kind", ["davs", "s3"])
@pytest.mark.parametrize("form", ["certificate", "directory"])
def test_own_authority(tls: Tls, tmp_path: Path, kind: str, form: str) -> None:
    """The setting `ca_file` names an authority, in a file or in a directory as grid sites have."""
    ca_file = getattr(tls.authority, form)
    put_and_get(open_endpoint(endpoint_of(tls, kind, str(ca_file))), tmp_path)


@pytest.mark.parametrize("kind", ["davs", "s3"])
def test_unknown_authority(tls: Tls, tmp_path: Path, kind: str) -> None:
    """A certificate that nobody vouches for is refused, with the remedy, before a byte is sent."""
    with pytest.raises(StorageError, match="certificate was not accepted; look at ca_file"):
        put_and_get(open_endpoint(endpoint_of(tls, kind, "")), tmp_path)


@pytest.mark.parametrize("kind", ["davs", "s3"])
def test_missing_authority(tls: Tls, tmp_path: Path, kind: str) -> None:
    """A `ca_file` that is not there is named."""
    with pytest.raises(StorageError, match="no-such-ca"):
        put_and_get(open_endpoint(endpoint_of(tls, kind, "/no-such-ca.pem")), tmp_path)


def test_certificate_of_the_client(tls: Tls, tmp_path: Path) -> None:
    """A proxy or certificate with its key in one file opens what is closed to others."""
    url = f"davs://127.0.0.1:{tls.dav}/members/run"
    ca_file = str(tls.authority.certificate)
    with pytest.raises(StorageFatal, match="HTTP 403"):
        put_and_get(open_endpoint(Endpoint(url, ca_file=ca_file, limits=QUICK)), tmp_path)
    known = Endpoint(url, ca_file=ca_file, credentials=str(tls.authority.client), limits=QUICK)
    put_and_get(open_endpoint(known), tmp_path)


def test_whole_run(tls: Tls, tmp_path: Path) -> None:
    """The main job runs over TLS with a certificate; every output is there."""
    text = job_text(f"{FAKE} --outsize 1000", events=60)
    text += f"\n[endpoints.storage]\nca_file = '{tls.authority.directory}'\n"
    text += f"credentials = '{tls.authority.client}'\n"
    with runner_in(tmp_path) as runner:
        run = runner.start(text, "--storage", f"davs://127.0.0.1:{tls.dav}/members/whole")
        run.storage = tls.directory / "data" / "members" / "whole"
        run.require_finished(60, size_bytes=1000)
