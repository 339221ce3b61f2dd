"""Who we are to a server: an X.509 proxy or a bearer token, each a file that others renew.

The files are looked at before each call and read again when they have changed. What is in them goes
into requests only, never into a log, an error or the environment of a child.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espilot.adapters.http.certificate import read_expiry
from espilot.errors import ConfigError, LocalError

_LIMIT_BYTES = 256 * 2**10
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_TOKEN_NAMES = ("OIDC_AUTH_TOKEN", "PANDA_AUTH_TOKEN")
_ORIGIN_NAMES = ("OIDC_AUTH_ORIGIN", "PANDA_AUTH_ORIGIN")
_DIRECTORY_NAMES = ("OIDC_AUTH_DIR", "PANDA_AUTH_DIR", "CREDENTIALS_DIRECTORY")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files to show to a server; with both a proxy and a token the server takes the proxy.

    `origin` is `VO:ROLE` (or `VO.ROLE`), without which no token is accepted. `ca` is a directory
    or a bundle of authorities; None takes those of the system.
    """

    proxy: Path | None = None
    token: Path | None = None
    origin: str = ""
    ca: Path | None = None

    def __post_init__(self) -> None:
        if self.token is not None and not self.origin:
            raise ConfigError(
                f"server.token_origin: the token {self.token} needs its origin, VO:ROLE"
            )
        if not self.origin.isprintable() or not self.origin.isascii():
            raise ConfigError(f"server.token_origin: not VO:ROLE: {self.origin!r:.60}")

    @property
    def any(self) -> bool:
        """Whether there is anything secret to show."""
        return self.proxy is not None or self.token is not None

    def stamp(self) -> tuple[Any, ...]:
        """Something that changes whenever one of the files is renewed."""
        return _stamp(self.proxy), _stamp(self.token)

    def check(self) -> None:
        """Errors: `LocalError` when the proxy is not usable or the authorities are not there."""
        if self.proxy is not None and _CERTIFICATE not in _read_file(self.proxy, "proxy"):
            raise LocalError(f"{self.proxy}: there is no proxy in it; renew the file")
        if self.ca is not None and not self.ca.exists():
            raise LocalError(f"{self.ca}: there are no authorities; see server.ca")

    def headers(self) -> dict[str, str]:
        """The headers that carry the token. Errors: `LocalError` when there is no usable one."""
        if self.token is None:
            return {}
        return {"Authorization": f"Bearer {read_token(self.token)}", "Origin": self.origin}

    def expires_at(self) -> float | None:
        """Unix time at which the token ends; None when it does not say, or there is none."""
        return _read_expiry(read_token(self.token)) if self.token is not None else None

    def expiries(self) -> dict[str, float]:
        """Unix times at which proxy and token end, as far as they say so and can be read."""
        found: dict[str, float | None] = {}
        with suppress(LocalError):  # the next call says it
            if self.proxy is not None:
                found["proxy"] = read_expiry(_read_file(self.proxy, "proxy"))
            found["token"] = self.expires_at()
        return {kind: at_unix for kind, at_unix in found.items() if at_unix is not None}


def find_credentials(given: Credentials, environ: Mapping[str, str]) -> Credentials:
    """What is given, completed with what a factory says in the environment.

    A token's name that is no path lies in the credential directory, or at its home.
    """
    proxy = given.proxy or _path_of(environ, "X509_USER_PROXY")
    ca = given.ca or _path_of(environ, "X509_CERT_DIR")
    origin = given.origin or _first(environ, _ORIGIN_NAMES)
    token = given.token or Path(_first(environ, _TOKEN_NAMES) or "")
    if token == Path():
        return Credentials(proxy, None, origin, ca)
    directory = _first(environ, _DIRECTORY_NAMES)
    if not token.is_absolute() and directory:
        token = Path(directory) / token
    return Credentials(proxy, token, origin, ca)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _path_of(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


def _stamp(path: Path | None) -> tuple[int, ...] | None:
    if path is None:
        return None
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def read_token(path: Path) -> str:
    """The token in a file: bare, or under `id_token` or `access_token` of a JSON object.

    Errors: `LocalError` that names the file, never its content.
    """
    data = _read_file(path, "token")
    text = _bare_token(data.decode("utf-8", "replace").strip())
    if len(data) > _LIMIT_BYTES or not text or not text.isascii() or not text.isprintable():
        raise LocalError(f"{path}: there is no token in it; renew the file")
    if " " in text:
        raise LocalError(f"{path}: it holds more than a token")
    return text


def _read_file(path: Path, what: str) -> bytes:
    """A little more than a file may hold; a pipe in its place does not hold us."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LocalError(f"{path}: the {what} is no regular file")
            return os.read(descriptor, _LIMIT_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LocalError(f"{path}: the {what} cannot be read: {error.strerror}") from None


def _bare_token(text: str) -> str:
    if not text.startswith("{"):
        return text
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    token = held.get("id_token") or held.get("access_token")
    return token if isinstance(token, str) else ""


def _read_expiry(token: str) -> float | None:
    """The `exp` claim of a JWT; the signature is the server's business."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = json.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, RecursionError):
        return None
    value = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < 1e12 else None
