"""A channel that writes down what goes over it, for `espilot run --record`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from espilot.adapters.channel import Incoming, PayloadChannel, Sending
from espilot.errors import LocalError, MessageError, UsageError
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text
from espilot.wire import record
from espilot.wire.payload import Finished

FLUSH_S = 1.0


class Recorder:
    """Appends to a record, buffered and bounded; trouble ends the record, never the run."""

    def __init__(self, path: Path, limit_bytes: int, on_trouble: Callable[[str], None]) -> None:
        self._on_trouble = on_trouble
        self._limit_bytes = limit_bytes
        self._lines: list[bytes] = []
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._size_bytes = os.fstat(self._fd).st_size
        except OSError as error:
            self._size_bytes = 0
            on_trouble(f"cannot record to {path}: {error.strerror}")

    def add(self, line: bytes) -> None:
        """One line, written with the next flush."""
        if self._fd < 0:
            return
        self._size_bytes += len(line)
        if self._size_bytes > self._limit_bytes:
            why = f"the limit of {self._limit_bytes} bytes is reached"
            self._lines.append(record.encode_end(why))
            self.close()
            self._on_trouble(f"recording ended: {why}")
            return
        self._lines.append(line)

    def flush(self) -> None:
        """Write what was added."""
        if self._fd < 0 or not self._lines:
            return
        data = b"".join(self._lines)
        self._lines.clear()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self._end()
            self._on_trouble(f"recording ended: {error.strerror}")

    def close(self) -> None:
        """Write and close; harmless when repeated."""
        self.flush()
        self._end()

    def _end(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RecordedChannel(PayloadChannel):
    """A payload channel with a recorder beside it."""

    def __init__(self, opening: record.Opening, recorder: Recorder) -> None:
        super().__init__(opening.channel)
        self._recorder = recorder
        self._started = time.monotonic()
        self._pids: dict[bytes, int | None] = {}
        self._native: dict[bytes, bool] = {}
        recorder.add(record.encode(opening))

    def receive(self, limit: int) -> list[Incoming]:
        """As of any channel; each message is written down."""
        incoming = super().receive(limit)
        for each in incoming:
            self._hear(each)
        return incoming

    def send(self, identity: bytes, message: bytes) -> Sending:
        """As of any channel; what was accepted is written down."""
        sending = super().send(identity, message)
        if sending is Sending.SENT:
            self._add(by_payload=False, identity=identity, body=message)
        return sending

    def close(self) -> None:
        """Close channel and record."""
        super().close()
        self._recorder.close()

    def _hear(self, incoming: Incoming) -> None:
        identity, message, pid = incoming.identity, incoming.message, incoming.pid
        if identity not in self._pids or (pid is not None and pid != self._pids[identity]):
            self._pids[identity] = pid
            self._native[identity] = native.is_native(message)
        try:
            parse = native.parse if self._native[identity] else text.parse
            said = parse(message)
        except MessageError:
            said = None
        # Looked at now: after a moment the outputs may be packed and gone.
        sizes = tuple(map(_size_of, said.paths)) if isinstance(said, Finished) else ()
        self._add(by_payload=True, identity=identity, body=message, sizes=sizes)

    def _add(
        self,
        *,
        by_payload: bool,
        identity: bytes,
        body: bytes,
        sizes: tuple[int | None, ...] = (),
    ) -> None:
        at_s, pid = time.monotonic() - self._started, self._pids.get(identity)
        line = record.Message(at_s, by_payload, identity, pid, body, sizes)
        self._recorder.add(record.encode(line))


def _size_of(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except (OSError, ValueError):
        return None


def prepare_record(path: Path) -> Path:
    """Make room for a new record; `UsageError` when something else would be overwritten."""
    path = path.absolute()
    head = b'{"schema": "' + record.SCHEMA.encode()
    try:
        if path.exists():
            with path.open("rb") as file:
                begin = file.read(len(head))
            if begin and begin != head:
                raise UsageError(f"--record {path}: this file is no record; give another name")
        path.write_bytes(b"")
    except OSError as error:
        raise LocalError(f"--record {path}: {error.strerror}") from None
    return path
