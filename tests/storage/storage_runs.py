"""Whole runs of the pilot with a real storage server behind a relay, and their accounting."""

from __future__ import annotations

import itertools
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import real_servers
from pilot_run import FAKE, Run, Runner, job_text
from real_servers import BUCKET, SECRET, Server
from relay import Relay

COUNTER = itertools.count(1)
EVENTS = 60
SIZE_BYTES = 100_000
QUICK: dict[str, Any] = {
    "attempts": 3,
    "retry_min_s": 0.05,
    "retry_max_s": 0.3,
    "give_up_after": 2,
    "storage_wait_s": 120.0,
}
STORAGE_ID = 42


class StorageRuns(ABC):
    """Runs with a place of their own at a server, reached through a relay."""

    def __init__(self, server: Server, relay: Relay, runner: Runner) -> None:
        self.server = server
        self.relay = relay
        self.runner = runner
        self.place = f"run-{next(COUNTER)}"
        self._seen = runner.directory / "seen"

    @property
    @abstractmethod
    def url(self) -> str:
        """The storage as the pilot is told."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The endpoint's settings."""

    @abstractmethod
    def listing(self) -> dict[str, bytes]:
        """What others see there."""

    @abstractmethod
    def damage(self, path: str, change: Callable[[bytes], bytes]) -> bool:
        """Change a file behind the server's back, by the path of its request; False: not there."""

    @property
    def secrets(self) -> tuple[Path, ...]:
        """The files that may hold the secret."""
        return ()

    def endpoint(self, **more: Any) -> str:
        """The endpoint's section of the job file."""
        facts = {"id": STORAGE_ID, **self.facts(), **more}
        return "\n".join(f"{key} = {value!r}" for key, value in facts.items())

    def start(
        self, *, endpoints: str = "", transfer: dict[str, Any] | None = None, size: int = SIZE_BYTES
    ) -> Run:
        """Start the main job with this storage."""
        text = job_text(
            f"{FAKE} --clients 2 --delay-ms 1 --outsize {size}",
            events=EVENTS,
            stageout=QUICK,
            transfer=transfer or {},
        )
        text += "\n[endpoints.storage]\n" + self.endpoint() + "\n" + endpoints
        return self.runner.start(text, "--storage", self.url)

    def require_finished(self, run: Run, *, size: int = SIZE_BYTES) -> None:
        """The run ends well and the accounting is content with what others see in the store."""
        assert run.end(120.0) == 0, run.stderr[-2000:] + run.log[-4000:]
        self._seen.mkdir()
        for name, data in self.listing().items():
            assert not name.startswith(".") and not name.endswith(".part"), "debris"
            (self._seen / name).write_bytes(data)
        run.storage = self._seen
        run.require_finished(EVENTS, size_bytes=size)
        self.require_no_secret()

    def require_no_secret(self) -> None:
        """No log, output or file of the run holds the secret, but the credentials themselves."""
        for path in self.runner.directory.rglob("*"):
            if path.is_file() and path not in self.secrets:
                assert SECRET.encode() not in path.read_bytes(), path


class S3Runs(StorageRuns):
    """With an object store; each run has a prefix of its own in the bucket."""

    def __init__(self, server: Server, relay: Relay, runner: Runner) -> None:
        super().__init__(server, relay, runner)
        self.keys = real_servers.keys_file(runner.directory)

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.place}"

    @property
    def secrets(self) -> tuple[Path, ...]:
        return (self.keys,)

    def facts(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.relay.port}"
        return {"endpoint_url": url, "credentials": self.keys.name}

    def direct(self, **more: Any) -> str:
        """The same store without the relay, as another endpoint."""
        return self.endpoint(endpoint_url=self.server.facts["url"], url=self.url, id=43, **more)

    def listing(self) -> dict[str, bytes]:
        return real_servers.s3_listing(self.server, BUCKET, f"{self.place}/")

    def damage(self, path: str, change: Callable[[bytes], bytes]) -> bool:
        key = path.removeprefix(f"/{BUCKET}/")
        found = real_servers.s3_listing(self.server, BUCKET, key)
        if "" in found:
            client = real_servers.s3_client(self.server)
            client.put_object(Bucket=BUCKET, Key=key, Body=change(found[""]))
            client.close()
        return "" in found


class FileRuns(StorageRuns):
    """With a server that keeps files in a directory which we can look into."""

    below = ""
    """Where its files are, below the server's directory of data."""

    @property
    def directory(self) -> Path:
        """The directory of this run at the server."""
        return self.server.directory / "data" / self.below / self.place

    def facts(self) -> dict[str, Any]:
        return {}

    def listing(self) -> dict[str, bytes]:
        return real_servers.files_below(self.directory)

    def damage(self, path: str, change: Callable[[bytes], bytes]) -> bool:
        file = self.server.directory / "data" / path.lstrip("/")
        if file.is_file():
            file.write_bytes(change(file.read_bytes()))
            return True
        return False


def storage_ids(run: Run) -> set[int]:
    """The storage ids that the server was told."""
    return {int(place.partition("/")[0]) for place in storage_places(run)}


def storage_places(run: Run) -> set[str]:
    """The storage ids that the server was told, with the path convention."""
    db = sqlite3.connect(f"file:{run.database}?mode=ro", uri=True)
    try:
        return {str(row[0]) for row in db.execute("SELECT storage FROM archive")}
    finally:
        db.close()
