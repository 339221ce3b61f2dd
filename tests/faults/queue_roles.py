"""The whole way of ranges in miniature, one process per role, under random SIGKILLs.

Run as a program (an interpreter without threads, which never opens the queue itself):
`python queue_roles.py SEED KILLS [SABOTAGE]`. The oracle stands outside the queue: 8-byte records
in `O_APPEND` files. Prints one JSON object; a broken promise is an assertion, so a non-zero exit.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from queue_oracle import (
    check_queue,
    make_archive,
    make_failure,
    make_outputs,
    make_ranges,
    number_of,
    range_id,
)

from espilot.model import ArchiveState
from espilot.queue import store
from espilot.queue.store import Queue

RECORD = struct.Struct("<II")
LIVE, BATCH, PACK = 400, 25, 20
MAP_BYTES = 256 << 20
"""Far above what lives: until a killed reader is found, no page is used again."""
GROWN_BYTES = 1 << 20
IDLE_S = 0.0005
"""An idle role looks again after so long; nothing is synchronised by it."""
HANG_S = 5.0
PAUSES_MS = ((0, 4), (2, 30), (5, 80))
FAILS = 7
"""Each seventh range fails."""
CHECK_EVERY = 60
"""The queue is checked from outside, while all roles run, after so many kills."""


class Place:
    """The queue's directory and the oracle's files."""

    def __init__(self, directory: Path, sabotage: str = "") -> None:
        self.directory = directory
        self.sabotage = sabotage

    def open(self) -> Queue:
        """The queue; after the fork."""
        return Queue(self.directory / "queue", map_bytes=MAP_BYTES)

    def log(self, name: str) -> Callable[[list[tuple[int, int]]], None]:
        """Append records of (subject, range) in one write, which a kill cannot tear."""
        fd = os.open(self.directory / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return lambda records: _append(fd, records)

    def read(self, name: str) -> list[tuple[int, int]]:
        """All records of a file."""
        data = (self.directory / name).read_bytes() if (self.directory / name).exists() else b""
        assert len(data) % RECORD.size == 0, f"{name} is torn"
        return list(RECORD.iter_unpack(data))

    @property
    def effects(self) -> int:
        """Bytes of all records: grows as long as anything moves."""
        return sum(path.stat().st_size for path in self.directory.glob("*.log"))

    @property
    def stopping(self) -> bool:
        """Whether no further ranges are to be put."""
        return (self.directory / "stop").exists()


def _append(fd: int, records: list[tuple[int, int]]) -> None:
    data = b"".join(RECORD.pack(*record) for record in records)
    assert os.write(fd, data) == len(data)


def feed(place: Place) -> None:
    """Puts ranges in order; goes on from what the queue says was put last."""
    queue, log = place.open(), place.log("put.log")
    last = check_queue(queue).ever_put
    while not place.stopping:
        if queue.counts().live > LIVE - BATCH:
            time.sleep(IDLE_S)
            continue
        with queue.moves() as moves:
            assert moves.put_ranges(make_ranges(last + 1, last + BATCH), now=1.0) == BATCH
        last += BATCH
        log([(0, last)])


def work(place: Place, owner: str) -> None:
    """Takes a few ranges, makes their effects, records the outcomes."""
    queue, log = place.open(), place.log("effect.log")
    if place.sabotage != "forgets-its-ranges":
        with queue.moves() as moves:
            moves.return_sent(epoch=1, owner=owner)
    while True:
        with queue.moves() as moves:
            taken = [number_of(r.id) for r in moves.take([owner] * 3, epoch=1, now=2.0)]
        if not taken:
            time.sleep(IDLE_S)
            continue
        if place.sabotage != "late-effect":
            log([(0, number) for number in taken])
        with queue.moves() as moves:
            for number in taken:
                if number % FAILS:
                    done = moves.finish(
                        range_id(number), epoch=1, outputs=make_outputs(number), now=3.0
                    )
                else:
                    done = moves.fail(make_failure(number), epoch=1, now=3.0)
                assert done, f"range {number} was taken away from {owner}"
        if place.sabotage == "late-effect":
            time.sleep(0.002)
            log([(0, number) for number in taken])


def stage(place: Place) -> None:
    """Packs what is done, and ships what is packed."""
    queue, log = place.open(), place.log("upload.log")
    while True:
        done, _ = queue.done()
        moves_before = queue.counts().moves
        if done:
            numbers = [number_of(row.id) for row in done[:PACK]]
            assert all(row.outputs == make_outputs(number_of(row.id)) for row in done)
            with queue.moves() as moves:
                moves.pack(make_archive(f"a-{moves_before}", numbers))
        packed = queue.archives(ArchiveState.PACKED)
        for archive in packed:
            log([(int(archive.name[2:]), number_of(i)) for i in archive.ids])
            with queue.moves() as moves:
                moves.staged(archive.name, storage_id=3)
        if not done and not packed:
            time.sleep(IDLE_S)


def report(place: Place) -> None:
    """Reports archives and failures; then the queue forgets them."""
    queue, log, failed = place.open(), place.log("report.log"), place.log("failed.log")
    while True:
        failures = queue.failures()
        if failures:
            failed([(0, number_of(f.id)) for f in failures])
            with queue.moves() as moves:
                moves.forget_failures([f.id for f in failures])
        staged = queue.archives(ArchiveState.STAGED)
        for archive in staged:
            log([(int(archive.name[2:]), number_of(i)) for i in archive.ids])
            with queue.moves() as moves:
                moves.reported(archive.name)
        for archive in queue.archives(ArchiveState.REPORTED):
            with queue.moves() as moves:
                moves.forget_archive(archive.name)
        if not failures and not staged:
            time.sleep(IDLE_S)


ROLES: dict[str, Callable[[Place], None]] = {
    "feeder": feed,
    "worker-0": lambda place: work(place, "w0"),
    "worker-1": lambda place: work(place, "w1"),
    "stageout": stage,
    "reporter": report,
}


def fork(act: Callable[[], None]) -> int:
    """A child that does `act`; it ends with 0, or with 3 and a traceback."""
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        act()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


class Stage:
    """The roles and their killer."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.random = random.Random(seed)
        self.kills = 0
        self.pids = {role: self.start(role) for role in ROLES}
        self._effects, self._since = 0, time.monotonic()

    def start(self, role: str) -> int:
        """One role."""
        return fork(lambda: ROLES[role](self.place))

    def round(self) -> None:
        """Let them run for a random time, kill some, start these anew."""
        time.sleep(self.random.uniform(*self.random.choice(PAUSES_MS)) / 1000)
        everybody = self.random.random() < 0.1
        for role in ROLES if everybody else self.random.sample(list(ROLES), k=1):
            self.kill(role)
        for role, pid in self.pids.items():
            if pid == 0:
                self.pids[role] = self.start(role)
        self.watch()

    def kill(self, role: str) -> None:
        """SIGKILL; a role that had ended by itself before is a broken promise."""
        os.kill(self.pids[role], signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pids[role], 0)[1])
        ended_well = role == "feeder" and self.place.stopping and status == 0
        assert status == -signal.SIGKILL or ended_well, f"{role} ended by itself with {status}"
        self.pids[role] = 0
        self.kills += 1

    def watch(self) -> None:
        """Five seconds without an effect are a hang."""
        effects = self.place.effects
        if effects != self._effects:
            self._effects, self._since = effects, time.monotonic()
        assert time.monotonic() - self._since < HANG_S, "nothing moves any more"

    def look(self, act: Callable[[Queue], None]) -> int:
        """Open the queue in a child, check it, and do `act`; returns the child's exit status."""

        def check() -> None:
            queue = self.place.open()
            check_queue(queue)
            act(queue)

        return os.waitstatus_to_exitcode(os.waitpid(fork(check), 0)[1])

    def drain(self) -> None:
        """Put nothing more; wait until nothing is live."""
        (self.place.directory / "stop").touch()
        deadline = time.monotonic() + 60
        while self.look(lambda queue: os._exit(0 if queue.counts().live == 0 else 7)):
            assert time.monotonic() < deadline, "ranges are left for ever"
            self.watch()

    def end(self) -> None:
        """No process is left."""
        for pid in self.pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def judge(place: Place) -> dict[str, int]:
    """Compare the oracle's records: nothing lost, nothing twice."""
    last = max((number for _, number in place.read("put.log")), default=0)
    effects = Counter(number for _, number in place.read("effect.log"))
    last = max(last, *effects)  # the feeder may have died between its commit and its record
    everything = set(range(1, last + 1))
    assert not everything - set(effects), f"lost: {sorted(everything - set(effects))[:5]}"
    uploads, reports = place.read("upload.log"), place.read("report.log")
    archives = defaultdict(set)
    for archive, number in reports:
        archives[number].add(archive)
    failed = {number for _, number in place.read("failed.log")}
    assert failed == {number for number in everything if number % FAILS == 0}
    assert set(archives) == everything - failed, "a range was not reported, or twice"
    assert all(len(names) == 1 for names in archives.values()), "a range is in two archives"
    assert set(reports) <= set(uploads), "reported, but not uploaded"
    repeated = sum(effects.values()) - len(effects)
    return {"ranges": last, "repeated": repeated, "archives": len({a for a, _ in reports})}


def main() -> int:
    """One run; prints the seed first, so that it can be repeated."""
    seed, kills, *rest = sys.argv[1:]
    sys.stderr.write(f"seed {seed}\n")
    gc.freeze()
    store.GROWN_BYTES = GROWN_BYTES
    with tempfile.TemporaryDirectory(prefix="espilot-q", dir="/tmp") as directory:
        place = Place(Path(directory), *rest)
        stage_ = Stage(place, int(seed))
        try:
            checked = 0
            while stage_.kills < int(kills):
                stage_.round()
                if stage_.kills >= checked + CHECK_EVERY:
                    checked = stage_.kills
                    assert stage_.look(lambda queue: None) == 0, "the queue is not sound"
            stage_.drain()
            found = judge(place)
            counts: dict[str, int] = {"kills": stage_.kills}
        finally:
            stage_.end()
    sys.stdout.write(json.dumps({"seed": int(seed)} | counts | found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
