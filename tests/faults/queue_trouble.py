"""Troubles of the queue, each in an interpreter of its own: a crash of it is a finding.

Run as a program: `python queue_trouble.py SCENARIO DIRECTORY`; a broken promise is an assertion.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from queue_oracle import (
    check_queue,
    go_round,
    make_outputs,
    make_ranges,
    range_id,
)

from espilot.errors import QueueError
from espilot.model import RangeState
from espilot.queue import store
from espilot.queue.store import Queue

MIB = 1 << 20
SOON_S = 10.0
MANY = 100_000
"""More ranges than any disk or map of these tests can hold."""


def put(queue: Queue, first: int, last: int) -> None:
    """One transaction of new ranges."""
    with queue.moves() as moves:
        moves.put_ranges(make_ranges(first, last), now=1.0)


def put_until_refused(queue: Queue, group: int = 50) -> tuple[int, QueueError]:
    """Put until the queue refuses; the refused group has left nothing behind."""
    for first in range(1, MANY, group):
        before = check_queue(queue) if first % 1000 == 1 else None
        try:
            put(queue, first, first + group - 1)
        except QueueError as error:
            after = check_queue(queue)
            assert before is None or after == before
            assert len(after.items) == first - 1, "half of a group was put"
            return first - 1, error
    raise AssertionError("the queue took everything")


def fill_disk(directory: Path) -> Path:
    """Write a file until the disk is full."""
    filler = directory / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    for size in (1 << 16, 1 << 12, 1):
        try:
            while os.write(fd, b"x" * size):
                pass
        except OSError:
            continue
    os.close(fd)
    return filler


def full_disk_moves(directory: Path) -> None:
    """On a full disk all moves go on in the file that was grown before."""
    queue = Queue(directory / "queue", map_bytes=4 * MIB)
    put(queue, 1, 100)
    fill_disk(directory)
    for number in range(1000, 1400):
        go_round(queue, number)
    with queue.moves() as moves:
        taken = moves.take(["a"] * 100, epoch=1, now=2.0)
        for r in taken[:50]:
            moves.finish(r.id, epoch=1, outputs=make_outputs(1), now=3.0)
    assert (queue.counts().done, queue.counts().sent) == (50, 50)
    queue.sync()
    check_queue(queue)
    queue.close()
    again = Queue(directory / "queue", map_bytes=4 * MIB)
    assert again.counts().live == 100, "a full disk is no reason not to open"
    again.close()


def full_disk_growth(directory: Path) -> None:
    """A file that must grow on a full disk: a clean error, nothing half done; it heals."""
    store.GROWN_BYTES = MIB
    queue = Queue(directory / "queue", map_bytes=64 * MIB)
    filler = fill_disk(directory)
    held, error = put_until_refused(queue)
    assert "cannot be written, is the disk full?" in str(error), str(error)
    assert held > 500, "what was grown before is not used"
    try:
        with queue.moves() as moves:
            moves.take(["a"], epoch=1, now=2.0)
    except QueueError as refused:
        assert "disk full" in str(refused)
    filler.unlink()
    check_queue(queue)
    go_round(queue, MANY)
    put(queue, held + 1, held + 50)
    assert check_queue(queue).ever_put == held + 51
    queue.close()


def full_disk_start(directory: Path) -> None:
    """A new queue on a full disk is refused in words, before anything is mapped."""
    fill_disk(directory)
    try:
        Queue(directory / "queue", map_bytes=64 * MIB)
    except QueueError as error:
        assert "no room for the queue" in str(error) or "No space" in str(error), str(error)
        assert "--state-dir" in str(error) or "No space" in str(error)
    else:
        raise AssertionError("a queue without room was opened")


def full_map(directory: Path) -> None:
    """A full map is a clean error that names the remedy, and the remedy works."""
    queue = Queue(directory / "queue", map_bytes=MIB)
    held, error = put_until_refused(queue)
    assert "map is full" in str(error) and "live_ranges" in str(error), str(error)
    assert queue.usage() > 0.9
    queue.close()
    wider = Queue(directory / "queue", map_bytes=2 * MIB)
    assert check_queue(wider).ever_put == held
    go_round(wider, MANY)
    with wider.moves() as moves:
        assert len(moves.give_back(RangeState.READY)) == held
    wider.close()
    # Emptied, it lives in the small map again.
    queue = Queue(directory / "queue", map_bytes=MIB)
    go_round(queue, MANY)
    check_queue(queue)
    queue.close()


def full_map_moves(directory: Path) -> None:
    """In a full map each move on happens or is refused whole; what is moved on goes the whole way.

    LMDB keeps no reserve for deletions, so a refusal cannot be excluded: live ranges are bounded
    far below the map, which is what keeps it from filling up.
    """
    queue = Queue(directory / "queue", map_bytes=MIB)
    held, _ = put_until_refused(queue, group=1000)
    before, taken = check_queue(queue), 0
    for _ in range(200):
        try:
            with queue.moves() as moves:
                taken += len(moves.take(["a"], epoch=1, now=2.0))
        except QueueError as error:
            assert "map is full" in str(error)
            assert taken or check_queue(queue) == before
    after = check_queue(queue)
    assert (after.ever_put, queue.counts().sent) == (held, taken)
    queue.close()


def stopped_writer(directory: Path) -> None:
    """A writer stopped inside a transaction stalls the others; killed, it lets them go on."""
    place = directory / "queue"
    queue = Queue(place, map_bytes=MIB)
    put(queue, 1, 3)
    queue.close()
    (told, tell), (go, start) = os.pipe(), os.pipe()
    waiter = fork(lambda: _take_and_tell(place, tell, go))
    assert os.read(told, 1) == b"o"
    writer = fork(lambda: _stop_inside(place))
    assert os.WIFSTOPPED(os.waitpid(writer, os.WUNTRACED)[1])
    os.write(start, b"g")
    assert os.read(told, 1) == b"w"
    assert not select.select([told], [], [], 0.3)[0], "two writers at once"
    os.kill(writer, signal.SIGKILL)
    assert select.select([told], [], [], SOON_S)[0], "the waiting writer hangs"
    assert os.read(told, 1) == b"t"
    assert os.waitpid(waiter, 0)[1] == 0
    os.waitpid(writer, 0)
    queue = Queue(place, map_bytes=MIB)
    assert queue.counts().live == 3, "uncommitted ranges are seen, or some are lost"
    assert queue.ids(RangeState.SENT) == [range_id(1)]
    go_round(queue, 50)
    check_queue(queue)
    queue.close()


def _stop_inside(place: Path) -> None:
    queue = Queue(place, map_bytes=MIB)
    with queue.moves() as moves:
        moves.put_ranges(make_ranges(10, 12), now=1.0)
        moves.take(["w"] * 3, epoch=1, now=1.0)
        os.kill(os.getpid(), signal.SIGSTOP)


def _take_and_tell(place: Path, tell: int, go: int) -> None:
    queue = Queue(place, map_bytes=MIB)
    os.write(tell, b"o")
    assert os.read(go, 1) == b"g"
    assert queue.counts().ready == 3, "reading waits for the writer"
    os.write(tell, b"w")
    with queue.moves() as moves:
        moves.take(["a"], epoch=1, now=2.0)
    os.write(tell, b"t")


def killed_readers(directory: Path) -> None:
    """Processes killed while reading pin pages until `check_readers` frees them."""
    place = directory / "queue"
    setup = Queue(place, map_bytes=MIB)
    put(setup, 1, 3)
    setup.close()
    # The queue is opened by a child too: an environment must not cross a fork.
    assert os.waitpid(fork(lambda: _outlive_readers(place)), 0)[1] == 0


def _outlive_readers(place: Path) -> None:
    told, tell = os.pipe()
    readers = [fork(lambda: _read_for_ever(place, tell)) for _ in range(3)]
    for _ in readers:
        assert os.read(told, 1) == b"r"
    queue = Queue(place, map_bytes=MIB)
    for pid in readers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    refused = _rounds_until_full(queue, MANY)
    assert refused is not None and "map is full" in str(refused), "dead readers pin no page?"
    assert queue.check_readers() == 3
    assert queue.check_readers() == 0
    assert _rounds_until_full(queue, 2 * MANY) is None
    check_queue(queue)


def _rounds_until_full(queue: Queue, first: int) -> QueueError | None:
    try:
        for number in range(first, first + 600):
            go_round(queue, number)
    except QueueError as error:
        return error
    return None


def _read_for_ever(place: Path, tell: int) -> None:
    queue = Queue(place, map_bytes=MIB)
    with queue._read() as txn:
        txn.get(b"x", db=queue._items)
        os.write(tell, b"r")
        signal.pause()


def reader_slots(directory: Path) -> None:
    """When dead processes hold all reader slots, the next reader frees them."""
    place = directory / "queue"
    setup = Queue(place, map_bytes=MIB)
    put(setup, 1, 3)
    setup.close()
    assert os.waitpid(fork(lambda: _find_a_slot(place)), 0)[1] == 0


def _find_a_slot(place: Path) -> None:
    told, tell = os.pipe()
    queue = Queue(place, map_bytes=MIB)
    readers = []
    for _ in range(64):
        # Vfork-like: the child must not use the parent's environment, so it opens its own.
        readers.append(spawn_reader(place, tell))
        assert os.read(told, 1) in b"rf"
    for process in readers:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    assert queue.counts().ready == 3
    queue.close()


def spawn_reader(place: Path, tell: int) -> int:
    """A fresh interpreter that reads for ever."""
    os.set_inheritable(tell, True)
    arguments = [sys.executable, __file__, "read-for-ever", str(place), str(tell)]
    return os.posix_spawn(sys.executable, arguments, os.environ)


def read_for_ever(place: Path) -> None:
    """Says `r` when it has a slot, `f` when there is none."""
    try:
        _read_for_ever(place, int(sys.argv[3]))
    except QueueError:
        os.write(int(sys.argv[3]), b"f")
        signal.pause()


def fork(act: Callable[[], None]) -> int:
    """A child that does `act`."""
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


SCENARIOS: dict[str, Callable[[Path], None]] = {
    "full-disk-moves": full_disk_moves,
    "full-disk-growth": full_disk_growth,
    "full-disk-start": full_disk_start,
    "full-map": full_map,
    "full-map-moves": full_map_moves,
    "stopped-writer": stopped_writer,
    "killed-readers": killed_readers,
    "reader-slots": reader_slots,
    "read-for-ever": read_for_ever,
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
