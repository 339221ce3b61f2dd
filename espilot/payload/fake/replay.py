"""The payload's side of a record, said again.

Rules:

* The messages go out in the recorded order, over one connection for each recorded client.
* Before going on from a recorded reply, its like is awaited: as many ranges, or *no more*.
* The n-th range that a client got stands for the n-th that it gets now: the ids are exchanged, and
  the output directory.
* Where the pilot hands out the last ranges to other clients than it did, their outcomes come at the
  end. Outcomes beyond the ranges that it hands out now are left out.
* Outputs in the output directory are made with the recorded sizes, before they are reported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import zmq

from espilot.errors import MessageError, PayloadError, UsageError
from espilot.payload.fake.client import FLUSH_MS, write_output
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text
from espilot.wire import record
from espilot.wire.payload import Failed, Finished, NoMore, Progress, Ranges, Started

REPLY_S = 600.0
"""A reply that does not come within this time ends the replay."""
CHUNK_BYTES = 2**20


@dataclass(slots=True)
class Voice:
    """One recorded client and its connection: ids as recorded and as received, in order."""

    socket: zmq.Socket[bytes]
    native: bool
    recorded: list[str] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    paired: int = 0
    ended: bool = False


@dataclass(slots=True)
class Tally:
    """What was said."""

    messages: int = 0
    skipped: int = 0
    ranges: int = 0


class Replay:
    """One epoch of a record, against the pilot at `address`."""

    def __init__(
        self, opening: record.Opening, messages: Sequence[record.Message], address: str, outdir: str
    ) -> None:
        self.tally = Tally()
        self._opening = opening
        self._messages = messages
        self._address = address
        self._outdir = outdir
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._voices: dict[tuple[bytes, int | None], Voice] = {}
        self._now_of: dict[str, str] = {}
        self._handed = {
            each for m in messages if not m.by_payload for each in _ids_of(m.body) or ()
        }
        self._made: set[str] = set()
        self._late: list[tuple[Voice, record.Message, str]] = []

    def run(self, *, timed: bool) -> None:
        """Say everything; `timed` keeps the recorded distances in time."""
        started = time.monotonic()
        begin_s = self._messages[0].at_s if self._messages else 0.0
        for message in self._messages:
            voice = self._voice_of(message)
            if not message.by_payload:
                self._await_like(voice, message.body)
                continue
            if timed:
                wait_s = started + message.at_s - begin_s - time.monotonic()
                time.sleep(max(0.0, wait_s))
            self._say(voice, message)
        self._say_late()

    def close(self) -> None:
        """Deliver what was said, and close."""
        for voice in self._voices.values():
            voice.socket.close(linger=FLUSH_MS)
        self._context.term()

    def _voice_of(self, message: record.Message) -> Voice:
        key = (message.identity, message.pid)
        voice = self._voices.get(key)
        if voice is None:
            socket = self._context.socket(zmq.DEALER)
            if message.identity[:1] not in (b"", b"\0"):
                socket.identity = message.identity
            socket.linger = FLUSH_MS
            socket.connect(self._address)
            voice = self._voices[key] = Voice(socket, native.is_native(message.body))
        return voice

    # -- hearing --------------------------------------------------------------------------------

    def _await_like(self, voice: Voice, recorded: bytes) -> None:
        """Wait for as many ranges as were recorded, or for no more."""
        ids = _ids_of(recorded)
        if ids is None:
            return
        voice.recorded += ids
        wanted = len(voice.recorded) if ids else len(voice.recorded) + 1
        deadline = time.monotonic() + REPLY_S
        while not voice.ended and len(voice.received) < wanted:
            left_ms = int((deadline - time.monotonic()) * 1000)
            if left_ms <= 0 or not voice.socket.poll(left_ms):
                raise PayloadError(f"no reply from the pilot within {REPLY_S:g} s")
            self._take(voice, voice.socket.recv())
        while voice.paired < min(len(voice.recorded), len(voice.received)):
            self._now_of.setdefault(voice.recorded[voice.paired], voice.received[voice.paired])
            voice.paired += 1

    def _take(self, voice: Voice, reply: bytes) -> None:
        ids = _ids_of(reply)
        if ids is None:
            return
        voice.ended = voice.ended or not ids
        voice.received += ids
        self.tally.ranges += len(ids)

    # -- saying ---------------------------------------------------------------------------------

    def _say(self, voice: Voice, message: record.Message) -> None:
        said = _parse(voice.native, message.body)
        range_id = said.id if isinstance(said, Finished | Failed | Started | Progress) else ""
        if range_id in self._handed and range_id not in self._now_of:
            self._late.append((voice, message, range_id))
            return
        self._send(voice, message, range_id)

    def _say_late(self) -> None:
        """Outcomes whose client got no range: the ranges that others got besides have none yet."""
        spare = [
            each
            for voice in self._voices.values()
            for each in voice.received[len(voice.recorded) :]
        ]
        for voice, message, range_id in self._late:
            if range_id not in self._now_of:
                if not spare:
                    self.tally.skipped += 1
                    continue
                self._now_of[range_id] = spare.pop(0)
            self._send(voice, message, range_id)

    def _send(self, voice: Voice, message: record.Message, range_id: str) -> None:
        """One message, with its outputs made before."""
        body = self._translated(voice.native, message.body, range_id)
        now = _parse(voice.native, body)
        if isinstance(now, Finished):
            for path, size_bytes in zip(now.paths, message.sizes, strict=False):
                self._make(path, size_bytes)
        voice.socket.send(body)
        self.tally.messages += 1

    def _translated(self, is_native: bool, body: bytes, range_id: str) -> bytes:
        """The message with the id and the directory of today; what cannot be parsed stays."""
        pairs = [(self._opening.output_dir + "/", self._outdir + "/")]
        if range_id in self._now_of:
            pairs.append((range_id, self._now_of[range_id]))
        if not is_native:
            for old, new in pairs:
                body = body.replace(old.encode(), new.encode())
            return body
        try:
            packed: bytes = msgpack.packb(_exchanged(msgpack.unpackb(body), pairs))
        except (ValueError, TypeError, msgpack.UnpackException):
            return body
        return packed

    def _make(self, path: str, size_bytes: int | None) -> None:
        """Make an output once, where outputs belong; never outside."""
        inside = os.path.realpath(path).startswith(os.path.realpath(self._outdir) + "/")
        if size_bytes is None or not inside or path in self._made:
            return
        self._made.add(path)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_output(path, b"", memoryview(b"." * min(size_bytes, CHUNK_BYTES)))
        with Path(path).open("ab") as file:
            for start in range(CHUNK_BYTES, size_bytes, CHUNK_BYTES):
                file.write(b"." * min(CHUNK_BYTES, size_bytes - start))


def _exchanged(value: Any, pairs: Sequence[tuple[str, str]]) -> Any:
    """A msgpack value with pieces of its strings exchanged."""
    if isinstance(value, str):
        for old, new in pairs:
            value = value.replace(old, new)
    elif isinstance(value, list):
        return [_exchanged(each, pairs) for each in value]
    elif isinstance(value, dict):
        return {key: _exchanged(each, pairs) for key, each in value.items()}
    return value


def _parse(is_native: bool, body: bytes) -> object:
    try:
        return native.parse(body) if is_native else text.parse(body)
    except MessageError:
        return None


def _ids_of(reply: bytes) -> list[str] | None:
    """The ids that the pilot hands out; empty for no more, None for anything else."""
    if reply == text.NO_MORE:
        return []
    try:
        if not native.is_native(reply):
            return [text.parse_reply(reply)["eventRangeID"]]
        said = native.parse_pilot(reply)
    except MessageError:
        return None
    if isinstance(said, Ranges):
        return [each.id for each in said.ranges]
    return [] if isinstance(said, NoMore) else None


def read_epoch(
    path: str, epoch: int | None, outdir: str
) -> tuple[record.Opening, list[record.Message]]:
    """One epoch of a record: the given one, else that of `payload-N` in the name of the output
    directory, else the first. `UsageError` when the file or the epoch cannot be used."""
    try:
        with Path(path).open("rb") as file:
            epochs = list(_epochs(record.decode_lines(file)))
    except OSError as error:
        raise UsageError(f"--replay {path}: {error.strerror}") from None
    except MessageError as error:
        raise UsageError(f"--replay {path}: {error}") from None
    if not epochs:
        raise UsageError(f"--replay {path}: nothing was recorded")
    number = outdir.rstrip("/").rpartition("payload-")[2]
    wanted = epoch if epoch is not None else int(number) if number.isdecimal() else None
    for opening, messages in epochs:
        if opening.epoch == wanted:
            return opening, messages
    if epoch is not None:
        raise UsageError(f"--replay {path}: there is no epoch {epoch}")
    return epochs[0]


def _epochs(lines: Iterator[record.Line]) -> Iterator[tuple[record.Opening, list[record.Message]]]:
    """Openings with their messages; a dispatcher that was replaced continues its epoch."""
    found: dict[int, tuple[record.Opening, list[record.Message]]] = {}
    number, shift_s, begin = 0, 0.0, 0.0
    for line in lines:
        if isinstance(line, record.Opening):
            number = line.epoch
            begin = found.setdefault(number, (line, []))[0].started_at
            shift_s = line.started_at - begin
        elif isinstance(line, record.Message):
            found[number][1].append(_shifted(line, shift_s))
    yield from found.values()


def _shifted(message: record.Message, shift_s: float) -> record.Message:
    if not shift_s:
        return message
    m = message
    return record.Message(m.at_s + shift_s, m.by_payload, m.identity, m.pid, m.body, m.sizes)
