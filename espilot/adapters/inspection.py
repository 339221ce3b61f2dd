"""Answers to what a server asks about a job: `tail`, `ls`, `du`, confined to one directory.

Nothing is executed. Paths that leave the directory, by `..` or by a link, are refused, and so are
the private parts below it. Answers and the work for them are bounded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

ANSWER_BYTES = 2048
_MOST_ENTRIES = 20_000
_MOST_LINES = 200
_DEFAULT_LINES = 20


class Refused(Exception):
    """The question cannot be answered; the text is the answer."""


class Inspection:
    """Looks at files below `root`, but not below the `private` directories."""

    def __init__(self, root: Path, private: Sequence[Path] = ()) -> None:
        self._root = root.resolve()
        self._private = tuple(path.resolve() for path in private)

    def answer(self, words: Sequence[str]) -> str:
        """The answer to an inquiry, at most `ANSWER_BYTES` of UTF-8."""
        try:
            if words[0] == "tail":
                return self._tail(words[1:])
            if words[0] == "ls":
                return _cut(self._list(_one_path(words[1:])))
            if words[0] == "du":
                return _cut(self._usage(_one_path(words[1:])))
            return f"{words[0]}: not known here"[:100]
        except Refused as error:
            return _cut(f"{words[0]}: {error}")
        except OSError as error:
            return _cut(f"{words[0]}: {error.strerror}")

    def _tail(self, words: Sequence[str]) -> str:
        lines, name = _tail_arguments(words)
        path = self._find(name)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise Refused(f"{name}: not a regular file")
            start = max(0, facts.st_size - ANSWER_BYTES)
            data = os.pread(descriptor, ANSWER_BYTES, start)
        finally:
            os.close(descriptor)
        text = data.decode("utf-8", "replace")
        newest = "\n".join(text.splitlines()[-lines:])
        # What does not fit is cut at the front: the end is what was asked for.
        return newest.encode()[-ANSWER_BYTES:].decode("utf-8", "ignore")

    def _find(self, name: str) -> Path:
        """A file by its path, or by its bare name the newest one below the directory."""
        path = self._confine(name)
        if path.exists() or "/" in name:
            return path
        named = [found for found in self._walk(self._root) if found.name == name]
        if not named:
            raise Refused(f"{name}: no such file")
        return self._confine(str(max(named, key=lambda found: found.lstat().st_mtime_ns)))

    def _confine(self, name: str) -> Path:
        path = (self._root / name).resolve()
        inside = path == self._root or self._root in path.parents
        if not inside or any(p == path or p in path.parents for p in self._private):
            raise Refused(f"{name}: outside of the job's directory")
        return path

    def _list(self, name: str) -> str:
        path = self._confine(name)
        rows = []
        with os.scandir(path) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                rows.append(f"{stat.filemode(facts.st_mode)} {facts.st_size:>14} {entry.name!a}")
                if len(rows) >= _MOST_ENTRIES:
                    break
        return "\n".join([f"{len(rows)} entries", *sorted(rows, key=lambda row: row[26:])])

    def _usage(self, name: str) -> str:
        blocks = n = 0
        for path in self._walk(self._confine(name)):
            blocks += path.lstat().st_blocks
            n += 1
        more = " or more" if n >= _MOST_ENTRIES else ""
        return f"{blocks * 512} bytes in {n} entries{more}"

    def _walk(self, top: Path) -> Iterator[Path]:
        """All entries below a directory, links not followed, up to a bound."""
        waiting, n = [top], 0
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    if path in self._private:
                        continue
                    yield path
                    n += 1
                    if n >= _MOST_ENTRIES:
                        return
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)


def _one_path(words: Sequence[str]) -> str:
    """The only argument; options change nothing, because there is one form of answer."""
    names = [word for word in words if not word.startswith("-")]
    if len(names) > 1:
        raise Refused("one path at a time")
    return names[0] if names else "."


def _tail_arguments(words: Sequence[str]) -> tuple[int, str]:
    """`[-N | -n N] FILE`."""
    rest, lines = list(words), _DEFAULT_LINES
    if rest and rest[0].startswith("-"):
        option = rest.pop(0).lstrip("-").removeprefix("n") or (rest.pop(0) if rest else "")
        if not option.isdecimal() or len(option) > 6:
            raise Refused("usage: tail [-n N] FILE")
        lines = min(max(1, int(option)), _MOST_LINES)
    if len(rest) != 1:
        raise Refused("usage: tail [-n N] FILE")
    return lines, rest[0]


def _cut(text: str) -> str:
    return text.encode("utf-8", "replace")[:ANSWER_BYTES].decode("utf-8", "ignore")
