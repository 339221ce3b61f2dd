"""A text that an address names, a file or what a web server has: queue data, storage data."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from espilot.adapters.http import Connection, Credentials, Patience
from espilot.errors import ConfigError, LocalError, ServerUnavailable
from espilot.wire.panda_dialects import Request

PATIENCE = Patience(timeout_s=60.0, connect_timeout_s=20.0)
TRIES = 3
PAUSE_S = 2.0


def fetch_text(address: str, *, ca: Path | None = None, environ: Mapping[str, str]) -> str:
    """The text at an http(s) or file address, or in a file; a server is asked a few times.

    `ca` are authorities; no other credentials are shown. ServerUnavailable, LocalError: there is
    none; ConfigError: that is no address.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        raise _no_address(address) from None
    scheme = parts.scheme
    if scheme in ("", "file"):
        return _read(unquote(parts.path) if scheme else address, address)
    if ca is None and environ.get("X509_CERT_DIR"):
        ca = Path(environ["X509_CERT_DIR"])
    query = f"?{parts.query}" if parts.query else ""
    request = Request("GET", (parts.path or "/") + query, {"Accept": "application/json"})
    base = f"{scheme}://{parts.netloc}"
    connection = Connection(base, patience=PATIENCE, credentials=Credentials(ca=ca))
    try:
        return _ask(connection, request, address)
    finally:
        connection.close()


def _ask(connection: Connection, request: Request, address: str) -> str:
    for left in reversed(range(TRIES)):
        try:
            with connection.send(request) as (status, body):
                if status == 200:
                    return body.read_all().decode("utf-8", "replace")
                text = f"{address:.200} answers with HTTP {status}"
        except ServerUnavailable as error:
            text = f"{address:.200}: {error}"
        if left:
            threading.Event().wait(PAUSE_S)
    raise ServerUnavailable(text)


def _read(path: str, address: str) -> str:
    if "\0" in path:
        raise _no_address(address)
    try:
        return Path(path).read_text(errors="replace")
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from error


def _no_address(address: str) -> ConfigError:
    return ConfigError(f"{address!r:.200} is no address; name a file, or one with http or https")
