"""A whole run at an event server behind TLS, with a token that comes to its end."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import real_servers
from authority import Authority, make_authority
from pilot_run import FAKE, ROOT, Run, job_text, runner_in
from real_servers import answers, free_ports, require_program, running
from test_server_faults import HERE as FAULTS
from test_server_faults import Server

EVENTS = 208
COMMAND = f"{FAKE} --clients 2 --delay-ms 250"
"""26 seconds of work."""
LEFT_S = 20.0
"""A renewed token is seen within ten seconds."""
NGINX = """\
daemon off; worker_processes 1; {user} pid nginx.pid; error_log logs/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  ssl_certificate {tls.server}; ssl_certificate_key {tls.server_key};
  server {{
    listen 127.0.0.1:{port} ssl;
    location / {{
      if ($http_authorization !~ "^Bearer e30[.]") {{
        return 403;
      }}
      proxy_pass http://{server};
    }}
  }}
}}
"""


def write_token(path: Path, left_s: float) -> None:
    """A token that ends then, renewed in place as sites do it."""
    claims = json.dumps({"exp": int(time.time() + left_s)}).encode()
    middle = base64.urlsafe_b64encode(claims).rstrip(b"=").decode()
    path.with_suffix(".new").write_text(f"e30.{middle}.c2ln")
    path.with_suffix(".new").replace(path)


@contextmanager
def tls_before(server: Server) -> Iterator[tuple[Authority, str]]:
    """TLS in front of an event server, for those who show a token; the authority and the URL."""
    program = require_program("nginx", "nginx-extras")
    with real_servers.server_directory("tls-server") as directory, free_ports(1) as (port,):
        directory.chmod(0o755)
        (directory / "logs").mkdir()
        authority = make_authority(directory)
        text = NGINX.format(
            user="user root;" if os.geteuid() == 0 else "",
            tls=authority, port=port, server=urlsplit(server.url).netloc,
        )  # fmt: skip
        (directory / "nginx.conf").write_text(text)
        argv = [program, "-p", str(directory), "-c", str(directory / "nginx.conf")]
        with running(argv, directory) as process:
            proxy = real_servers.Server("nginx", directory, {"tls": port}, process)
            real_servers.wait_ready(proxy, lambda: answers(port))
            yield authority, f"https://127.0.0.1:{port}"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """Where the site keeps the token."""
    return tmp_path / "token"


@pytest.fixture
def run(tmp_path: Path, token: Path) -> Iterator[Run]:
    """A run with a token that ends before the work does."""
    server = Server(tmp_path, job_text(COMMAND, events=EVENTS))
    server.start()
    try:
        with tls_before(server) as (authority, url), runner_in(tmp_path) as runner:
            shown = {
                "token_file": str(token),
                "token_origin": "a:b",
                "ca": str(authority.certificate),
            }
            write_token(token, LEFT_S)
            program = [sys.executable, str(FAULTS / "pilot_at_server.py"), url, str(server.task_id)]
            job = job_text(COMMAND, events=EVENTS, server=shown)
            run = runner.start(job, program=program, env={"PYTHONPATH": str(ROOT)})
            run.database = server.database
            yield run
    finally:
        server.stop()


def test_end_of_the_token(run: Run) -> None:
    """The pilot drains and ends before the token does, and every range is booked or free."""
    ends = time.monotonic() + LEFT_S
    assert run.end() == 3, run.log[-4000:]
    assert time.monotonic() < ends + 3.0
    assert "the end of the credential comes near" in run.log
    account = run.account()
    finished = len(account.with_fate("finished"))
    assert 0 < finished < EVENTS and finished + len(account.with_fate("ready")) == EVENTS


def test_renewed_token(run: Run, token: Path) -> None:
    """Renewed in time, it is the end of nothing."""
    run.wait_booked(10)
    write_token(token, 7200.0)
    run.require_finished(EVENTS)
    assert "draining" not in run.log
