"""A WebDAV server of the grid, or any web server that takes PUT, MOVE and DELETE.

Many leave a partial file when an upload breaks. So a file goes up under a temporary name, is
verified there by the server's own checksum (`Want-Digest`), else by reading it back, and is then
moved to its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from espilot.adapters.storage.authorities import require_authorities
from espilot.adapters.storage.credentials import (
    check_credentials,
    is_certificate,
    is_place,
    read_secret_file,
    token_header,
)
from espilot.adapters.storage.endpoint import Endpoint, check_scope, place_of, require_name
from espilot.adapters.storage.transfer import (
    PIECE_BYTES,
    Watch,
    WatchedFile,
    opened_source,
    receive,
    require_same,
    require_source_size,
    sum_up,
)
from espilot.errors import (
    ConfigError,
    StorageDiffers,
    StorageError,
    StorageFatal,
    StorageRetryable,
)

if TYPE_CHECKING:
    import requests

SCHEMES: Mapping[str, str] = {"davs": "https", "https": "https", "dav": "http", "http": "http"}
REDIRECTS = 5
_FORM = "write davs://HOST:PORT/PATH or https://HOST:PORT/PATH"
_ADLER = re.compile(r"(?:^|,)\s*adler32=\"?([0-9A-Fa-f]{1,8})\"?\s*(?:,|$)", re.IGNORECASE)
_FATAL = {
    401: "renew the credentials of the endpoint",
    403: "give these credentials the right to write there",
    405: "name a server that takes uploads",
    413: "make smaller archives (packing.max_bytes)",
    501: "name a server that takes uploads",
}


class WebdavStorage:
    """Stores files in one directory of a server."""

    def __init__(self, endpoint: Endpoint) -> None:
        check_credentials(endpoint.credentials)
        if endpoint.credentials and not is_place(endpoint.credentials):
            raise ConfigError("credentials: WebDAV takes a file with a token or a certificate")
        self._endpoint = endpoint
        check_scope(endpoint.scope)
        self._base = _read_url(endpoint.url)
        self._session: Any = None

    @property
    def url(self) -> str:
        """Where it is."""
        return self._base

    @property
    def storage_id(self) -> int:
        """The id of the endpoint, for reports."""
        return self._endpoint.storage_id

    def put(
        self, source: Path, name: str, *, size_bytes: int, adler32: str, crc32: str = ""
    ) -> None:
        """Upload under a temporary name, verify, move into place."""
        place = self._place(name)
        temporary = f"{place}.part"
        what = f"storage {self.url}: upload of {name}"
        try:
            with opened_source(source, name, self.url) as file:
                require_source_size(file, size_bytes, what)
                watch = Watch(self._endpoint.limits, size_bytes, what)
                body = WatchedFile(file, watch, what, size_bytes=size_bytes, adler32=adler32)
                self._put(temporary, body)
            self._verify_by_digest(temporary, size_bytes=size_bytes, adler32=adler32)
            self._move(temporary, place)
        except StorageError:
            self._clean_up(temporary)
            raise

    def verify(self, name: str, *, size_bytes: int, adler32: str) -> None:
        """Compare by the server's checksum where it tells one, else by reading."""
        self._verify_by_digest(self._place(name), size_bytes=size_bytes, adler32=adler32)

    def get(self, name: str, target: Path, *, size_bytes: int, adler32: str) -> None:
        """Download `name`, verified; goes on where a connection broke."""
        place = self._place(name)
        what = f"storage {self.url}: download of {name}"
        receive(
            lambda offset: self._opened(place, offset),
            target,
            size_bytes=size_bytes,
            adler32=adler32,
            watch=Watch(self._endpoint.limits, size_bytes, what),
            what=what,
        )

    def delete(self, name: str) -> None:
        """Remove `name`; a missing one is no error."""
        self._call("delete", "DELETE", self._place(name), allowed=(404, 410))

    def url_of(self, name: str) -> str:
        """Give the file's address."""
        return self._address(self._place(name))

    def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _place(self, name: str) -> str:
        """The path of a file below our directory."""
        require_name(name, self.url)
        return place_of(name, self._endpoint.scope)

    # -- steps ----------------------------------------------------------------------------------

    def _put(self, name: str, body: WatchedFile) -> None:
        """Send the body once the server, or the disk server it names, says so."""
        headers = {"Expect": "100-continue", "Content-Type": "application/octet-stream"}
        self._call("upload", "PUT", name, headers, body=body)

    def _move(self, old: str, new: str) -> None:
        headers = {"Destination": self._http(self._address(new)), "Overwrite": "T"}
        self._call("move into place", "MOVE", old, headers)
        self._call("find after its move", "HEAD", new)

    def _clean_up(self, name: str) -> None:
        """Remove what a failed upload left, as far as the server can be reached."""
        try:
            self._call("delete", "DELETE", name, allowed=(404, 410))
        except StorageError:
            # The error that led here is the one to tell; the next try overwrites the name.
            return

    def _verify_by_digest(self, name: str, *, size_bytes: int, adler32: str) -> None:
        what = f"storage {self.url}: {name}"
        headers = self._call("look at", "HEAD", name, {"Want-Digest": "adler32"}, allowed=(404,))
        told = _ADLER.search(headers.get("Digest", ""))
        length = _length_of(headers)
        if told and length is not None:
            found = length, told[1].lower().zfill(8)
        else:
            found = sum_up(self._opened(name, 0), Watch(self._endpoint.limits, size_bytes, what))
        require_same(what, found, size_bytes=size_bytes, adler32=adler32, where="is there")

    @contextmanager
    def _opened(self, name: str, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        ranged = {"Range": f"bytes={offset}-"} if offset else {}
        with self._translated("read", name):
            response = self._follow("GET", name, ranged)
            with closing(response):
                if response.status_code == 404:
                    raise StorageDiffers(f"storage {self.url}: {name} is not there (HTTP 404)")
                self._require_well("read", name, response)
                start = offset if response.status_code == 206 else 0
                yield start, response.iter_content(PIECE_BYTES)

    # -- requests -------------------------------------------------------------------------------

    def _call(
        self,
        action: str,
        method: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: WatchedFile | None = None,
        allowed: tuple[int, ...] = (),
    ) -> Mapping[str, str]:
        """Send one request, follow redirects, require success; gives the headers of the answer."""
        with self._translated(action, name):
            response = self._follow(method, name, headers or {}, body)
            with closing(response):
                if response.status_code not in allowed:
                    self._require_well(action, name, response)
                _read_rest(method, response)
                return response.headers

    def _follow(
        self,
        method: str,
        name: str,
        headers: Mapping[str, str],
        body: WatchedFile | None = None,
    ) -> requests.Response:
        """Send to the server, and to the disk server that it names, within some steps."""
        url = self._http(self._address(name))
        for _ in range(REDIRECTS):
            response = self._send(method, url, headers, body)
            location = response.headers.get("Location")
            if response.status_code not in (301, 302, 303, 307, 308) or not location:
                return response
            with closing(response):
                _read_rest(method, response)
            if body is not None:
                body.seek(0)
            url = _checked_redirect(url, location)
        raise StorageRetryable(f"storage {self.url}: more than {REDIRECTS} redirects for {name}")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: WatchedFile | None
    ) -> requests.Response:
        from espilot.adapters.storage.dav_session import DavSession

        if self._session is None:
            limits = self._endpoint.limits
            require_authorities(self._endpoint.ca_file)
            self._session = DavSession(
                limits, ca_file=self._endpoint.ca_file, proxy=self._endpoint.proxy
            )
        cert, headers = "", dict(headers)
        if self._endpoint.credentials:
            secret = read_secret_file(self._endpoint.credentials)
            if is_certificate(secret):
                cert = self._endpoint.credentials
            elif _same_host(url, self._http(self._base)):
                headers["Authorization"] = token_header(secret, self._endpoint.credentials)
        response: requests.Response = self._session.send(method, url, headers, body=body, cert=cert)
        return response

    @contextmanager
    def _translated(self, action: str, name: str) -> Iterator[None]:
        """Turn errors of the library into a StorageError that says what to do."""
        from espilot.adapters.storage.dav_session import FOREIGN_ERRORS, describe

        try:
            yield
        except FOREIGN_ERRORS as error:
            text = f"storage {self.url}: cannot {action} {name}: {describe(error)}"
            raise StorageRetryable(f"{text}; it is tried again") from None

    def _require_well(self, action: str, name: str, response: requests.Response) -> None:
        code = response.status_code
        if 200 <= code < 300:
            return
        text = f"storage {self.url}: cannot {action} {name}: HTTP {code}"
        if code in _FATAL:
            raise StorageFatal(f"{text}; {_FATAL[code]}")
        if code == 507:
            raise StorageRetryable(f"{text}; free space there")
        pause = response.headers.get("Retry-After", "")
        raise StorageRetryable(
            f"{text}; it is tried again",
            retry_after_s=float(pause) if pause.isdecimal() and len(pause) < 6 else None,
        )

    def _address(self, place: str) -> str:
        return f"{self._base}/{quote(place)}"

    def _http(self, url: str) -> str:
        scheme, _, rest = url.partition(":")
        return f"{SCHEMES[scheme]}:{rest}"


def _read_url(url: str) -> str:
    """Require an address without credentials; http only on this machine."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:
        raise ConfigError(f"storage: not a usable address; {_FORM}") from None
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"storage: not a usable address, or one with credentials; {_FORM}")
    scheme = parts.scheme.lower()
    if SCHEMES[scheme] == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigError(f"storage: without encryption only to this machine itself; {_FORM}")
    return f"{scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _checked_redirect(url: str, location: str) -> str:
    """Require that a redirect leads to a web server, and never from an encrypted one elsewhere."""
    try:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
    except ValueError:
        raise StorageRetryable(
            "storage: redirected to no usable address; it is tried again"
        ) from None
    allowed = ("https",) if url.startswith("https:") else ("http", "https")
    if scheme not in allowed:
        raise StorageFatal("storage: redirected to an address that is not encrypted")
    return target


def _read_rest(method: str, response: requests.Response) -> None:
    """Read what else an answer says, if it is short: else the connection could not be kept."""
    length = _length_of(response.headers)
    if method != "HEAD" and length is not None and length < PIECE_BYTES:
        _ = response.content


def _length_of(headers: Mapping[str, str]) -> int | None:
    """The length that an answer tells; None where it is no number."""
    text = headers.get("Content-Length", "")
    return int(text) if text.isdecimal() and len(text) < 19 else None


def _same_host(one: str, other: str) -> bool:
    return urlsplit(one).netloc == urlsplit(other).netloc
