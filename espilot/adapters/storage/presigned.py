"""An object store without keys of our own: for each request a service signs an address.

The service is asked as pilots ask the PanDA proxy: a form is posted to SIGNER/getPresignedURL with
`url` (the object's plain address) and `method`, and for other pairs of keys than its usual one with
their names; it answers with a form, `StatusCode=0&presignedURL=...`, or with an `ErrorMsg`. Its
caller is known by a token or certificate. A signed address is a secret: no error repeats one.

An object goes up in one PUT with Content-MD5, which the store compares, unless the signature is of
the old kind; then the first byte is asked for, with which the store tells size and ETag.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from espilot.adapters.storage.authorities import require_authorities
from espilot.adapters.storage.credentials import (
    check_credentials,
    is_certificate,
    is_place,
    read_secret_file,
    token_header,
)
from espilot.adapters.storage.endpoint import Endpoint, require_name
from espilot.adapters.storage.s3_address import read_address
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
    from espilot.adapters.storage.dav_session import Response

MD5 = "Content-MD5"
_SIGNATURE_4 = "X-Amz-Signature="
_LONGEST_ANSWER_BYTES = 2**16
_HOME = ("localhost", "127.0.0.1", "::1")
_TOTAL = re.compile(r"bytes 0-0/(\d{1,18})")


class PresignedStorage:
    """Stores files as objects below one prefix of a bucket, by signed addresses."""

    def __init__(self, endpoint: Endpoint) -> None:
        check_credentials(endpoint.credentials)
        if endpoint.credentials and not is_place(endpoint.credentials):
            raise ConfigError("credentials: a signer takes a file with a token or a certificate")
        if not _is_safe(endpoint.signer):
            raise ConfigError("signer: write https://HOST:PORT/PATH of the service that signs")
        if not endpoint.endpoint_url:
            raise ConfigError("endpoint_url: name the store whose addresses are signed")
        self._endpoint = endpoint
        self._address = read_address(endpoint.url, endpoint.endpoint_url, endpoint.scope)
        self._session: Any = None

    @property
    def url(self) -> str:
        """Where it is."""
        return self._address.url

    @property
    def storage_id(self) -> int:
        """The id of the endpoint, for reports."""
        return self._endpoint.storage_id

    def put(
        self, source: Path, name: str, *, size_bytes: int, adler32: str, crc32: str = ""
    ) -> None:
        """Upload in one PUT whose checksum the store compares, then ask what it has."""
        require_name(name, self.url)
        what = f"storage {self.url}: upload of {name}"
        with opened_source(source, name, self.url) as file:
            require_source_size(file, size_bytes, what)
            found, md5 = _sum_up(file)
            where = "are on this disk"
            require_same(what, found, size_bytes=size_bytes, adler32=adler32, where=where)
            watch = Watch(self._endpoint.limits, size_bytes, what)
            body = WatchedFile(file, watch, what, size_bytes=size_bytes, adler32=adler32)
            headers = {"Expect": "100-continue", MD5: base64.b64encode(md5).decode()}
            with self._asked("upload", "PUT", name, headers, body):
                pass
        self._verify_stored(name, size_bytes, adler32, md5.hex())

    def verify(self, name: str, *, size_bytes: int, adler32: str) -> None:
        """Read `name` and compare."""
        require_name(name, self.url)
        what = f"storage {self.url}: {name}"
        found = sum_up(self._opened(name, 0), Watch(self._endpoint.limits, size_bytes, what))
        require_same(what, found, size_bytes=size_bytes, adler32=adler32, where="is there")

    def get(self, name: str, target: Path, *, size_bytes: int, adler32: str) -> None:
        """Download `name`, verified; goes on where a connection broke."""
        require_name(name, self.url)
        what = f"storage {self.url}: download of {name}"
        receive(
            lambda offset: self._opened(name, offset),
            target,
            size_bytes=size_bytes,
            adler32=adler32,
            watch=Watch(self._endpoint.limits, size_bytes, what),
            what=what,
        )

    def delete(self, name: str) -> None:
        """Remove `name`; a missing one is no error."""
        require_name(name, self.url)
        with self._asked("delete", "DELETE", name, allowed=(404,)):
            pass

    def url_of(self, name: str) -> str:
        """Give the object's URL."""
        require_name(name, self.url)
        return self._address.url_of(name)

    def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    # -- steps ----------------------------------------------------------------------------------

    def _verify_stored(self, name: str, size_bytes: int, adler32: str, md5: str) -> None:
        """Compare what the store tells with the first byte; else read all of it back."""
        with self._asked("look at", "GET", name, {"Range": "bytes=0-0"}) as answer:
            total = _TOTAL.fullmatch(answer.headers.get("Content-Range", ""))
            etag = answer.headers.get("ETag", "").strip('"').lower()
        if total and int(total[1]) == size_bytes and etag == md5:
            return
        try:
            self.verify(name, size_bytes=size_bytes, adler32=adler32)
        except StorageError:
            self.delete(name)
            raise

    @contextmanager
    def _opened(self, name: str, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        ranged = {"Range": f"bytes={offset}-"} if offset else {}
        with self._asked("read", "GET", name, ranged) as answer:
            start = offset if answer.status_code == 206 else 0
            yield start, answer.iter_content(PIECE_BYTES)

    # -- requests -------------------------------------------------------------------------------

    @contextmanager
    def _asked(
        self,
        action: str,
        method: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        body: WatchedFile | None = None,
        *,
        allowed: tuple[int, ...] = (),
    ) -> Iterator[Response]:
        """Have an address signed and send the request there; the answer is a good one."""
        from espilot.adapters.storage.dav_session import FOREIGN_ERRORS, describe

        what = f"storage {self._address.where}: cannot {action} {name}"
        signed = self._sign(what, method, name)
        headers = dict(headers or {})
        if _SIGNATURE_4 not in signed:
            # Older signatures cover this header, and nobody has told the service its value.
            headers.pop(MD5, None)
        try:
            with closing(self._send(method, signed, headers, body)) as answer:
                if answer.status_code not in allowed:
                    _require_well(what, answer)
                yield answer
        except FOREIGN_ERRORS as error:
            raise StorageRetryable(f"{what}: {describe(error)}; it is tried again") from None

    def _sign(self, what: str, method: str, name: str) -> str:
        """The address that the service signs for one request."""
        from espilot.adapters.storage.dav_session import FOREIGN_ERRORS, describe

        address = f"{self._address.endpoint_url}/{self._address.bucket}/"
        form = {"url": address + quote(self._address.key(name)), "method": method}
        form |= _names_of_keys(self._endpoint.signer_keys)
        headers, cert = {"Content-Type": "application/x-www-form-urlencoded"}, ""
        if self._endpoint.credentials:
            secret = read_secret_file(self._endpoint.credentials)
            if is_certificate(secret):
                cert = self._endpoint.credentials
            else:
                headers["Authorization"] = token_header(secret, self._endpoint.credentials)
        signer = f"{self._endpoint.signer.rstrip('/')}/getPresignedURL"
        what = f"{what}: the signer {self._endpoint.signer}"
        try:
            data = urlencode(form).encode()
            with closing(self._send("POST", signer, headers, data, cert)) as answer:
                if answer.status_code in (401, 403):
                    raise StorageFatal(f"{what}: HTTP {answer.status_code}; renew the credentials")
                if answer.status_code != 200:
                    raise StorageRetryable(f"{what}: HTTP {answer.status_code}; it is tried again")
                text = answer.raw.read(_LONGEST_ANSWER_BYTES).decode("utf-8", "replace")
        except FOREIGN_ERRORS as error:
            raise StorageRetryable(f"{what}: {describe(error)}; it is tried again") from None
        return _read_answer(what, text)

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Any, cert: str = ""
    ) -> Response:
        from espilot.adapters.storage.dav_session import DavSession

        if self._session is None:
            endpoint = self._endpoint
            require_authorities(endpoint.ca_file)
            self._session = DavSession(
                endpoint.limits, ca_file=endpoint.ca_file, proxy=endpoint.proxy
            )
        answer: Response = self._session.send(method, url, headers, body=body, cert=cert)
        return answer


def _read_answer(what: str, text: str) -> str:
    """The signed address in the service's form."""
    try:
        fields = {name: values[0] for name, values in parse_qs(text, max_num_fields=20).items()}
    except ValueError:
        raise StorageFatal(f"{what}: gives no answer of its kind; ask who runs it") from None
    if fields.get("StatusCode") != "0":
        said = "".join(c for c in fields.get("ErrorMsg", "no reason given") if c.isprintable())
        raise StorageFatal(f"{what}: refuses: {said[:200]}; ask who runs it")
    signed = fields.get("presignedURL", "")
    if not _is_safe(signed):
        raise StorageFatal(f"{what}: gives no usable address; ask who runs it")
    return signed


def _require_well(what: str, answer: Response) -> None:
    code = answer.status_code
    if 200 <= code < 300:
        return
    if code == 404:
        raise StorageDiffers(f"{what}: HTTP 404; it is tried again")
    pause = answer.headers.get("Retry-After", "")
    raise StorageRetryable(
        f"{what}: HTTP {code}; it is tried again with a new signature",
        retry_after_s=float(pause) if pause.isdecimal() and len(pause) < 6 else None,
    )


def _names_of_keys(text: str) -> dict[str, str]:
    """The names of a pair of keys at the service; empty for its usual one."""
    if not text:
        return {}
    public, _, private = (part.strip() for part in text.partition(","))
    return {"publicKey": f"publicKey:{public}", "privateKey": f"privateKey:{private}"}


def _is_safe(url: str) -> bool:
    """Whether this is an encrypted address, or one of this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or "@" in parts.netloc or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _HOME)


def _sum_up(file: BinaryIO) -> tuple[tuple[int, str], bytes]:
    """Size and adler32, and the MD5, which must be known before the first byte is sent."""
    size_bytes, adler, md5 = 0, 1, hashlib.md5(usedforsecurity=False)
    while piece := file.read(PIECE_BYTES):
        adler = zlib.adler32(piece, adler)
        md5.update(piece)
        size_bytes += len(piece)
    return (size_bytes, f"{adler:08x}"), md5.digest()
