"""The faults that a storage which speaks HTTP is put through: one row each, for any of them.

Each row makes the relay, or the server itself, sick, waits until the pilot has felt it, heals it,
and requires that the accounting is content.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import relay as relays
from pilot_run import Run, eventually
from relay import CutUpload
from storage_runs import SIZE_BYTES, StorageRuns


def cut_at_each_tenth(runs: StorageRuns) -> None:
    """Ten uploads that break, each after another tenth, cost retries and nothing else."""
    runs.relay.next_ups = [CutUpload(tenth / 10) for tenth in range(10)]
    run = runs.start()
    runs.require_finished(run)
    assert runs.relay.cuts == 10


def gone_for_a_while(runs: StorageRuns) -> None:
    """A server that takes no connection is trouble; when it is back the run finishes."""
    runs.relay.up = relays.refused
    run = runs.start()
    survive(runs, run, "storage health changed state=trouble")


def answers_500(runs: StorageRuns) -> None:
    """A server that fails is tried again."""
    runs.relay.down = relays.answering("500 Internal Server Error")
    survive(runs, runs.start(), "HTTP 500")


def answers_503(runs: StorageRuns) -> None:
    """A server that is busy is tried again, after the pause that it names but no longer."""
    runs.relay.down = relays.answering("503 Slow Down", "Retry-After: 86400")
    run = runs.start()
    survive(runs, run, "HTTP 503")
    pauses = [float(text) for text in re.findall(r"HTTP 503.*retry_in_s=([0-9.]+)", run.log)]
    assert pauses and max(pauses) <= 0.3


def corrupts_on_the_way(runs: StorageRuns) -> None:
    """Bytes that change on the way never get a name."""
    runs.relay.up = relays.corrupted(b"ustar", b"uster")
    run = runs.start()
    eventually(lambda: run.log.count("upload failed") > 1, what="refused uploads")
    assert not [name for name in runs.listing() if name.endswith(".tar")]
    survive(runs, run, "upload failed")


def keeps_less_than_it_says(runs: StorageRuns) -> None:
    """A server that says yes and keeps the half is found out each time, by the size."""
    lie(runs, lambda data: data[: len(data) // 2])


def keeps_other_bytes(runs: StorageRuns) -> None:
    """A server that says yes and keeps as many other bytes is found out, by the checksum."""
    lie(runs, lambda data: b"\1" + data[1:])


def slow(runs: StorageRuns) -> None:
    """10 kB/s are seen as slow long before the transfer's time is over."""
    runs.relay.up = relays.slowed(10_000)
    # More than the buffers on the way swallow at once.
    size = 500_000
    run = runs.start(transfer={"slow_after_s": 1.0, "slow_bytes_per_s": 2e6}, size=size)
    survive(runs, run, "bytes/s are below the floor", size=size)


def lie(runs: StorageRuns, change: Callable[[bytes], bytes]) -> None:
    """Let the server change what it has just taken."""
    liar = Liar(runs, change)
    runs.relay.up, runs.relay.down = liar.listen, liar.answer
    run = runs.start()
    eventually(lambda: liar.lies > 1, what="lies")
    survive(runs, run, "instead of")


def survive(runs: StorageRuns, run: Run, felt: str, *, size: int = SIZE_BYTES) -> None:
    """When the pilot has felt the fault it ends, and so does the run, with every range."""
    eventually(lambda: felt in run.log or run.ended, what=felt)
    runs.relay.heal()
    runs.require_finished(run, size=size)
    assert felt in run.log


class Liar:
    """Changes each file when its upload was answered with yes, before the answer goes on."""

    def __init__(self, runs: StorageRuns, change: Callable[[bytes], bytes]) -> None:
        self.lies = 0
        self._runs = runs
        self._change = change
        self._paths: list[str] = []
        self._lock = threading.Lock()

    def listen(self, _: int, piece: bytes) -> bytes:
        """Note what is uploaded."""
        found = re.match(rb"PUT ([^ ?]+)", piece)
        if found is not None:
            with self._lock:
                self._paths.append(found[1].decode())
        return piece

    def answer(self, _: int, piece: bytes) -> bytes:
        """Do it behind the yes."""
        if re.match(rb"HTTP/1.1 20", piece):
            with self._lock:
                for path in [p for p in self._paths if self._runs.damage(p, self._change)]:
                    self._paths.remove(path)
                    self.lies += 1
        return piece


ROWS: tuple[Callable[[StorageRuns], None], ...] = (
    cut_at_each_tenth,
    gone_for_a_while,
    answers_500,
    answers_503,
    corrupts_on_the_way,
    keeps_less_than_it_says,
    keeps_other_bytes,
    slow,
)
