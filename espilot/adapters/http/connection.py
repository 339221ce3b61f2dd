"""One connection to one server; the only module that knows `requests`.

One call is one request: nothing is repeated here, no redirect is followed, proxies and `.netrc` of
the environment are not used. Each call has a total time limit of its own, because servers have
none, and an answer has a size limit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from espilot.adapters.http.credentials import Credentials
from espilot.errors import ConfigError, ServerUnavailable
from espilot.wire.panda_dialects import Request

BODY_LIMIT_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**18
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call may take."""

    timeout_s: float = 120.0
    connect_timeout_s: float = 100.0


class Connection:
    """A kept-open connection below `url`. Not for use by two threads at once."""

    def __init__(
        self,
        url: str,
        *,
        patience: Patience | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.url = _check_url(url, credentials)
        self._patience = patience or Patience()
        self._credentials = credentials or Credentials()
        self._stamp: tuple[object, ...] | None = None
        self._headers: Mapping[str, str] = {}
        self._session = _open_session(self._credentials)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    @contextmanager
    def send(self, request: Request) -> Iterator[tuple[int, Body]]:
        """HTTP status, and the body that is still to be read, all within the time limit.

        Errors: `ServerUnavailable` when there is no answer; `LocalError` when the credentials
        cannot be read.
        """
        self._renew()
        deadline = time.monotonic() + self._patience.timeout_s
        try:
            with self._request(request) as response:
                yield response.status_code, Body(response, deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ServerUnavailable(f"{request.function}: {_describe(error)}") from error

    def _renew(self) -> None:
        """Take renewed credentials; a connection that was made with the old ones is closed."""
        stamp = self._credentials.stamp()
        if stamp != self._stamp:
            self._credentials.check()
            self._headers = self._credentials.headers()
            self._session.close()
            self._stamp = stamp

    def _request(self, request: Request) -> requests.Response:
        timeout_s = self._patience.timeout_s
        connect_s = min(self._patience.connect_timeout_s, timeout_s)
        return self._session.request(
            request.method,
            self.url + request.path,
            params=dict(request.query),
            data=request.body,
            headers={**request.headers, **self._headers},
            # requests hands this object on to urllib3, the only way to limit both phases together.
            timeout=urllib3.Timeout(  # type: ignore[arg-type]
                total=timeout_s, connect=connect_s, read=timeout_s
            ),
            allow_redirects=False,
            stream=True,
        )


def _check_url(url: str, credentials: Credentials | None) -> str:
    """The address without a slash at its end; secrets are never sent in clear text over a net."""
    parts = urlsplit(url) if url.startswith(("http://", "https://")) else None
    if parts is None or not parts.hostname:
        raise ConfigError(f"server.url: not an http or https address: {url!r:.100}")
    clear = parts.scheme == "http" and parts.hostname not in _LOOPBACK
    if clear and credentials is not None and credentials.any:
        raise ConfigError(f"server.url: credentials need https, not {url!r:.100}")
    return url.rstrip("/")


def _open_session(credentials: Credentials) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers["Accept-Encoding"] = "identity"
    if credentials.ca is not None:
        session.verify = str(credentials.ca)
    if credentials.proxy is not None:
        session.cert = str(credentials.proxy)
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class Body:
    """The body of an answer, as long as it comes in time and is not too large."""

    def __init__(self, response: requests.Response, deadline: float) -> None:
        self._response = response
        self._deadline = deadline
        self._size_bytes = 0
        self._back = b""

    @property
    def date(self) -> str:
        """The server's clock, as its answer's header says; "" when it does not."""
        return str(self._response.headers.get("Date", ""))

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, as they come; none at the end."""
        if self._back and size > 0:
            piece, self._back = self._back[:size], self._back[size:]
            return piece
        if size <= 0:
            return b""
        _limit_wait(self._response, self._deadline - time.monotonic())
        piece = self._response.raw.read1(min(size, _CHUNK_BYTES))
        self._size_bytes += len(piece)
        if self._size_bytes > BODY_LIMIT_BYTES:
            raise ServerUnavailable(f"the answer is larger than {BODY_LIMIT_BYTES} bytes")
        return piece

    def put_back(self, data: bytes) -> None:
        """Have this read again."""
        self._back = data + self._back

    def read_up_to(self, size: int) -> bytes:
        """The first `size` bytes, or all where there are less."""
        pieces = bytearray()
        while len(pieces) < size:
            piece = self.read(size - len(pieces))
            if not piece:
                break
            pieces += piece
        return bytes(pieces)

    def read_all(self) -> bytes:
        """All of it."""
        return self.read_up_to(BODY_LIMIT_BYTES + 1)


def _limit_wait(response: requests.Response, remaining_s: float) -> None:
    """Let the next read wait no longer than what is left of the call's time.

    The read time-out of urllib3 is per read, so a dripping server could go on for ever.
    """
    if remaining_s <= 0:
        raise ServerUnavailable("the answer did not come in time")
    sock = getattr(response.raw.connection, "sock", None)
    if sock is not None:
        sock.settimeout(remaining_s)


def _describe(error: Exception) -> str:
    """A short sentence without the addresses of objects that urllib3 puts into its texts."""
    if isinstance(error, requests.ConnectTimeout):
        return "no connection to the server in time"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate or ours was not accepted"
    if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError | OSError):
        return "no connection to the server, or it was lost"
    return f"the request could not be sent ({type(error).__name__})"
