"""Where objects lie: `s3://BUCKET/PREFIX`, and the address of the store that has the bucket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from espilot.adapters.storage.endpoint import check_scope, place_of
from espilot.errors import ConfigError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FORM = "write s3://BUCKET or s3://BUCKET/PREFIX"


@dataclass(frozen=True, slots=True)
class Address:
    """A prefix of a bucket of a store; `endpoint_url` is empty for the one that boto3 knows."""

    bucket: str
    prefix: str
    endpoint_url: str
    scope: str = ""

    @property
    def url(self) -> str:
        """The address as a person writes it."""
        return f"s3://{self.bucket}/{quote(self.prefix)}".rstrip("/")

    @property
    def where(self) -> str:
        """The address and the store that has it, for messages."""
        return f"{self.url} at {self.endpoint_url}" if self.endpoint_url else self.url

    def key(self, name: str) -> str:
        """Give the key of an object."""
        place = place_of(name, self.scope)
        return f"{self.prefix}/{place}" if self.prefix else place

    def url_of(self, name: str) -> str:
        """Give the address of an object."""
        return f"s3://{self.bucket}/{quote(self.key(name))}"


def read_address(url: str, endpoint_url: str, scope: str = "") -> Address:
    """Read both; `ConfigError` says what is wrong without repeating what may be a secret."""
    try:
        parts = urlsplit(url)
        prefix = unquote(parts.path, errors="strict").strip("/")
    except ValueError as error:
        raise ConfigError(f"storage: not a usable S3 address; {_FORM}") from error
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(f"storage: no credentials or options in an S3 address; {_FORM}")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ConfigError(f"storage: the S3 address has no usable bucket name; {_FORM}")
    if not prefix.isprintable() and prefix:
        raise ConfigError(f"storage: the prefix of the S3 address is not printable; {_FORM}")
    check_scope(scope)
    return Address(parts.netloc, prefix, _checked_endpoint(endpoint_url), scope)


def _checked_endpoint(url: str) -> str:
    """Require an http or https address without credentials."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in url or "?" in url:
        raise ConfigError("endpoint_url: write http://HOST:PORT or https://HOST:PORT")
    return url.rstrip("/")
