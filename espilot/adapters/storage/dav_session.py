"""The HTTP connections of a WebDAV storage; the only module of storages that knows `requests`.

What `requests` lacks is added in its connections: with `Expect: 100-continue` the body waits for
the server's word, so that a redirect to a disk server, or a refusal, costs no transfer.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from espilot.adapters.storage.endpoint import TransferLimits
from espilot.adapters.storage.transfer import WatchedFile

Response = requests.Response
FOREIGN_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
CONTINUE_S = 1.0
"""How long a body waits for the server's word; old servers never say one."""
_HEADER_LINES = 200


class _Response(http.client.HTTPResponse):
    """A response that may come after interim ones, as of a server that is still at work."""

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_HEADER_LINES):
            told: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not _is_interim(told[1]):
                return told
            _skip_headers(self.fp)
        raise http.client.HTTPException(f"more than {_HEADER_LINES} interim answers")


class _EarlyResponse(http.client.HTTPResponse):
    """A response whose first line was read while the body waited."""

    def __init__(self, sock: Any, *args: Any, first_line: bytes, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._first_line = first_line

    def _read_status(self) -> tuple[str, int, str]:
        words = self._first_line.decode("latin-1").split(None, 2)
        return words[0], int(words[1]), words[2].strip() if len(words) > 2 else ""

    def begin(self) -> None:
        super().begin()
        # The body was announced and never sent: this connection is of no more use.
        self.will_close = True


class _Patient:
    """Part of a connection: after the headers the body waits for the server's word."""

    sock: Any
    response_class: Any

    def request(self, method: str, url: str, body: Any = None, *args: Any, **kwargs: Any) -> None:
        """Send a request, and keep its body at hand, to hold it back."""
        self._body = body
        super().request(method, url, body, *args, **kwargs)  # type: ignore[misc]

    def putheader(self, header: Any, *values: Any) -> None:
        """Send a header, and note the one that matters."""
        if header in ("Expect", b"Expect"):
            self._expects = True
        super().putheader(header, *values)  # type: ignore[misc]

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        """Send the headers, then wait for the word."""
        self._refused = False
        self.response_class = _Response
        super().endheaders(*args, **kwargs)  # type: ignore[misc]
        if getattr(self, "_expects", False):
            self._expects = False
            self._await_word()

    def send(self, data: Any) -> None:
        """Send, unless the server has said no."""
        if not getattr(self, "_refused", False):
            super().send(data)  # type: ignore[misc]

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """Begin a request anew."""
        self._refused = self._expects = False
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def _await_word(self) -> None:
        """Wait for a yes, or so long; keep the first line of anything else."""
        end = time.monotonic() + CONTINUE_S
        while (first := _first_byte(self.sock, end - time.monotonic())) is not None:
            # Unbuffered, so that not a byte more is taken from the socket than is looked at.
            with self.sock.makefile("rb", 0) as file:
                line = first + (file.readline(2**16) if first else b"")
                words = line.split(None, 2)
                if len(words) < 2 or not words[1].isdigit() or len(words[1]) != 3:
                    raise http.client.BadStatusLine(repr(line[:60]))
                code = int(words[1])
                if code != 100 and not _is_interim(code):
                    self._refuse(line)
                    return
                _skip_headers(file)
                if code == 100:
                    return

    def _refuse(self, line: bytes) -> None:
        """Send no body: the answer has begun."""
        self._refused = True
        if isinstance(self._body, WatchedFile):
            self._body.hold_back()
        self.response_class = partial(_EarlyResponse, first_line=line)


def _first_byte(sock: Any, timeout_s: float) -> bytes | None:
    """The next byte, b"" at the end; None where none comes in time.

    That something can be read is not enough: it may be of the encryption only.
    """
    if timeout_s <= 0:
        return None
    before = sock.gettimeout()
    sock.settimeout(timeout_s)
    try:
        first: bytes = sock.recv(1)
    except TimeoutError:
        return None
    finally:
        sock.settimeout(before)
    return first


def _is_interim(code: int) -> bool:
    """Whether the answer proper is still to come; 100 is known to `http.client`."""
    return 102 <= code < 200


def _skip_headers(file: Any) -> None:
    for _ in range(_HEADER_LINES):
        if file.readline(2**16) in (b"\r\n", b"\n", b""):
            return
    raise http.client.HTTPException(f"more than {_HEADER_LINES} headers")


class _PatientHTTP(_Patient, HTTPConnection):
    """As said above, without encryption."""


class _PatientHTTPS(_Patient, HTTPSConnection):
    """As said above, encrypted."""


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PatientHTTP


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PatientHTTPS


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make pools of our connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}


class DavSession:
    """Connections that are kept; may be used by several threads, each has its own."""

    def __init__(self, limits: TransferLimits, *, ca_file: str, proxy: str) -> None:
        self._timeout = limits.connect_s, limits.idle_s
        self._ca_file = ca_file
        self._proxy = proxy
        self._lock = threading.Lock()
        self._sessions: dict[int, requests.Session] = {}

    def send(
        self, method: str, url: str, headers: Mapping[str, str], *, body: Any = None, cert: str = ""
    ) -> requests.Response:
        """Send one request; the body of the answer is still to be read."""
        return self._mine().request(
            method,
            url,
            headers=dict(headers),
            data=body,
            cert=cert or None,
            verify=self._ca_file or True,
            timeout=self._timeout,
            allow_redirects=False,
            stream=True,
        )

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()

    def _mine(self) -> requests.Session:
        key = threading.get_ident()
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                session = self._sessions[key] = _open_session(self._proxy)
            return session


class _Session(requests.Session):
    """A session that leaves redirects to its caller."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: else it is read with each answer, and one that is no address raises."""
        return None


def _open_session(proxy: str) -> requests.Session:
    session = _Session()
    # Neither proxies nor .netrc of the environment.
    session.trust_env = False
    session.headers["Accept-Encoding"] = "identity"
    if proxy:
        session.proxies = {"http": proxy, "https": proxy}
    adapter = _Adapter(pool_connections=4, pool_maxsize=1, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def describe(error: BaseException) -> str:
    """A short sentence without addresses, which may hold what is secret."""
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "a certificate was not accepted; look at ca_file and credentials"
    with contextlib.suppress(IndexError):
        inner = error.args[0]
        if isinstance(getattr(inner, "reason", None), urllib3.exceptions.NameResolutionError):
            return "the host is unknown"
    return f"no connection, or it was lost ({type(error).__name__})"
