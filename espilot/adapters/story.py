"""The story of ranges: an append-only file of JSON lines that all roles write, for people only.

A line is `{"t": Unix time, "role", "pid", "what", "ranges": [ids], fact: value, ...}`, one move of
one or several ranges. Facts that differ from range to range lie below `each`, as lists in the
order of `ranges`. Nothing is ever decided by the story: what cannot be written is counted and
dropped, what cannot be read is skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

NAME = "events.jsonl"
PAGE_BYTES = 256 << 20
"""At this size the page is turned: it becomes `events.jsonl.1`, and the older one is dropped."""
LONGEST_LINE = 16 << 20
_ENCODE = json.JSONEncoder(separators=(",", ":"), default=str).encode
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Story:
    """One role's pen. `tell` only remembers, `flush` writes all of it at once.

    `due` is called when there is something to flush after there was nothing. `lost` counts lines
    that could not be written, `error` says why the last time.
    """

    def __init__(
        self,
        path: Path,
        role: str,
        *,
        due: Callable[[], object] = lambda: None,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self.lost = 0
        self.error = ""
        self._path = path
        self._role = role
        self._pid = os.getpid()
        self._due = due
        self._page_bytes = page_bytes
        self._told: list[tuple[float, str, Sequence[str], dict[str, Any]]] = []

    def tell(self, what: str, ranges: Sequence[str], **facts: Any) -> None:
        """Note a move of these ranges; the facts must be fit for JSON and not change any more."""
        if not self._told:
            self._due()
        self._told.append((time.time(), what, ranges, facts))

    def flush(self) -> bool:
        """Write what was told; False when it, or a part of it, is lost."""
        told, self._told = self._told, []
        if not told:
            return True
        # The blank line first: what a killed writer left unfinished must not spoil our first line.
        data = "\n" + "".join(self._line(*each) for each in told)
        try:
            written = self._append(data.encode())
        except OSError as error:
            self.lost += len(told)
            self.error = f"{self._path}: {error.strerror}"
            return False
        if written < len(data):
            self.lost += data.count("\n", written)
            self.error = f"{self._path}: no space left for all of it"
            return False
        return True

    def _line(self, t: float, what: str, ranges: Sequence[str], facts: dict[str, Any]) -> str:
        head = {"t": round(t, 6), "role": self._role, "pid": self._pid, "what": what}
        return _ENCODE({**head, "ranges": ranges, **facts}) + "\n"

    def _append(self, data: bytes) -> int:
        # One write in append mode: lines of several roles never mix. Opened each time, so that
        # nobody goes on writing a page that another role has turned.
        fd = os.open(self._path, _FLAGS, 0o600)
        try:
            written = os.write(fd, data)
            if os.fstat(fd).st_size >= self._page_bytes:
                self._turn_page(fd)
            return written
        finally:
            os.close(fd)

    def _turn_page(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another role turns it
        # Who waited for the lock of a page that is turned already finds another file at its name.
        if os.path.samestat(os.fstat(fd), os.stat(self._path)):
            self._path.replace(older_page(self._path))


def older_page(path: Path) -> Path:
    """Where the page before this one is kept."""
    return path.with_name(path.name + ".1")


def read_lines(path: Path, words: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The lines of both pages, in the order of writing; with `words` those that hold one of them.

    Torn and strange lines are skipped; a file that is not there has none. `OSError` when there is
    a file that cannot be read.
    """
    # As they stand in the file, so that most lines need not be parsed.
    sought = [_ENCODE(word).encode() for word in words]
    for page in (older_page(path), path):
        try:
            file = page.open("rb")
        except FileNotFoundError:
            continue
        with file:
            for data in file:
                if not sought or any(each in data for each in sought):
                    line = _parse(data)
                    if line is not None:
                        yield line


class StoryReader:
    """Reads on where it stopped, also over the turn of a page."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def read(self, most_bytes: int = 64 << 20) -> list[dict[str, Any]]:
        """The lines that came since the last time, at most so many bytes of them; [] for none.

        Torn and strange lines are skipped, a half-written one waits. `OSError` as of the file.
        """
        if self._file is None and not self._open():
            return []
        data = self._read_on(most_bytes)
        lines = (self._rest + data).split(b"\n")
        # A killed writer's torn line is no reason to keep without bound.
        self._rest = lines.pop()[-LONGEST_LINE:]
        return [line for line in map(_parse, lines) if line is not None]

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> bool:
        """Begin with the older page, where there is one."""
        for page in (older_page(self._path), self._path):
            try:
                self._file = page.open("rb")
                return True
            except FileNotFoundError:
                continue
        return False

    def _read_on(self, most_bytes: int) -> bytes:
        data = b""
        while self._file is not None and len(data) < most_bytes:
            # Asked before reading: what a role writes to the old page after the turn is read too.
            turned = self._is_turned()
            piece = self._file.read(most_bytes - len(data))
            data += piece
            if piece:
                continue
            if not turned:
                break
            self._file.close()
            self._file = self._path.open("rb")
            data += b"\n"
        return data

    def _is_turned(self) -> bool:
        """Whether this is no longer the newest page."""
        if self._file is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False  # between two pages


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("t"), int | float):
        return None
    ranges = line.get("ranges")
    usable = isinstance(line.get("what"), str) and isinstance(ranges, list)
    return line if usable else None
