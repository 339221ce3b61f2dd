"""The state directory: one pilot at a time, and what a dead one left behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from pathlib import Path
from typing import Any

from espilot.adapters import cgroup
from espilot.adapters.disk import remove_path
from espilot.adapters.proctree import carriers, kill_until_gone
from espilot.adapters.state_files import read_object
from espilot.errors import LocalError, NoDirectoryError, NoSpaceError, QueueError, UsageError
from espilot.queue.store import refuse_remote

RUNTIME_PREFIX = "espilot-"
RECORD = "run.json"
"""A state directory has it from the start of its first run."""
STATE_NOTE = "state.json"
"""In the log directory: where the state directory is."""
LONGEST_RUNTIME = 85
"""Socket paths have 107 bytes, and the longest name in the directory some 20."""
KILL_S = 10.0
"""Longest wait for the end of what a predecessor left."""


class StateDir:
    """Locked for the life of this object; `LocalError` names the pilot that holds it, or what
    cannot be written, `UsageError` a name that cannot be told to a payload.

    The sockets of the pilot's processes are in a private directory below `runtime`.
    """

    def __init__(self, path: Path, runtime: Path | None = None) -> None:
        require_utf8(path)
        self.path = path
        self._base = (runtime or Path("/tmp")).absolute()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise NoDirectoryError(
                f"cannot make the state directory {path}: {error.strerror}"
            ) from None
        try:
            refuse_remote(path)
        except QueueError as error:
            raise LocalError(str(error)) from None
        try:
            self._lock = self._take_lock()
            self.runtime = self._enter()
        except OSError as error:
            raise unusable(path, error) from error

    def close(self) -> None:
        """Remove the runtime directory and the channel, and let the next pilot in."""
        remove_path(self.runtime)
        remove_channels(read_record(self.path))
        (self.path / "pilot.json").unlink(missing_ok=True)
        os.close(self._lock)

    def _enter(self) -> Path:
        """The runtime directory; who cannot enter does not keep the lock."""
        try:
            self._wait_for_workers()
            return self._make_runtime()
        except BaseException:
            os.close(self._lock)
            raise

    def _take_lock(self) -> int:
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = read_record(self.path).get("pid", "unknown")
            os.close(fd)
            raise LocalError(
                f"another pilot (process {pid}) uses the state directory {self.path}; "
                "end it first, or choose another --state-dir"
            ) from None
        return fd

    def _wait_for_workers(self) -> None:
        """A predecessor's workers die with it; the queue is opened only when they are gone."""
        fd = os.open(self.path / "workers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)

    def _make_runtime(self) -> Path:
        record = read_record(self.path)
        left, run_id = record.get("runtime", ""), record.get("run_id", "")
        if isinstance(left, str) and Path(left).name.startswith(RUNTIME_PREFIX):
            remove_path(Path(left))
        if isinstance(run_id, str) and run_id:
            # Its launcher ends a payload; only when both were killed at once is something left.
            kill_until_gone(lambda: carriers(run_id), KILL_S)
        if isinstance(record.get("group"), str):
            cgroup.remove_group(Path(record["group"]), KILL_S)
        remove_channels(record)
        # Socket paths have 107 bytes at most, so the directory is not below the work directory.
        runtime = self._base / f"{RUNTIME_PREFIX}{uuid.uuid4().hex[:12]}"
        if len(os.fsencode(runtime)) > LONGEST_RUNTIME:
            raise LocalError(f"the runtime directory {self._base} has too long a name for sockets")
        record = {"pid": os.getpid(), "runtime": str(runtime)}
        # Written down before it is there: whoever comes after our death finds it.
        write_atomically(self.path / "pilot.json", json.dumps(record))
        try:
            runtime.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise LocalError(f"cannot make {runtime}: {error.strerror}; choose another") from error
        return runtime


def require_utf8(path: Path) -> None:
    """`UsageError` for a name that messages cannot hold: a run there would end with its first."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the directory {str(path)!r} has a name that is not UTF-8; "
            "choose another --workdir or --state-dir"
        ) from None


def unusable(state: Path, error: OSError) -> LocalError:
    """What a person is told of a state directory that cannot be written: place and remedy."""
    place = error.filename or state
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(
            f"no room in the state directory: {place}; "
            "free some space, or choose another --state-dir"
        )
    return NoDirectoryError(
        f"cannot use the state directory: {place}: {error.strerror}; "
        "make it writable, or choose another --state-dir"
    )


def find_state(path: Path) -> Path:
    """The state directory that a person means by a work or state directory.

    `UsageError` when there is none at `path`; nothing is made.
    """
    places = (path, path / "state", noted_state(path))
    try:
        found = next((each for each in places if each and (each / RECORD).is_file()), None)
    except OSError as error:
        raise UsageError(f"cannot look into {path}: {error.strerror}") from error
    if found is not None:
        return found.resolve()
    if not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {kind}; name the work directory of a run, or its --state-dir")
    raise UsageError(
        f"{path} holds no state of a run; name the work directory of a run, or its --state-dir"
    )


def noted_state(workdir: Path) -> Path | None:
    """The state directory that a work directory names."""
    state = read_object(workdir / "logs" / STATE_NOTE).get("state_dir")
    return Path(state) if isinstance(state, str) else None


def note_channel(state: Path, channel: str) -> None:
    """Write down the name of a channel that is about to be opened.

    Those before it stay noted while their sockets are there: a killed dispatcher leaves its own.
    """
    record = read_record(state)
    left = [name for name in channels_of(record) if channel_path(name).is_socket()]
    record["channels"] = [*left, channel]
    write_atomically(state / "pilot.json", json.dumps(record))


def note_payload(state: Path, *, run_id: str, group: Path | None = None) -> None:
    """Write down how the payload that is about to start, and its control group, can be found."""
    record = read_record(state) | {"run_id": run_id, "group": str(group) if group else None}
    write_atomically(state / "pilot.json", json.dumps(record))


def channel_path(name: str) -> Path:
    """The socket of a channel."""
    return Path(f"/tmp/zmq_{name}")


def channels_of(record: dict[str, Any]) -> list[str]:
    """The channels that a pilot has noted; what is no name of a file is left out."""
    channels = record.get("channels")
    names = channels if isinstance(channels, list) else []
    return [name for name in names if isinstance(name, str) and name and "/" not in name]


def remove_channels(record: dict[str, Any]) -> None:
    """Remove the sockets that no dispatcher lived to remove."""
    for path in map(channel_path, channels_of(record)):
        if path.is_socket():
            path.unlink(missing_ok=True)


def read_record(state: Path) -> dict[str, Any]:
    """What the pilot that uses (or used) a state directory wrote of itself."""
    return read_object(state / "pilot.json")


def write_atomically(path: Path, text: str) -> None:
    """Write by temporary name and rename, so that nobody reads half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
