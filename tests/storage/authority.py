"""A certificate authority of the test's own, with certificates for a server and for a client."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from real_servers import require_program

EXTENSIONS = "subjectAltName=IP:127.0.0.1,DNS:localhost\n"


@dataclass(frozen=True, slots=True)
class Authority:
    """Files of PEM: the authority (also as a directory), a server, a client with its key."""

    certificate: Path
    directory: Path
    server: Path
    server_key: Path
    client: Path


def make_authority(directory: Path) -> Authority:
    """Make keys and certificates in this directory."""
    program = require_program("openssl", "openssl")

    def openssl(*arguments: str) -> None:
        done = subprocess.run(
            [program, *arguments], cwd=directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    authority = ("-subj", "/CN=Authority of a test", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-x509", *new_key, "-days", "2", *authority)
    (directory / "extensions").write_text(EXTENSIONS)
    for name in ("server", "client"):
        request = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("req", *new_key, *request)
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        files = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "extensions")
        openssl("x509", "-req", *signing, *files)
    together = directory / "proxy.pem"
    together.write_text((directory / "client.pem").read_text())
    together.write_text(together.read_text() + (directory / "client.key").read_text())
    together.chmod(0o600)
    hashed = directory / "authorities"
    hashed.mkdir()
    (hashed / "test.pem").write_text((directory / "ca.pem").read_text())
    openssl("rehash", str(hashed))
    files = ("ca.pem", "authorities", "server.pem", "server.key", "proxy.pem")
    return Authority(*(directory / name for name in files))
