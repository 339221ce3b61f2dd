"""Proxy, token and authorities: files that are renewed while a pilot runs."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from espilot.adapters.http import (
    Connection,
    Credentials,
    DialectChoice,
    PandaServer,
    Patience,
    find_credentials,
)
from espilot.errors import ConfigError, LocalError, ServerUnavailable
from espilot.wire.panda_v1 import Pilot

NO_JOBS = b'{"success": false, "message": "No jobs in PanDA", "data": null}'


class Heard(BaseHTTPRequestHandler):
    """Answers every request with "no jobs" and keeps what it heard."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[dict[str, str], Any]]

    def do_POST(self) -> None:
        """Any call."""
        self.rfile.read(int(self.headers["Content-Length"]))
        subject = None
        if isinstance(self.connection, ssl.SSLSocket):
            peer = self.connection.getpeercert()
            subject = dict(pair[0] for pair in peer["subject"]) if peer else None
        self.requests.append((dict(self.headers), subject))
        self.send_response(200)
        self.send_header("Content-Length", str(len(NO_JOBS)))
        self.end_headers()
        self.wfile.write(NO_JOBS)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[Any]]]:
    """A server and what it hears."""
    heard: list[Any] = []
    handler = type("Handler", (Heard,), {"requests": heard})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    scheme = "http"
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}", heard
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()


@contextmanager
def client_of(url: str, credentials: Credentials) -> Iterator[PandaServer]:
    connection = Connection(url, patience=Patience(20.0), credentials=credentials)
    client = PandaServer(connection, pilot=Pilot("S", "n"), choice=DialectChoice("v1"))
    try:
        yield client
    finally:
        client.close()


def write_whole(path: Path, text: str) -> None:
    """Renew a file as tools do: a new one in its place."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def make_jwt(claims: dict[str, Any]) -> str:
    """A token with these claims, signed by nobody."""
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=")
             for p in ({"alg": "RS256"}, claims)]  # fmt: skip
    return ".".join([*parts, "c2ln"])


def test_a_renewed_token_is_used_at_once(tmp_path: Path) -> None:
    """Token and origin go with every call, and a new token with the next one."""
    token = tmp_path / "token"
    token.write_text("first.token.x\n")
    with (
        listening() as (url, heard),
        client_of(url, Credentials(token=token, origin="atlas:production")) as client,
    ):
        assert client.acquire_job() is None
        write_whole(token, '{"id_token": "second.token.x"}')
        assert client.acquire_job() is None
    assert [headers["Authorization"] for headers, _ in heard] == [
        "Bearer first.token.x",
        "Bearer second.token.x",
    ]
    assert {headers["Origin"] for headers, _ in heard} == {"atlas:production"}


@pytest.mark.parametrize("content", ["", "two words", "\x00", "{", '{"id_token": 5}', "é"])
def test_an_unusable_token_is_named_not_shown(tmp_path: Path, content: str) -> None:
    """A file without a token is one line with its name; nothing is sent."""
    token = tmp_path / "token"
    token.write_text(content)
    with (
        listening() as (url, heard),
        client_of(url, Credentials(token=token, origin="a:b")) as client,
        pytest.raises(LocalError) as caught,
    ):
        client.acquire_job()
    assert str(token) in str(caught.value) and "\n" not in str(caught.value)
    assert content not in str(caught.value) or not content
    assert heard == []


@pytest.mark.parametrize("kind", ["missing", "pipe", "directory"])
def test_a_token_that_is_no_file(tmp_path: Path, kind: str) -> None:
    """A missing file, a pipe or a directory in its place is one line, never a hang."""
    token = tmp_path / "token"
    if kind == "pipe":
        os.mkfifo(token)
    elif kind == "directory":
        token.mkdir()
    with pytest.raises(LocalError, match="token"):
        Credentials(token=token, origin="a:b").headers()


def test_secrets_are_not_sent_in_clear_text() -> None:
    """Credentials and an unprotected address of another machine are refused together."""
    with pytest.raises(ConfigError, match="https"):
        Connection("http://example.org:25080", credentials=Credentials(proxy=Path("/x")))
    with pytest.raises(ConfigError, match="token_origin"):
        Credentials(token=Path("/x"))


def test_a_factory_names_the_files() -> None:
    """The environment fills in what the settings do not say; settings come first."""
    environ = {
        "X509_USER_PROXY": "/p",
        "X509_CERT_DIR": "/ca",
        "PANDA_AUTH_TOKEN": "my.token",
        "PANDA_AUTH_DIR": "/credentials",
        "OIDC_AUTH_ORIGIN": "atlas.production",
    }
    found = find_credentials(Credentials(), environ)
    assert found == Credentials(
        Path("/p"), Path("/credentials/my.token"), "atlas.production", Path("/ca")
    )
    given = find_credentials(Credentials(proxy=Path("/q"), ca=Path("/cb")), environ)
    assert (given.proxy, given.ca) == (Path("/q"), Path("/cb"))
    assert find_credentials(Credentials(), {}) == Credentials()


@pytest.mark.parametrize(
    ("claims", "end"), [({"exp": 5000}, 5000.0), ({}, None), ({"exp": "x"}, None), ([], None)]
)
def test_the_end_of_a_token(tmp_path: Path, claims: Any, end: float | None) -> None:
    """A token says when it ends, or nothing is known."""
    token = tmp_path / "token"
    token.write_text(make_jwt(claims))
    assert Credentials(token=token, origin="a:b").expires_at() == end


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority, a certificate of 127.0.0.1, and two proxies."""
    where = tmp_path_factory.mktemp("ca")

    def run(*argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=where, check=True, capture_output=True)

    run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
        "-subj", "/CN=authority", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE",
        "-addext", "keyUsage=critical,keyCertSign,digitalSignature")  # fmt: skip
    for name in ("127.0.0.1", "alice", "bob"):
        run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", "x.csr",
            "-subj", f"/CN={name}")  # fmt: skip
        (where / "x.ext").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        run("x509", "-req", "-in", "x.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-CAcreateserial", "-out", f"{name}.pem", "-extfile", "x.ext")  # fmt: skip
        proxy = (where / f"{name}.pem").read_text() + (where / f"{name}.key").read_text()
        (where / f"{name}.proxy").write_text(proxy)
    hashed = where / "hashed"
    hashed.mkdir()
    (hashed / "ca.pem").write_text((where / "ca.pem").read_text())
    subprocess.run(["openssl", "rehash", str(hashed)], check=True, capture_output=True)
    return where


def tls_of(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "127.0.0.1.pem", authority / "127.0.0.1.key")
    context.load_verify_locations(authority / "ca.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def test_expiries(authority: Path, tmp_path: Path) -> None:
    """When proxy and token end, as openssl says; what cannot be read has no time."""
    argv = ["openssl", "x509", "-enddate", "-noout", "-dateopt", "iso_8601", "-in", "alice.proxy"]
    told = subprocess.run(argv, cwd=authority, capture_output=True, text=True, check=True).stdout
    end = datetime.strptime(told.strip(), "notAfter=%Y-%m-%d %H:%M:%SZ").replace(tzinfo=UTC)
    proxy = authority / "alice.proxy"
    assert Credentials(proxy=proxy).expiries() == {"proxy": end.timestamp()}
    assert Credentials(proxy=tmp_path / "none").expiries() == {}
    cut = tmp_path / "cut"
    for size in (0, 40, 200, 600):
        cut.write_text(proxy.read_text()[:size] + "\n-----END CERTIFICATE-----\n")
        assert Credentials(proxy=cut).expiries() == {}


def test_a_renewed_proxy_is_used_at_once(authority: Path, tmp_path: Path) -> None:
    """The proxy is the client's certificate; a renewed one makes a new connection."""
    proxy = tmp_path / "proxy"
    proxy.write_text((authority / "alice.proxy").read_text())
    credentials = Credentials(proxy=proxy, ca=authority / "hashed")
    with listening(tls_of(authority)) as (url, heard), client_of(url, credentials) as client:
        assert client.acquire_job() is None
        assert client.acquire_job() is None
        write_whole(proxy, (authority / "bob.proxy").read_text())
        assert client.acquire_job() is None
    assert [subject["commonName"] for _, subject in heard] == ["alice", "alice", "bob"]


def test_an_unknown_authority_is_refused(authority: Path) -> None:
    """A server whose certificate nobody vouches for is not talked to, in one line."""
    with (
        listening(tls_of(authority)) as (url, heard),
        client_of(url, Credentials()) as client,
        pytest.raises(ServerUnavailable, match="certificate"),
    ):
        client.acquire_job()
    assert heard == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_proxy_that_is_none(authority: Path, tmp_path: Path, content: str | None) -> None:
    """A missing or broken proxy file is one line that names it."""
    proxy = tmp_path / "proxy"
    if content is not None:
        proxy.write_text(content)
    credentials = Credentials(proxy=proxy, ca=authority / "ca.pem")
    with (
        listening(tls_of(authority)) as (url, _),
        client_of(url, credentials) as client,
        pytest.raises(LocalError, match="proxy"),
    ):
        client.acquire_job()
