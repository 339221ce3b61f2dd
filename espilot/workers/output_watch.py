"""Outcomes of a payload that only makes files: the directory of its start is watched.

Rules:

* A file counts when its name is `<output LFN>.<range id>` of a range that is in hand, when those
  of the range's other streams are there as well, and when nobody writes any of them.
* `renamed`: a file is complete when it was moved to its name. `closed`: also when it was closed
  after writing; it is believed a moment later, and not if the payload was killed meanwhile, or the
  client that had its range: a killed process closes half a file like a whole one. Its names are
  doubted, each until it is seen to be written anew; a range with a doubted name does not count.
  A client that has heard *no more* may end with its last file just closed: where nobody knows
  whether it ended well, that is decided by the payload's own end.
* The directory is scanned when the watch begins, when the kernel lost events and at the end; where
  it cannot be watched, once a second.
* A file that counts goes the way of a report: looked at, committed, packed. A range whose file is
  refused (a link, a directory, too large) fails with the reason.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Protocol

from espilot.adapters.directory_watch import DirectoryWatch, is_being_written, scan
from espilot.adapters.loop import Loop, Timer
from espilot.core.output_names import OutputNames
from espilot.errors import LocalError
from espilot.wire.payload import Finished

RENAMED, CLOSED = "renamed", "closed"
WHAT = "output directory"
HOLD_S = 0.2
"""From the closing of a file to believing it: by then a killed payload is known to be dead."""
NEWS_S = 2 * HOLD_S
"""From the end of a client to knowing all that it has made."""
RESCAN_S = 1.0
"""Shortest pause between two scans."""
SCAN_SHARE = 10
"""Pause after a scan, as a multiple of what it took: strange files by the million only slow us."""


Stamp = tuple[int, int, int]
"""What tells a file from what it was before: inode, time of change, size."""


class Owner(Protocol):
    """Who wants to hear of outputs."""

    def output_lfns(self) -> tuple[str, ...]:
        """The outputs of the job; none while there is no job."""
        ...

    def is_in_hand(self, range_id: str) -> bool:
        """Whether the payload has this range."""
        ...

    def found(self, outcomes: list[Finished]) -> None:
        """These ranges have their outputs."""
        ...

    def complain(self, text: str, what: str = ...) -> None:
        """Something is not as it should be."""
        ...


class OutputWatch:
    """Watches `directory` from now on, and makes it if it is not there yet."""

    def __init__(self, directory: Path, mode: str, loop: Loop, owner: Owner) -> None:
        self._directory, self._mode, self._loop, self._owner = directory, mode, loop, owner
        self._names: OutputNames | None = None
        self._held: list[tuple[float, str]] = []
        self._release: Timer | None = None
        self._rescan: Timer | None = None
        self._hinted = False
        self._doubted: dict[str, Stamp | None] = {}
        self._undecided: dict[str, Stamp | None] = {}
        self._watch: DirectoryWatch | None = None
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._watch = DirectoryWatch(directory)
            loop.on_readable(self._watch.fd, self.read)
        except (OSError, LocalError) as error:
            owner.complain(f"outputs are looked for once a second: {error}", WHAT)
            self._scan_later(RESCAN_S)
        # After the watch has begun, so that nothing falls between. What a former dispatcher left
        # unseen was closed by a payload that is dead by now.
        if mode == RENAMED:
            self._scan()

    def read(self) -> None:
        """Take what has happened since the last time."""
        if self._watch is None:
            return
        seen = self._watch.read()
        if seen.moved:
            self._trust(seen.moved)
            self._take(seen.moved)
        if seen.closed and self._mode == CLOSED:
            self._trust(seen.closed)
            self._hold(seen.closed)
        elif seen.closed and not self._hinted:
            self._hint(seen.closed)
        if seen.lost:
            self._scan_later(0.0)
        if seen.gone:
            self._unwatch()
            self._owner.complain(f"{self._directory} was moved or removed", WHAT)
            # Another one may take its place: from now on it is looked into.
            self._scan_later(RESCAN_S)

    def doubt(self, ids: Set[str]) -> float:
        """Whoever had these ranges has ended unasked; returns how long to wait for further news.

        What it has closed and was not believed yet never counts, unless another one writes it anew.
        """
        self.read()
        if self._mode == RENAMED or not ids:
            return 0.0
        self._set_aside(ids, self._doubted)
        return self.expect(ids)

    def expect(self, ids: Set[str]) -> float:
        """Whoever had these ranges has ended well; returns how long its last files may take."""
        return NEWS_S if ids and self._mode == CLOSED else 0.0

    def await_end(self, ids: Set[str]) -> set[str]:
        """Whoever had these ranges has ended, well or not; says which have a file already.

        Those count if the payload ends well, or if another one writes them anew.
        """
        self.read()
        if self._mode == RENAMED:
            return set()
        begun = {each for each in ids if any(map(self._stamp_of, self._names_of(each)))}
        self._set_aside(begun, self._undecided)
        return begun

    def finish(self, *, killed: bool) -> None:
        """The payload has ended: take what is left; `killed`: not by itself and well."""
        self.read()
        self._held.clear()
        if not killed:
            self._undecided.clear()
        if self._mode == RENAMED or not killed:
            self._scan()

    def close(self) -> None:
        """Watch no longer."""
        self._unwatch()
        for timer in (self._release, self._rescan):
            if timer is not None:
                timer.cancel()

    def _trust(self, names: Iterable[str]) -> None:
        """These were written anew."""
        if self._doubted or self._undecided:
            for name in names:
                self._doubted.pop(name, None)
                self._undecided.pop(name, None)

    def _trust_changed(self) -> None:
        """The same for those whose events nobody has seen."""
        doubted = self._undecided | self._doubted
        self._trust([n for n, stamp in doubted.items() if self._stamp_of(n) != stamp])

    def _set_aside(self, ids: Set[str], doubted: dict[str, Stamp | None]) -> None:
        """Believe nothing of these ranges for now."""
        names = {name for range_id in ids for name in self._names_of(range_id)}
        doubted.update((name, self._stamp_of(name)) for name in names)
        self._held = [each for each in self._held if each[1] not in names]

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._loop.forget(self._watch.fd)
            self._watch.close()
            self._watch = None

    def _hold(self, names: list[str]) -> None:
        """Believe them a moment later."""
        due = time.monotonic() + HOLD_S
        self._held += [(due, name) for name in names]
        if self._release is None:
            self._release = self._loop.call_at(due, self._release_held)

    def _hint(self, names: list[str]) -> None:
        """Say once what is wrong with a payload that does not rename."""
        held = {name for _, name in self._held}
        own = next((name for name in names if name not in held and self._id_of(name)), None)
        if own is not None and not self._hinted:
            self._hinted = True
            self._owner.complain(
                f"output {own!a:.100} was written under its own name; write it under another one "
                'and rename it, or set payload.outputs = "closed"',
                WHAT,
            )

    def _release_held(self) -> None:
        now = time.monotonic()
        names = [name for due, name in self._held if due <= now]
        self._held = self._held[len(names) :]
        self._release = None
        if self._held:
            self._release = self._loop.call_at(self._held[0][0], self._release_held)
        self._take(names)

    def _scan_later(self, delay_s: float) -> None:
        if self._rescan is None:
            self._rescan = self._loop.call_later(delay_s, self._scan_again)

    def _scan_again(self) -> None:
        began = time.monotonic()
        self._scan_in_work()
        now = time.monotonic()
        pause_s = max(RESCAN_S, (now - began) * SCAN_SHARE)
        self._rescan = None
        if self._watch is None:
            self._scan_later(pause_s)
        else:
            # Until then nothing is scanned again, whatever is lost meanwhile; then once.
            self._rescan = self._loop.call_later(pause_s, self._scan_last)

    def _scan_last(self) -> None:
        self._rescan = None
        self._scan_in_work()
        if self._watch is None:
            self._scan_later(RESCAN_S)

    def _scan(self) -> None:
        """Take what is there."""
        self._trust_changed()
        self._take(scan(self._directory))

    def _scan_in_work(self) -> None:
        """The same while the payload works: what it has not renamed is not believed at once."""
        if self._mode == RENAMED:
            self._scan()
            return
        self._trust_changed()
        held = {name for _, name in self._held}
        new = [name for name in scan(self._directory) if name not in held and self._id_of(name)]
        if new:
            self._hold(new)

    def _take(self, names: Iterable[str]) -> None:
        """Tell of the ranges that these names complete."""
        ids = {range_id: name for name in names if (range_id := self._id_of(name))}
        outcomes, written = [], []
        for range_id, name in ids.items():
            all_names = self._names_of(range_id)
            paths = tuple(f"{self._directory}/{each}" for each in all_names)
            if self._is_doubted(all_names) or not all(map(self._is_there, paths)):
                continue
            if any(map(is_being_written, paths)):
                written.append(name)
            else:
                outcomes.append(Finished(range_id, paths, None, None))
        if written and self._mode == RENAMED:
            # It has its name before it is closed; nobody will tell us of its closing.
            self._hold(written)
        if outcomes:
            self._owner.found(outcomes)

    def _id_of(self, name: str) -> str:
        """The range in hand that a name belongs to; "" when there is none."""
        names = self._output_names()
        ids = () if names is None else names.ids_of(name)
        return next((each for each in ids if self._owner.is_in_hand(each)), "")

    def _names_of(self, range_id: str) -> tuple[str, ...]:
        """The names of all outputs of a range, in the order of the streams."""
        names = self._output_names()
        return () if names is None else names.names_of(range_id)

    def _output_names(self) -> OutputNames | None:
        """How the outputs of the job are named; None while there is no job."""
        if self._names is None:
            lfns = self._owner.output_lfns()
            self._names = OutputNames(lfns) if lfns else None
        return self._names

    def _stamp_of(self, name: str) -> Stamp | None:
        try:
            seen = os.lstat(f"{self._directory}/{name}")
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns, seen.st_size

    def _is_doubted(self, names: Iterable[str]) -> bool:
        return any(name in self._doubted or name in self._undecided for name in names)

    def _is_there(self, path: str) -> bool:
        """Whether there is something; what is empty and was not renamed may be opened again."""
        try:
            return os.lstat(path).st_size > 0 or self._mode == RENAMED
        except OSError:
            return False
