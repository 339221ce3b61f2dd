"""An XRootD server, through the tools of its own client: xrdcp and xrdfs.

The tools leave a partial file when they are ended. So a file goes up under a temporary name, is
verified there by the server's own checksum, else by reading it back, and is then moved to its name.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from espilot.adapters.storage.credentials import (
    check_credentials,
    is_certificate,
    is_place,
    read_secret_file,
)
from espilot.adapters.storage.endpoint import Endpoint, check_scope, place_of, require_name
from espilot.adapters.storage.transfer import (
    PIECE_BYTES,
    Watch,
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

_FORM = "write root://HOST:PORT//PATH"
_UNUSABLE = re.compile(r"[?#&%\"'\s;]")
"""What the tools take for something else than a part of a name."""
_CHECKSUM = re.compile(r"\badler32\s+([0-9a-fA-F]{1,8})\b")
_SIZE = re.compile(r"^Size:\s+(\d+)", re.MULTILINE)
_CODE = re.compile(r"\[(\d{4})\]")
_LOOK_AT = "look at"
_MISSING, _REFUSED = "3011", frozenset({"3010", "3025", "3030"})


class XrootdStorage:
    """Stores files in one directory of a server."""

    def __init__(self, endpoint: Endpoint) -> None:
        check_credentials(endpoint.credentials)
        if endpoint.credentials and not is_place(endpoint.credentials):
            raise ConfigError("credentials: XRootD takes a file with a token or a proxy")
        self._endpoint = endpoint
        check_scope(endpoint.scope)
        self._server, self._path = _read_url(endpoint.url)
        for tool in ("xrdcp", "xrdfs"):
            if shutil.which(tool) is None:
                raise ConfigError(
                    f"storage: {tool} is not installed, it is needed for {self.url}; install the "
                    "XRootD client or use the server's davs:// address"
                )

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self._server}/{self._path}"

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
        with opened_source(source, name, self.url) as file:
            require_source_size(file, size_bytes, what)
        try:
            self._upload(source, temporary, size_bytes, adler32.lower())
            self._verify(temporary, size_bytes=size_bytes, adler32=adler32)
            self._run("move into place", name, "xrdfs", self._server, "mv",
                      self._file(temporary), self._file(place))  # fmt: skip
        except StorageError:
            self._clean_up(temporary)
            raise

    def verify(self, name: str, *, size_bytes: int, adler32: str) -> None:
        """Compare by the server's checksum where it tells one, else by reading."""
        self._verify(self._place(name), size_bytes=size_bytes, adler32=adler32)

    def get(self, name: str, target: Path, *, size_bytes: int, adler32: str) -> None:
        """Download `name`, verified; nothing partial ever has that path."""
        place = self._place(name)
        what = f"storage {self.url}: download of {name}"
        watch = Watch(self._endpoint.limits, size_bytes, what)
        receive(
            lambda _: self._opened(place),
            target,
            size_bytes=size_bytes,
            adler32=adler32,
            watch=watch,
            what=what,
        )

    def delete(self, name: str) -> None:
        """Remove `name`; a missing one is no error."""
        file = self._file(self._place(name))
        self._run("delete", name, "xrdfs", self._server, "rm", file, allowed=_MISSING)

    def url_of(self, name: str) -> str:
        """Give the file's address."""
        return self._url(self._place(name))

    def close(self) -> None:
        """Nothing is kept open."""

    # -- steps ----------------------------------------------------------------------------------

    def _place(self, name: str) -> str:
        """The path of a file below our directory."""
        require_name(name, self.url)
        if _UNUSABLE.search(name) or not name.isascii():
            raise StorageFatal(f"storage {self.url}: cannot use the name {ascii(name)[:80]}")
        return place_of(name, self._endpoint.scope)

    def _file(self, place: str) -> str:
        return f"{self._path}/{place}"

    def _url(self, place: str) -> str:
        return f"{self._server}/{self._file(place)}"

    def _upload(self, source: Path, name: str, size_bytes: int, adler32: str) -> None:
        """Copy; the tool compares the local file with `adler32` as it is sent."""
        self._run(
            "upload", name, "xrdcp", "--force", "--nopbar", "--silent", "--retry", "0",
            "--cksum", f"adler32:{adler32}", str(source.absolute()), self._url(name),
            timeout_s=self._endpoint.limits.total_s(size_bytes),
        )  # fmt: skip

    def _clean_up(self, name: str) -> None:
        """Remove what a failed upload left, as far as the server can be reached."""
        try:
            self._run(
                "delete", name, "xrdfs", self._server, "rm", self._file(name), allowed=_MISSING
            )
        except StorageError:
            # The error that led here is the one to tell; the next try overwrites the name.
            return

    def _verify(self, name: str, *, size_bytes: int, adler32: str) -> None:
        what = f"storage {self.url}: {name}"
        size = _SIZE.search(
            self._run(_LOOK_AT, name, "xrdfs", self._server, "stat", self._file(name))
        )
        try:
            answer = self._run(
                "sum up", name, "xrdfs", self._server, "query", "checksum", self._file(name)
            )
        except StorageError:
            # Not every server can; reading it is as good.
            answer = ""
        told = _CHECKSUM.search(answer)
        if told and size:
            found = int(size[1]), told[1].lower().zfill(8)
        else:
            found = sum_up(self._opened(name), Watch(self._endpoint.limits, size_bytes, what))
        require_same(what, found, size_bytes=size_bytes, adler32=adler32, where="is there")

    # -- tools ----------------------------------------------------------------------------------

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Have the tool write the file to a pipe."""
        argv = _ending_with_us("xrdcp", "--nopbar", "--silent", self._url(name), "-")
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
        )
        with process:
            try:
                yield 0, self._pieces(process, name)
            finally:
                process.kill()

    def _pieces(self, process: subprocess.Popen[bytes], name: str) -> Iterator[bytes]:
        assert process.stdout is not None and process.stderr is not None
        fd, poller = process.stdout.fileno(), select.poll()
        poller.register(fd, select.POLLIN)
        what = f"storage {self.url}: cannot read {name}"
        while True:
            if not poller.poll(self._endpoint.limits.idle_s * 1000):
                raise StorageRetryable(f"{what}: no byte in time; it is tried again")
            piece = os.read(fd, PIECE_BYTES)
            if not piece:
                break
            yield piece
        try:
            code = process.wait(self._endpoint.limits.idle_s)
        except subprocess.TimeoutExpired:
            raise StorageRetryable(f"{what}: xrdcp did not end in time and was ended") from None
        if code:
            said = process.stderr.read(PIECE_BYTES).decode(errors="replace")
            raise _explain(what, said, reading=True)

    def _run(
        self, action: str, name: str, *argv: str, timeout_s: float = 0.0, allowed: str = ""
    ) -> str:
        """Run a tool to its end, or to ours; its output."""
        what = f"storage {self.url}: cannot {action} {name}"
        try:
            done = subprocess.run(
                _ending_with_us(*argv),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=self._environment(),
                timeout=timeout_s or self._endpoint.limits.idle_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StorageRetryable(f"{what}: {argv[0]} did not end in time and was ended") from None
        if done.returncode:
            text = (done.stderr + done.stdout).decode(errors="replace")
            if not (allowed and f"[{allowed}]" in text):
                silent = f"{argv[0]} ended with exit code {done.returncode}"
                reading = action == _LOOK_AT
                raise _explain(what, text if text.strip() else silent, reading=reading)
        return done.stdout.decode(errors="replace")

    def _environment(self) -> dict[str, str]:
        """What the tools need to know; of the credentials only where they lie."""
        limits = self._endpoint.limits
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "XRD_CONNECTIONWINDOW": str(max(1, round(limits.connect_s))),
            "XRD_CONNECTIONRETRY": "1",
            "XRD_REQUESTTIMEOUT": str(max(1, round(limits.idle_s))),
            "XRD_STREAMTIMEOUT": str(max(1, round(limits.idle_s))),
            "XRD_LOGLEVEL": "Error",
        }
        path = self._endpoint.credentials
        if path:
            proxy = is_certificate(read_secret_file(path))
            env["X509_USER_PROXY" if proxy else "BEARER_TOKEN_FILE"] = path
        if self._endpoint.ca_file:
            env["X509_CERT_DIR"] = self._endpoint.ca_file
        return env


def _ending_with_us(*argv: str) -> list[str]:
    """Have the kernel end the tool when the thread that starts it is gone."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *argv] if setpriv else list(argv)


def _explain(what: str, text: str, *, reading: bool) -> StorageError:
    """Say what the tool said, and whether a retry may help, or what was to be read is missing."""
    said = next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")
    said = "".join(c for c in said if c.isprintable())[:200]
    code = _CODE.search(text)
    if (code and code[1] in _REFUSED) or "Auth failed" in text:
        return StorageFatal(f"{what}: {said}; give these credentials the right to do so")
    kind = StorageDiffers if reading and code and code[1] == _MISSING else StorageRetryable
    return kind(f"{what}: {said}; it is tried again")


def _read_url(url: str) -> tuple[str, str]:
    """Read server and path; `ConfigError` never repeats what may be a secret."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigError(f"storage: not a usable address; {_FORM}") from None
    if not usable or "@" in parts.netloc or _UNUSABLE.search(url) or not url.isascii():
        raise ConfigError(f"storage: not a usable address, or one with credentials; {_FORM}")
    path = "/" + parts.path.strip("/")
    return f"{parts.scheme.lower()}://{parts.netloc}", path.rstrip("/")
