"""The shared-memory queue's verbs: one state each, all or nothing, and what survives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from queue_oracle import (
    JOB,
    check_queue,
    go_round,
    make_archive,
    make_failure,
    make_outputs,
    make_range,
    make_ranges,
    range_id,
)

from espilot.errors import EspilotError, QueueError, StateError
from espilot.model import Archive, ArchiveState, RangeState
from espilot.queue import store
from espilot.queue.store import Queue

MAP_BYTES = 4 << 20
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """An empty queue, sound at the end."""
    queue = Queue(tmp_path / "queue", map_bytes=MAP_BYTES)
    yield queue
    check_queue(queue)
    queue.close()


def put(queue: Queue, first: int, last: int) -> None:
    """New ranges."""
    with queue.moves() as moves:
        assert moves.put_ranges(make_ranges(first, last), now=1.0) == last - first + 1


def take(queue: Queue, *owners: str, epoch: int = 1) -> list[str]:
    """The ids taken."""
    with queue.moves() as moves:
        return [r.id for r in moves.take(owners, epoch=epoch, now=2.0)]


def finish(queue: Queue, *numbers: int, epoch: int = 1) -> None:
    """Outcomes."""
    with queue.moves() as moves:
        for n in numbers:
            assert moves.finish(range_id(n), epoch=epoch, outputs=make_outputs(n), now=3.0)


def ship(queue: Queue, name: str, *numbers: int) -> None:
    """Put, take, finish, pack and stage an archive of these ranges."""
    put(queue, numbers[0], numbers[-1])
    take(queue, *["a"] * len(numbers))
    finish(queue, *numbers)
    with queue.moves() as moves:
        moves.pack(make_archive(name, list(numbers)))
        moves.staged(name, storage_id=3)


# -- ranges -----------------------------------------------------------------------------------


def test_put_is_by_id_and_overwrites_nothing(queue: Queue) -> None:
    """Fetching a range twice is harmless, whatever has become of it meanwhile."""
    put(queue, 1, 2)
    take(queue, "a")
    with queue.moves() as moves:
        again = [make_range(2), make_range(1), make_range(3), make_range(3)]
        assert moves.put_ranges(again, now=9.0) == 1
    assert queue.state(range_id(1)) is RangeState.SENT
    assert queue.ids(RangeState.READY) == [range_id(2), range_id(3)]


def test_oldest_first(queue: Queue) -> None:
    """Ranges are taken in the order of their coming; what comes back waits behind the others."""
    put(queue, 1, 3)
    assert take(queue, "a", "b") == [range_id(1), range_id(2)]
    with queue.moves() as moves:
        assert moves.return_ranges([range_id(1)], epoch=1) == 1
    assert take(queue, "c", "c", "c") == [range_id(3), range_id(1)]
    assert queue.owners() == {range_id(1): "c", range_id(2): "b", range_id(3): "c"}
    assert take(queue) == []


def test_taken_is_what_was_put(queue: Queue) -> None:
    """A range comes out with all its fields."""
    odd = make_range(1)._replace(lfn="ä\n,", guid="", scope="x" * 5000, pfn="root://h//p")
    with queue.moves() as moves:
        moves.put_ranges([odd], now=1.0)
        assert moves.take(["a"], epoch=1, now=1.0) == [odd]


def test_outcomes_need_a_sent_range_of_the_epoch(queue: Queue) -> None:
    """Late, repeated, unknown and impossible outcomes answer False and change nothing."""
    put(queue, 1, 2)
    take(queue, "a", epoch=4)
    before = check_queue(queue)
    outputs = make_outputs(1)
    with queue.moves() as moves:
        for an_id, epoch in [
            (range_id(1), 3), (range_id(1), 5), (range_id(2), 4), (range_id(9), 4),
            ("", 4), ("x" * 1000, 4),
        ]:  # fmt: skip
            assert not moves.finish(an_id, epoch=epoch, outputs=outputs, now=3.0)
            failure = replace(make_failure(1), id=an_id)
            assert not moves.fail(failure, epoch=epoch, now=3.0)
            assert moves.return_ranges([an_id], epoch=epoch) == 0
    assert check_queue(queue) == before
    finish(queue, 1, epoch=4)
    with queue.moves() as moves:
        assert not moves.finish(range_id(1), epoch=4, outputs=outputs, now=3.0)
        assert not moves.fail(make_failure(1), epoch=4, now=3.0)


def test_events_of_an_outcome(queue: Queue) -> None:
    """Events are those of the range, or fewer if the payload says so; never more."""
    put(queue, 1, 3)
    take(queue, "a", "a", "a")
    with queue.moves() as moves:
        for number, events in ((1, None), (2, 1), (3, 10**9)):
            moves.finish(
                range_id(number),
                epoch=1,
                outputs=make_outputs(number),
                now=3.0,
                facts=(events, None, None),
            )
    assert [row.events for row in queue.done()[0]] == [2, 1, 2]


def test_done_is_read_bit_by_bit(queue: Queue) -> None:
    """Each done range is read once, in order, also one that came back and was done again."""
    put(queue, 1, 3)
    take(queue, "a", "a", "a")
    finish(queue, 2)
    rows, after = queue.done()
    assert [r.id for r in rows] == [range_id(2)]
    finish(queue, 1)
    with queue.moves() as moves:
        moves.drop(range_id(2), None, now=4.0)
    assert take(queue, "b") == [range_id(2)]
    finish(queue, 3, 2)
    rows, after = queue.done(after)
    assert [r.id for r in rows] == [range_id(1), range_id(3), range_id(2)]
    assert queue.done(after) == ([], after)


def test_return_sent(queue: Queue) -> None:
    """What an owner, an epoch or all former epochs held comes back, nothing else."""
    put(queue, 1, 6)
    take(queue, "a", "b", epoch=1)
    take(queue, "a", "b", epoch=2)
    take(queue, "a", "b", epoch=3)
    with queue.moves() as moves:
        assert moves.return_sent(epoch=1, owner="a") == [range_id(1)]
        assert moves.return_sent(before=3) == [range_id(2), range_id(3), range_id(4)]
        assert moves.return_sent(owner="b") == [range_id(6)]
        assert moves.return_sent() == [range_id(5)]
    assert queue.counts().ready == 6


def test_drop(queue: Queue) -> None:
    """An output that is gone sends its range back, or fails it with the reason."""
    put(queue, 1, 3)
    take(queue, "a", "a", "a")
    finish(queue, 1, 2, 3)
    with queue.moves() as moves:
        moves.drop(range_id(1), None, now=4.0)
        moves.drop(range_id(2), make_failure(2), now=4.0)
        moves.drop(range_id(3), make_failure(3, fatal=True), now=4.0)
    assert queue.ready() == [make_range(1)]
    assert queue.failures() == [make_failure(2), make_failure(3, fatal=True)]


def test_forget_failures(queue: Queue) -> None:
    """Booked failures go and are counted by kind; other ids are left alone."""
    put(queue, 1, 3)
    take(queue, "a", "a")
    with queue.moves() as moves:
        moves.fail(make_failure(1), epoch=1, now=3.0)
        moves.fail(make_failure(2, fatal=True), epoch=1, now=3.0)
    with queue.moves() as moves:
        ids = [range_id(n) for n in (1, 1, 2, 3, 9)]
        assert moves.forget_failures(ids) == 2
    counts = queue.counts()
    assert (counts.failed_total, counts.fatal_total, counts.live) == (1, 1, 1)


def test_forget_done(queue: Queue) -> None:
    """Done ranges that others have taken over go and count as finished; others are left alone."""
    put(queue, 1, 4)
    take(queue, "a", "a", "a")
    finish(queue, 1, 2)
    with queue.moves() as moves:
        assert moves.forget_done([range_id(n) for n in (1, 1, 3, 4, 9)]) == 1
    counts = queue.counts()
    assert (counts.ready, counts.sent, counts.done, counts.finished) == (1, 1, 1, 1)
    assert counts.events == make_range(1).events


def test_give_back(queue: Queue) -> None:
    """Ranges that are the server's again are gone and counted."""
    put(queue, 1, 5)
    take(queue, "a", "a")
    with queue.moves() as moves:
        assert moves.give_back(RangeState.READY) == [range_id(n) for n in (3, 4, 5)]
        assert moves.give_back_ranges([range_id(1), range_id(1), range_id(7)]) == 1
    assert (queue.counts().released, queue.counts().live) == (4, 1)


@pytest.mark.parametrize("state", [RangeState.PACKED, RangeState.STAGED])
def test_members_are_not_given_back_alone(queue: Queue, state: RangeState) -> None:
    """A range in an archive stays with it."""
    ship(queue, "a-1", 1, 2)
    before = check_queue(queue)
    with pytest.raises(StateError), queue.moves() as moves:
        moves.give_back(state)
    with queue.moves() as moves:
        assert moves.give_back_ranges([range_id(1)]) == 0
    assert check_queue(queue) == before


# -- archives ---------------------------------------------------------------------------------


def test_archive_goes_its_way(queue: Queue) -> None:
    """Packed, staged, reported, forgotten: the list and the name stay, the rows go at the end."""
    put(queue, 1, 3)
    take(queue, "a", "a", "a")
    finish(queue, 1, 2, 3)
    archive = make_archive("a-1", [3, 1])
    with queue.moves() as moves:
        moves.pack(replace(archive, state=ArchiveState.STAGED))
    assert queue.archives() == [archive]
    with queue.moves() as moves:
        moves.staged("a-1", storage_id=5)
    staged = replace(archive, state=ArchiveState.STAGED, storage_id=5)
    assert queue.archives(ArchiveState.STAGED) == [staged]
    with queue.moves() as moves:
        moves.reported("a-1")
    counts = queue.counts()
    assert (counts.finished, counts.events, counts.archives) == (2, 4, 1)
    assert (counts.bytes, counts.live, counts.done) == (archive.size_bytes, 1, 1)
    assert queue.archives(ArchiveState.REPORTED) != []
    with queue.moves() as moves:
        moves.forget_archive("a-1")
    assert queue.archives() == []


def test_refused_members(queue: Queue) -> None:
    """Ranges that the server no longer holds for us are released, not finished; ids that are no
    members do not count."""
    ship(queue, "a-1", 1, 2, 3)
    with queue.moves() as moves:
        moves.reported("a-1", refused=frozenset([range_id(2), range_id(77)]))
    counts = queue.counts()
    assert (counts.finished, counts.released, counts.events, counts.archives) == (2, 1, 4, 1)


def test_all_members_refused(queue: Queue) -> None:
    """An archive of which nothing counts is no archive of the task."""
    ship(queue, "a-1", 1, 2)
    with queue.moves() as moves:
        moves.reported("a-1", refused=frozenset([range_id(1), range_id(2)]))
    counts = queue.counts()
    assert (counts.finished, counts.released, counts.archives, counts.bytes) == (0, 2, 0, 0)


def test_abandon(queue: Queue) -> None:
    """A packed archive that nobody wants gives its ranges back; its files are found to delete."""
    put(queue, 1, 2)
    take(queue, "a", "a")
    finish(queue, 1, 2)
    with queue.moves() as moves:
        moves.pack(make_archive("a-1", [1, 2]))
        moves.abandon_archive("a-1")
    assert (queue.counts().released, queue.counts().live) == (2, 0)
    assert [a.name for a in queue.archives(ArchiveState.REPORTED)] == ["a-1"]


BAD_MOVES = {
    "pack a range that is ready": lambda m: m.pack(make_archive("n", [10, 1])),
    "pack a range that is sent": lambda m: m.pack(make_archive("n", [10, 2])),
    "pack an unknown range": lambda m: m.pack(make_archive("n", [10, 99])),
    "pack a range twice": lambda m: m.pack(make_archive("n", [10, 10])),
    "pack a packed range": lambda m: m.pack(make_archive("n", [10, 20])),
    "pack under a name that is taken": lambda m: m.pack(make_archive("packed", [10])),
    "pack under no name": lambda m: m.pack(make_archive("", [10])),
    "pack under an endless name": lambda m: m.pack(make_archive("n" * 600, [10])),
    "stage a staged archive": lambda m: m.staged("staged", storage_id=1),
    "stage an unknown archive": lambda m: m.staged("huh", storage_id=1),
    "report a packed archive": lambda m: m.reported("packed"),
    "report an unknown archive": lambda m: m.reported("huh"),
    "abandon a staged archive": lambda m: m.abandon_archive("staged"),
    "forget a staged archive": lambda m: m.forget_archive("staged"),
    "drop a range that is not done": lambda m: m.drop(range_id(1), None, now=1.0),
    "drop an unknown range": lambda m: m.drop(range_id(99), None, now=1.0),
    "clear a job with live ranges": lambda m: m.clear_job(),
    "put a range without id": lambda m: m.put_ranges([make_range(9)._replace(id="")], now=1.0),
}


@pytest.mark.parametrize("name", BAD_MOVES)
def test_bad_move_changes_nothing(queue: Queue, name: str) -> None:
    """A move that the state does not allow is an error, and undoes all that was in its
    transaction."""
    ship(queue, "staged", 30, 31)
    put(queue, 10, 11)
    put(queue, 20, 21)
    take(queue, *["a"] * 4)
    finish(queue, 10, 11, 20, 21)
    with queue.moves() as moves:
        moves.pack(make_archive("packed", [20, 21]))
        moves.put_ranges(make_ranges(2, 2), now=1.0)
        moves.take(["a"], epoch=1, now=2.0)
        moves.put_ranges(make_ranges(1, 1), now=1.0)
    before = check_queue(queue)
    with pytest.raises(QueueError) as caught, queue.moves() as moves:
        moves.put_ranges(make_ranges(50, 51), now=1.0)
        BAD_MOVES[name](moves)
    assert "\n" not in str(caught.value)
    assert check_queue(queue) == before
    go_round(queue, 60)


def test_error_inside_a_transaction(queue: Queue) -> None:
    """Whatever goes wrong inside, nothing of it happens and the lock is free again."""
    put(queue, 1, 2)
    before = check_queue(queue)
    with pytest.raises(ZeroDivisionError), queue.moves() as moves:
        moves.take(["a"], epoch=1, now=1.0)
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), queue.moves() as moves:
        moves.take(["a"], epoch=1, now=1.0)
        raise KeyboardInterrupt
    assert check_queue(queue) == before
    assert take(queue, "a") == [range_id(1)]


def test_counters_that_overflow(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even an error of the commit's own preparations frees the lock."""
    put(queue, 1, 1)
    with pytest.raises(ArithmeticError), queue.moves() as moves:
        moves.take(["a"], epoch=1, now=1.0)
        monkeypatch.setattr(store.rec, "pack_counts", _overflow)
    monkeypatch.undo()
    assert take(queue, "a") == [range_id(1)]


def _overflow(_: list[int]) -> bytes:
    raise ArithmeticError


# -- job and epoch ----------------------------------------------------------------------------


def test_job(queue: Queue) -> None:
    """The job, its phase and facts come back as they were; without one there is none."""
    assert (queue.job(), queue.phase()) == (None, "")
    with queue.moves() as moves:
        moves.set_job(JOB, "running", {"before": {"ready": 0}})
    record = queue.job()
    assert record is not None
    assert (record.job, record.phase, record.facts) == (JOB, "running", {"before": {"ready": 0}})
    with queue.moves() as moves:
        moves.set_phase("exhausted")
        assert moves.phase() == "exhausted"
    assert queue.phase() == "exhausted"
    with queue.moves() as moves:
        moves.clear_job()
        assert moves.phase() == ""
    assert (queue.job(), queue.phase()) == (None, "")


def test_epochs_only_grow(queue: Queue) -> None:
    """A late note of an older start changes nothing."""
    assert queue.epoch() == 0
    for epoch, expected in ((2, 2), (1, 2), (2, 2), (10, 10), (9, 10)):
        with queue.moves() as moves:
            moves.set_epoch(epoch)
        assert queue.epoch() == expected


# -- the file ---------------------------------------------------------------------------------


def test_everything_survives(tmp_path: Path) -> None:
    """A queue that is closed and opened again is the same queue."""
    queue = Queue(tmp_path / "queue", map_bytes=MAP_BYTES)
    ship(queue, "a-1", 1, 2)
    put(queue, 5, 9)
    take(queue, "a")
    queue.sync()
    before, counts = check_queue(queue), queue.counts()
    queue.close()
    queue = Queue(tmp_path / "queue", map_bytes=MAP_BYTES)
    assert check_queue(queue) == before
    assert queue.counts() == counts
    queue.close()


def test_file_does_not_grow_with_the_job(tmp_path: Path) -> None:
    """Many ranges pass through a file that stays as small as what lives in it."""
    queue = Queue(tmp_path / "queue", map_bytes=MAP_BYTES)
    used = []
    for start in range(0, 6000, 100):
        put(queue, start + 1, start + 100)
        take(queue, *["a"] * 100)
        finish(queue, *range(start + 1, start + 101))
        name = f"a-{start}"
        with queue.moves() as moves:
            moves.pack(make_archive(name, list(range(start + 1, start + 101))))
        with queue.moves() as moves:
            moves.staged(name, storage_id=3)
        with queue.moves() as moves:
            moves.reported(name)
        with queue.moves() as moves:
            moves.forget_archive(name)
        used.append(queue.usage())
    assert used[-1] == pytest.approx(used[5], rel=0.3)
    assert queue.counts().finished == 6000
    assert queue.counts().bytes == 60 * make_archive("x", list(range(100))).size_bytes
    queue.close()


def test_file_is_grown_beforehand(tmp_path: Path) -> None:
    """The file has its blocks from the start, and is for its owner only."""
    queue = Queue(tmp_path / "queue", map_bytes=MAP_BYTES)
    status = (tmp_path / "queue" / "data.mdb").stat()
    assert status.st_size == MAP_BYTES
    assert status.st_blocks * 512 >= MAP_BYTES
    assert status.st_mode & 0o077 == 0
    assert (tmp_path / "queue").stat().st_mode & 0o077 == 0
    queue.close()


def test_two_processes(tmp_path: Path, queue: Queue) -> None:
    """Another process sees what was committed, and its moves are seen here."""
    put(queue, 1, 2)
    program = (
        "import sys; from pathlib import Path; from espilot.queue.store import Queue\n"
        f"queue = Queue(Path(sys.argv[1]), map_bytes={MAP_BYTES})\n"
        "with queue.moves() as moves: print(moves.take(['other'], epoch=1, now=1.0)[0].id)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "queue")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == range_id(1)
    assert queue.owners() == {range_id(1): "other"}


def test_reading_during_a_transaction(queue: Queue) -> None:
    """Readers see the last commit, never half a transaction."""
    put(queue, 1, 3)
    with queue.moves() as moves:
        moves.take(["a", "a"], epoch=1, now=1.0)
        assert (queue.counts().ready, queue.counts().sent) == (3, 0)
        assert len(queue.ids(RangeState.READY)) == 3
    assert (queue.counts().ready, queue.counts().sent) == (1, 2)


def test_opened_twice(tmp_path: Path, queue: Queue) -> None:
    """A second opening in one process is refused, and the first goes on."""
    with pytest.raises(QueueError, match="already open"):
        Queue(tmp_path / "queue", map_bytes=MAP_BYTES)
    go_round(queue, 1)


@pytest.mark.parametrize("content", [b"x" * 8192, b"hello"])
def test_damaged_file(tmp_path: Path, content: bytes) -> None:
    """A file that is no queue is refused in words."""
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "data.mdb").write_bytes(content)
    with pytest.raises(QueueError, match="cannot open the queue in"):
        Queue(tmp_path / "queue", map_bytes=MAP_BYTES)


def test_place_that_is_none(tmp_path: Path) -> None:
    """A file where the directory should be is refused in words."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(QueueError, match="cannot open the queue in"):
        Queue(tmp_path / "file", map_bytes=MAP_BYTES)
    with pytest.raises(QueueError, match="cannot open the queue in"):
        Queue(tmp_path / "file" / "below", map_bytes=MAP_BYTES)


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "gpfs"])
def test_network_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Where memory mapping is unsafe the queue is refused, and `--state-dir` is named."""
    monkeypatch.setattr(store, "filesystem_type", lambda _: kind)
    with pytest.raises(QueueError, match=f"on {kind}.*--state-dir"):
        Queue(tmp_path / "queue", map_bytes=MAP_BYTES)


def test_filesystem_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The innermost mount counts, the later one of two, and odd names are understood."""
    odd = tmp_path / "with blank\\and ü"
    (odd / "sub").mkdir(parents=True)
    shown = str(odd).replace("\\", "\\134").replace(" ", "\\040")
    lines = [
        "1 0 0:1 / / rw - ext4 /dev/a rw",
        f"2 1 0:2 / {shown} rw shared:1 master:2 - xfs /dev/b rw",
        f"3 2 0:3 / {shown}/sub rw - tmpfs none rw",
        f"4 2 0:4 / {shown}/sub rw - nfs4 host:/x rw",
        f"5 2 0:5 / {shown}/subway rw - lustre x rw",
    ]
    fake = SimpleNamespace(read_bytes=lambda: "\n".join(lines).encode())
    real = store.Path
    monkeypatch.setattr(store, "Path", lambda p: fake if "mountinfo" in str(p) else real(p))
    assert store.filesystem_type(odd / "sub" / "not" / "there") == "nfs4"
    assert store.filesystem_type(odd) == "xfs"
    assert store.filesystem_type(tmp_path) == "ext4"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (lmdb.MapFullError("x"), "live_ranges"),
        (lmdb.DiskError("x"), "is the disk full"),
        (lmdb.Error("mdb_txn_commit: Input/output error"), "is the disk full"),
        (lmdb.ReadersFullError("x"), "reader slots"),
        (lmdb.CorruptedError("x"), "the queue failed"),
    ],
)
def test_errors_in_words(error: lmdb.Error, words: str) -> None:
    """LMDB's errors come out as ours, with what can be done."""
    assert words in str(store.queue_error(error))
    assert isinstance(store.queue_error(error), EspilotError)


# -- any course, beside a model -----------------------------------------------------------------

NUMBERS = st.integers(1, 12)


class Model(RuleBasedStateMachine):
    """Random verbs on a queue and on a dict of states; after each they agree."""

    queue: Queue

    @initialize()
    def open(self) -> None:
        self.states: dict[int, str] = {}
        self.owner: dict[int, tuple[str, int]] = {}
        self.archives: dict[str, tuple[str, list[int]]] = {}
        self.ended = dict.fromkeys(("finished", "failed", "fatal", "released"), 0)
        self.names = 0
        with self.queue.moves() as moves:
            for name in ("items", "index", "archives", "meta"):
                moves._txn.drop(getattr(self.queue, f"_{name}"), delete=False)

    def of(self, state: str) -> list[int]:
        """The numbers in a state."""
        return [number for number, each in self.states.items() if each == state]

    def set(self, number: int, state: str) -> None:
        """Move to the end of a state."""
        self.states.pop(number, None)
        self.states[number] = state

    @rule(numbers=st.lists(NUMBERS, max_size=6))
    def put(self, numbers: list[int]) -> None:
        new = [n for n in dict.fromkeys(numbers) if n not in self.states]
        with self.queue.moves() as moves:
            assert moves.put_ranges([make_range(n) for n in numbers], now=1.0) == len(new)
        for number in new:
            self.set(number, "ready")

    @rule(owners=st.lists(st.sampled_from("ab"), max_size=4), epoch=st.integers(1, 2))
    def take(self, owners: list[str], epoch: int) -> None:
        expected = self.of("ready")[: len(owners)]
        with self.queue.moves() as moves:
            taken = moves.take(owners, epoch=epoch, now=2.0)
        assert taken == [make_range(n) for n in expected]
        for number, owner in zip(expected, owners, strict=False):
            self.set(number, "sent")
            self.owner[number] = (owner, epoch)

    @rule(number=NUMBERS, epoch=st.integers(1, 2), outcome=st.sampled_from(["done", "failed"]))
    def outcome(self, number: int, epoch: int, outcome: str) -> None:
        expected = self.states.get(number) == "sent" and self.owner[number][1] == epoch
        with self.queue.moves() as moves:
            if outcome == "done":
                outputs = make_outputs(number)
                took = moves.finish(range_id(number), epoch=epoch, outputs=outputs, now=3.0)
            else:
                took = moves.fail(make_failure(number), epoch=epoch, now=3.0)
        assert took is expected
        if took:
            self.set(number, outcome)

    @rule(owner=st.sampled_from("ab"), epoch=st.integers(1, 2))
    def client_died(self, owner: str, epoch: int) -> None:
        expected = [n for n in self.of("sent") if self.owner[n] == (owner, epoch)]
        with self.queue.moves() as moves:
            back = moves.return_sent(owner=owner, epoch=epoch)
        assert back == [range_id(n) for n in expected]
        for number in expected:
            self.set(number, "ready")

    @precondition(lambda self: self.of("done"))
    @rule(n=st.integers(1, 4), drop=st.booleans())
    def pack(self, n: int, drop: bool) -> None:
        dropped, *numbers = self.of("done")[: n + 1] if drop else [0, *self.of("done")[:n]]
        self.names += 1
        name = f"a-{self.names:04}"
        with self.queue.moves() as moves:
            if drop:
                moves.drop(range_id(dropped), make_failure(dropped, fatal=True), now=4.0)
                self.set(dropped, "fatal")
            if numbers:
                moves.pack(make_archive(name, numbers))
                self.archives[name] = ("packed", numbers)
        for number in numbers:
            self.set(number, "packed")

    @precondition(lambda self: any(state == "packed" for state, _ in self.archives.values()))
    @rule(abandon=st.booleans())
    def stage(self, abandon: bool) -> None:
        name = next(k for k, (state, _) in self.archives.items() if state == "packed")
        numbers = self.archives[name][1]
        with self.queue.moves() as moves:
            if abandon:
                moves.abandon_archive(name)
                moves.forget_archive(name)
            else:
                moves.staged(name, storage_id=3)
        if abandon:
            del self.archives[name]
            self.end(numbers, "released")
        else:
            self.archives[name] = ("staged", numbers)
            for number in numbers:
                self.set(number, "staged")

    @precondition(lambda self: any(state == "staged" for state, _ in self.archives.values()))
    @rule(refuse=st.booleans())
    def report(self, refuse: bool) -> None:
        name = next(k for k, (state, _) in self.archives.items() if state == "staged")
        numbers = self.archives.pop(name)[1]
        refused = numbers[:1] if refuse else []
        with self.queue.moves() as moves:
            moves.reported(name, refused=frozenset(range_id(n) for n in refused))
            moves.forget_archive(name)
        self.end(refused, "released")
        self.end(numbers[len(refused) :], "finished")

    @rule()
    def forget(self) -> None:
        gone = [*self.of("failed"), *self.of("fatal")]
        with self.queue.moves() as moves:
            assert moves.forget_failures([range_id(n) for n in gone]) == len(gone)
        for number in gone:
            self.end([number], self.states[number])

    @rule()
    def give_back(self) -> None:
        expected = self.of("ready")
        with self.queue.moves() as moves:
            assert moves.give_back(RangeState.READY) == [range_id(n) for n in expected]
        self.end(expected, "released")

    def end(self, numbers: list[int], fate: str) -> None:
        """These are gone."""
        self.ended[fate] += len(numbers)
        for number in numbers:
            del self.states[number]

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "states"):
            return
        check_queue(self.queue)
        counts = self.queue.counts()
        for state in RangeState:
            assert self.queue.ids(state) == [range_id(n) for n in self.of(state.value)]
            assert getattr(counts, state.value) == len(self.of(state.value))
        assert (counts.finished, counts.released) == (
            self.ended["finished"],
            self.ended["released"],
        )
        assert counts.failed_total == self.ended["failed"]
        assert counts.fatal_total == self.ended["fatal"]
        found: list[Archive] = self.queue.archives()
        assert {a.name: (a.state.value, list(a.ids)) for a in found} == {
            name: (state, [range_id(n) for n in numbers])
            for name, (state, numbers) in self.archives.items()
        }


def test_any_course_of_verbs(queue: Queue) -> None:
    """Whatever verbs follow each other, the queue is what a plain dict of states is."""
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Bound", (Model,), {"queue": queue})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
    )
