"""Checks of what is elsewhere: credentials, server, clock, storage."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path

from espilot.adapters.http.connection import Connection, Patience
from espilot.adapters.http.credentials import Credentials, find_credentials
from espilot.diagnosis.subject import Fault, Nothing, Subject
from espilot.errors import EspilotError, StorageError
from espilot.ports import Storage
from espilot.wire.panda_dialects import DIALECTS
from espilot.workers.access_point import access_point
from espilot.workers.server_access import given_credentials
from espilot.workers.storages import location_of, open_storages

PATIENCE = Patience(timeout_s=10.0, connect_timeout_s=5.0)
SOON_S = 600.0
"""A token that ends sooner is as good as none."""
LARGEST_OFFSET_S = 60.0
FIRST_YEAR = 2025
TRANSFER_S = 30.0
_PROBE_BYTES = 2**16


def check_credentials(subject: Subject) -> str:
    """The files of credentials are there, private, usable, and not about to end."""
    credentials = _credentials_of(subject)
    files = [path for path in (credentials.proxy, credentials.token) if path is not None]
    if not files:
        raise Nothing("none are configured (server.x509_proxy, server.token_file)")
    credentials.check()
    credentials.headers()
    for path in files:
        if path.stat().st_mode & 0o077:
            raise Fault(f"{path} can be read by others", f"chmod 600 {path}")
    left_s = (credentials.expires_at() or float("inf")) - time.time()
    if left_s < SOON_S:
        when = f"in {left_s:.0f} s" if left_s > 0 else "already"
        raise Fault(f"the token {credentials.token} ends {when}", "renew it")
    return ", ".join(map(str, files))


def check_server(subject: Subject) -> str:
    """The event server answers, or the built-in one can be started."""
    url = subject.settings.server.url
    place = access_point(url)
    if place is not None:
        if not place.is_dir():
            raise Fault(
                f"there is no access point {place}", "see server.url; start Harvester first"
            )
        return f"the access point {place}"
    if not url:
        if find_spec("aiohttp") is None:
            raise Fault("the built-in server needs aiohttp", "pip install 'espilot[server]'")
        return "the built-in one"
    for name, dialect in DIALECTS.items():
        exchange = dialect.probe()
        with _connected(subject) as connection, connection.send(exchange.request) as answer:
            if exchange.read(answer[0], answer[1].read_up_to(_PROBE_BYTES)):
                return f"{url} answers ({name})"
    raise Fault(f"{url} answers, but is no event server", "see server.url")


def check_clock(subject: Subject) -> str:
    """The clock is right, by the server's where there is one."""
    now = time.time()
    if time.gmtime(now).tm_year < FIRST_YEAR:
        raise Fault(f"the year is {time.gmtime(now).tm_year}", "set the clock; see timedatectl")
    url = subject.settings.server.url
    if not url or access_point(url) is not None:
        return "plausible; there is no server to compare it with"
    exchange = next(iter(DIALECTS.values())).probe()
    try:
        with _connected(subject) as connection, connection.send(exchange.request) as answer:
            date = answer[1].date
    except EspilotError:
        raise Nothing("the server, with which it is compared, does not answer") from None
    try:
        offset_s = time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return "plausible; the server does not tell its own"
    if abs(offset_s) > LARGEST_OFFSET_S:
        raise Fault(f"{offset_s:+.0f} s against the server's", "set the clock; see timedatectl")
    return f"{offset_s:+.0f} s against the server's"


def check_storage(subject: Subject) -> str:
    """Every endpoint takes a file, gives it back the same, and lets it be deleted."""
    settings = subject.settings
    transfer = replace(
        settings.transfer,
        connect_s=min(settings.transfer.connect_s, PATIENCE.timeout_s),
        base_s=min(settings.transfer.base_s, TRANSFER_S),
    )
    settings = replace(settings, transfer=transfer)
    opened = open_storages(settings, subject.storage, subject.jobdir)
    try:
        return ", ".join(_try_storage(name, each) for name, each in opened.items())
    finally:
        for storage in opened.values():
            storage.close()


def _try_storage(name: str, storage: Storage) -> str:
    place = location_of(storage)
    missing = _missing(Path(place)) if place.startswith("/") else []
    data = os.urandom(1000)
    facts = {"size_bytes": len(data), "adler32": f"{zlib.adler32(data):08x}"}
    object_name = f"espilot-doctor-{uuid.uuid4().hex}"
    step = "write"
    try:
        with tempfile.TemporaryDirectory(prefix="espilot-doctor-") as scratch:
            source, back = Path(scratch, "source"), Path(scratch, "back")
            source.write_bytes(data)
            storage.put(source, object_name, **facts)  # type: ignore[arg-type]
            step = "read back"
            storage.get(object_name, back, **facts)  # type: ignore[arg-type]
            step = "delete"
            storage.delete(object_name)
    except StorageError as error:
        raise Fault(f"{name}: cannot {step}: {error}", _storage_fix(name, place)) from error
    finally:
        for path in missing:
            _remove_empty(path)
    return f"{place}: written, read back, deleted"


def _storage_fix(name: str, place: str) -> str:
    if place.startswith("/"):
        return f"make {place} a directory in which you may write, or choose another --storage"
    return f"see endpoints.{name}: url, credentials, ca_file"


def _missing(directory: Path) -> list[Path]:
    """The directories that will have to be made, the deepest first."""
    return [path for path in (directory, *directory.parents) if not path.exists()]


def _remove_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        return  # it is not there, or others use it meanwhile


def _credentials_of(subject: Subject) -> Credentials:
    given = given_credentials(subject.settings.server, subject.environ)
    return find_credentials(given, subject.environ)


@contextmanager
def _connected(subject: Subject) -> Iterator[Connection]:
    server = subject.settings.server
    try:
        credentials = _credentials_of(subject)
    except EspilotError:
        credentials = Credentials()  # the check of the credentials tells it
    connection = Connection(server.url, patience=PATIENCE, credentials=credentials)
    try:
        yield connection
    finally:
        connection.close()
