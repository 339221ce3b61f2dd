"""The client of boto3, with the settings that matter; the only module that imports it.

Nothing of the environment or of the user's own configuration counts: no proxy, no profile, no
address, no credentials but those that were named.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import boto3
import botocore
import botocore.session
from botocore.config import Config
from botocore.credentials import InstanceMetadataProvider
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3SSLError
from botocore.utils import InstanceMetadataFetcher

from espilot.adapters.storage.authorities import Bundle
from espilot.adapters.storage.credentials import Keys, is_instance, metadata_url
from espilot.adapters.storage.endpoint import Endpoint
from espilot.adapters.storage.s3_address import Address
from espilot.adapters.storage.transfer import WatchedBytes
from espilot.errors import StorageDiffers, StorageError, StorageFatal, StorageRetryable

TRIES = 3
"""Tries of one request within boto3, with its own jittered pauses."""
METADATA_S = 5.0
"""Longest time for one answer of the machine's metadata service, which is near or not there."""
FOREIGN_ERRORS = (BotoCoreError, ClientError, URLLib3SSLError)
"""The last one comes through as it is while the body of an answer is read."""
_MISSING = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound", "NoSuchUpload"})
_RENEWABLE = frozenset({"ExpiredToken", "TokenRefreshRequired", "InvalidToken", "RequestExpired"})
_FATAL = {
    "AccessDenied": "give these credentials the right to write there",
    "403": "give these credentials the right to do so",
    "InvalidAccessKeyId": "name the right access key in the credentials",
    "SignatureDoesNotMatch": "name the right secret key in the credentials",
    "NoSuchBucket": "make the bucket or name another one",
    "InvalidBucketName": "name another bucket",
    "EntityTooLarge": "make smaller archives (packing.max_bytes)",
    "MethodNotAllowed": "this address takes no uploads; look at endpoint_url",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": "name the bucket's region",
    "AuthorizationHeaderMalformed": "name the bucket's region",
}


class S3Client:
    """One bucket of one store with one key pair; may be used by several threads."""

    def __init__(self, endpoint: Endpoint, address: Address, keys: Keys | None) -> None:
        self.keys = keys
        self.knows_crc32 = False
        """Whether the store has shown that it compares a CRC32."""
        self._bucket = address.bucket
        self._authorities = Bundle(endpoint.ca_file)
        self._client = _make_client(endpoint, address, keys, self._authorities.path)

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Do one operation on the bucket."""
        answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._bucket, **arguments)
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._authorities.close()

    def abort_leftovers(self, key: str) -> None:
        """Abort what a killed upload of the same name began: its parts cost space for ever.

        As far as these credentials may: many have no right to list.
        """
        with suppress(*FOREIGN_ERRORS):
            answer = self.call("list_multipart_uploads", Prefix=key)
            for each in answer.get("Uploads", ()):
                if each["Key"] == key:
                    self.call("abort_multipart_upload", Key=key, UploadId=each["UploadId"])

    @contextmanager
    def multipart(self, key: str, metadata: Mapping[str, str]) -> Iterator[Multipart]:
        """Begin an upload in parts; it is aborted unless the body completes it."""
        answer = self.call(
            "create_multipart_upload", Key=key, Metadata=dict(metadata), ChecksumAlgorithm="CRC32"
        )
        algorithm = str(answer.get("ChecksumAlgorithm", ""))
        multipart = Multipart(self, key, _told(answer, "UploadId"), algorithm)
        try:
            yield multipart
        finally:
            if not multipart.completed:
                multipart.abort()


class Multipart:
    """One upload in parts."""

    def __init__(self, client: S3Client, key: str, upload_id: str, algorithm: str) -> None:
        self.completed = False
        self.algorithm = algorithm
        """Of the checksums that the store keeps: `CRC32`, or "" where it has not said so."""
        self._client = client
        self._of = {"Key": key, "UploadId": upload_id}
        self._parts: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def send(self, number: int, body: WatchedBytes, checksum: Mapping[str, str]) -> None:
        """Send part `number` (1, 2, ...) with its checksum, which the store compares."""
        answer = self._client.call(
            "upload_part", PartNumber=number, Body=body, **checksum, **self._of
        )
        part = {"PartNumber": number, "ETag": _told(answer, "ETag")}
        if "ChecksumCRC32" in checksum:
            part["ChecksumCRC32"] = checksum["ChecksumCRC32"]
        with self._lock:
            self._parts[number] = part

    def complete(self) -> None:
        """Give the object its name."""
        with self._lock:
            parts = [part for _, part in sorted(self._parts.items())]
        self._client.call("complete_multipart_upload", MultipartUpload={"Parts": parts}, **self._of)
        self.completed = True

    def abort(self) -> None:
        """Have the store throw the parts away, as far as it can be reached."""
        try:
            self._client.call("abort_multipart_upload", **self._of)
        except FOREIGN_ERRORS:
            # The error that led here is the one to tell; the next try of the name aborts again.
            return


def _told(answer: Mapping[str, Any], field: str) -> str:
    """What the store must tell; what stands before it may have answered in its place."""
    if field not in answer:
        raise StorageRetryable(f"the object store's answer has no {field}; it is tried again")
    return str(answer[field])


def explain(what: str, error: Exception, *, renewable: bool) -> StorageError:
    """Say what failed, with which code, and the remedy; decide whether a retry may help."""
    if own := _own_error(error):
        return own
    if not isinstance(error, ClientError):
        return StorageRetryable(f"{what}: {_describe(error)}; it is tried again")
    facts = error.response.get("ResponseMetadata", {})
    code = _printable(str(error.response.get("Error", {}).get("Code", "")))
    text = f"{what}: HTTP {facts.get('HTTPStatusCode', '?')} {code}"
    if code in _RENEWABLE and renewable:
        return StorageRetryable(f"{text}; renew the credentials, they are read again")
    if code in _FATAL:
        return StorageFatal(f"{text}; {_FATAL[code]}")
    if code in _MISSING:
        return StorageDiffers(f"{text}; it is tried again")
    pause_s = _retry_after(facts.get("HTTPHeaders", {}))
    return StorageRetryable(f"{text}; it is tried again", retry_after_s=pause_s)


def is_missing(error: Exception) -> bool:
    """Whether the object or its bucket does not exist."""
    if not isinstance(error, ClientError):
        return False
    return str(error.response.get("Error", {}).get("Code", "")) in _MISSING


def _own_error(error: BaseException | None) -> StorageError | None:
    """Find the error of ours that a body raised while boto3 read it."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, StorageError):
            return error
        inner = getattr(error, "kwargs", {}).get("error")
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__
        seen += 1
    return None


def _describe(error: Exception) -> str:
    """A short sentence; the texts of botocore repeat addresses with signatures."""
    if isinstance(error, URLLib3SSLError):
        return "the connection was lost"
    name = type(error).__name__
    known = {
        "ConnectTimeoutError": "no connection in time",
        "ReadTimeoutError": "no answer in time",
        "EndpointConnectionError": "no connection, or the host is unknown",
        "ConnectionClosedError": "the connection was lost",
        "SSLError": "the certificate was not accepted; look at ca_file",
        "ProxyConnectionError": "no connection to the proxy",
        "NoCredentialsError": "no credentials",
        "ResponseStreamingError": "the connection was lost",
        "IncompleteReadError": "the connection was lost",
    }
    return known.get(name, f"the request failed ({name})")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read the pause in seconds that the store asks for; None where there is none."""
    text = headers.get("retry-after", "")
    return float(text) if text.isdecimal() and len(text) < 6 else None


def _printable(text: str) -> str:
    return text[:60] if text.isascii() and text.isprintable() else "?"


def _make_client(endpoint: Endpoint, address: Address, keys: Keys | None, ca_file: str) -> Any:
    """Make boto3's client."""
    session = botocore.session.Session()
    # Not even the files of the user's home: what counts is in our own settings.
    session.set_config_variable("config_file", os.devnull)
    session.set_config_variable("credentials_file", os.devnull)
    instance = is_instance(endpoint.credentials)
    if instance:
        session.get_component("credential_provider").providers = [_metadata_provider(endpoint)]
    arguments: dict[str, Any] = {}
    if keys is not None:
        arguments = {
            "aws_access_key_id": keys.access,
            "aws_secret_access_key": keys.secret,
            "aws_session_token": keys.token,
        }
    return boto3.session.Session(botocore_session=session).client(
        "s3",
        endpoint_url=address.endpoint_url or None,
        region_name=endpoint.region,
        verify=ca_file or True,
        config=_config(endpoint, address, anonymous=keys is None and not instance),
        **arguments,
    )


def _metadata_provider(endpoint: Endpoint) -> InstanceMetadataProvider:
    """Ask the machine for its rights, by no proxy, and within its own time."""
    url = metadata_url(endpoint.credentials)
    fetcher = InstanceMetadataFetcher(
        timeout=min(endpoint.limits.connect_s, METADATA_S),
        num_attempts=2,
        env={},
        config={"ec2_metadata_service_endpoint": url} if url else None,
    )
    return InstanceMetadataProvider(iam_role_fetcher=fetcher)


def _config(endpoint: Endpoint, address: Address, *, anonymous: bool) -> Config:
    """Lean settings: no further checksum of boto3's own, no hash over a signed body."""
    return Config(
        signature_version=botocore.UNSIGNED if anonymous else "s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "path" if address.endpoint_url else "auto",
            "payload_signing_enabled": False,
        },
        max_pool_connections=20,
        connect_timeout=endpoint.limits.connect_s,
        read_timeout=endpoint.limits.idle_s,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        proxies={"http": endpoint.proxy, "https": endpoint.proxy} if endpoint.proxy else {},
        ignore_configured_endpoint_urls=True,
    )
