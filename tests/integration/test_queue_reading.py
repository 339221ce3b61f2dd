"""Looking into a queue while it is in use, and after."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from espilot.errors import LocalError, QueueError, UsageError
from espilot.model import Archive, EventRange, FailedRange, Output, RangeState
from espilot.queue.reading import NOTE, QueueReader
from espilot.queue.records import LAYOUT
from espilot.queue.store import Queue

OUTPUT = Output("/w/out", 1, 2, 100, 3)


def make_ranges(n: int) -> list[EventRange]:
    """Ranges r0, r1, ... of one event each."""
    return [EventRange(f"r{i}", i + 1, i + 1, "in", "g", "s") for i in range(n)]


def fill(queue: Queue) -> None:
    """r0 packed, r1 done (8 CPU seconds), r2 and r3 sent, r4 failed, r5 ready."""
    with queue.moves() as moves:
        moves.put_ranges(make_ranges(6), now=100.0)
        moves.take(["a", "a", "b", "b", "a"], epoch=1, now=110.0)
        moves.finish("r0", epoch=1, outputs=(OUTPUT,), now=120.0)
        moves.finish("r1", epoch=1, outputs=(OUTPUT,), now=130.0, facts=(1, 8.0, 9.0))
        moves.fail(FailedRange("r4", False, 1305, "bad event"), epoch=1, now=140.0)
        moves.pack(Archive("a.tar", ("r0",), 2048, "00000001", 1))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A queue with a range in most states, left by a process that is gone."""
    with run_beside("leave", tmp_path / "queue"):
        pass
    return tmp_path / "queue"


def run_beside(function: str, directory: Path) -> subprocess.Popen[str]:
    """Call a function of this module with a queue's directory in a process of its own."""
    code = f"import sys; from pathlib import Path; sys.path[:0] = {sys.path!r}; "
    code += f"import test_queue_reading as here; here.{function}(Path({str(directory)!r}))"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def leave(directory: Path) -> None:
    """Fill a queue and go."""
    queue = Queue(directory)
    fill(queue)
    queue.close()


@pytest.fixture
def reader(directory: Path) -> Iterator[QueueReader]:
    """A reader of it."""
    reader = QueueReader(directory)
    yield reader
    reader.close()


def test_reads_what_was_left(reader: QueueReader) -> None:
    """Counts, ids and each range's whole row are there without the process that wrote them."""
    counts = reader.counts()
    assert (counts.packed, counts.done, counts.sent, counts.failed, counts.ready) == (1, 1, 2, 1, 1)
    assert reader.all_ids() == [f"r{i}" for i in range(6)]
    done = reader.find("r1")
    assert done is not None and done.state is RangeState.DONE
    assert (done.outputs, done.since, done.range.start_event) == ((OUTPUT,), 130.0, 2)
    packed, failed, sent = reader.find("r0"), reader.find("r4"), reader.find("r2")
    assert packed is not None and packed.archive == "a.tar"
    assert failed is not None and (failed.code, failed.diag) == (1305, "bad event")
    assert sent is not None and (sent.owner, sent.epoch) == ("b", 1)
    assert reader.find("r6") is None
    assert reader.find("") is None


def test_what_no_client_has_is_not_at_risk(tmp_path: Path) -> None:
    """Ranges taken ahead are sent and not begun: the newest ones without an owner are left out."""
    with closing(Queue(tmp_path / "queue")) as queue:
        with queue.moves() as moves:
            moves.put_ranges(make_ranges(6), now=100.0)
            moves.take(["", ""], epoch=1, now=110.0)
            moves.take(["a", "", ""], epoch=1, now=120.0)
        risks = [queue.at_risk(130.0, ahead=ahead) for ahead in (0, 2, 3, 9)]
    assert [(each.ranges, each.cpu_s) for each in risks] == [
        (5, 70.0), (3, 50.0), (2, 30.0), (1, 10.0),
    ]  # fmt: skip


def test_reader_moves_nothing(reader: QueueReader) -> None:
    """A reader cannot write."""
    with pytest.raises(QueueError, match="for reading"):
        reader.moves()


@pytest.mark.parametrize("kind", ["nothing", "empty directory", "empty file", "garbage"])
def test_no_queue_is_told_and_none_is_made(tmp_path: Path, kind: str) -> None:
    """Where no queue is, the error names the place, and nothing is there afterwards."""
    directory = tmp_path / "queue"
    if kind != "nothing":
        directory.mkdir()
    if kind.endswith("file") or kind == "garbage":
        (directory / "data.mdb").write_bytes(b"x" * 8192 if kind == "garbage" else b"")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((UsageError, QueueError), match=str(directory)):
        QueueReader(directory)
    left = [path for path in sorted(tmp_path.rglob("*")) if path.name != "lock.mdb"]
    assert left == before


def test_read_only_files(directory: Path) -> None:
    """The files of a dead pilot are not changed by looking at them."""
    data = directory / "data.mdb"
    before = data.stat().st_mtime_ns, data.read_bytes()
    reader = QueueReader(directory)
    reader.counts()
    reader.all_ids()
    reader.close()
    assert (data.stat().st_mtime_ns, data.read_bytes()) == before
    assert stat.S_IMODE(data.stat().st_mode) == 0o600


def hold(directory: Path) -> None:
    """Hold a write transaction open, until told."""
    queue = Queue(directory)
    with queue.moves() as moves:
        moves.put_ranges(make_ranges(1), now=1.0)
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.readline()
    sys.stdout.write("committed\n")
    sys.stdout.flush()
    sys.stdin.readline()
    queue.close()


def test_a_writer_in_the_middle_of_a_move_is_not_waited_for(tmp_path: Path) -> None:
    """A reader opens and reads while a live pilot holds the write lock, and sees moves later on."""
    with run_beside("leave_empty", tmp_path / "queue"):
        pass
    with run_beside("hold", tmp_path / "queue") as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        reader = QueueReader(tmp_path / "queue")
        assert reader.counts().ready == 0
        holder.stdin.write("go\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "committed\n"
        assert reader.counts().ready == 1
        assert reader.archives() == []
        reader.close()
    assert holder.returncode == 0


def leave_empty(directory: Path) -> None:
    """Make a queue and go."""
    Queue(directory).close()


def test_queue_of_another_version(tmp_path: Path) -> None:
    """Its rows are not read; the error names the remedy. What says nothing is taken for ours."""
    Queue(tmp_path).close()
    note = tmp_path / NOTE
    for text in ("", "[]", "{}", f'{{"layout": {LAYOUT}}}'):
        note.write_text(text)
        QueueReader(tmp_path).close()
    note.write_text(f'{{"layout": {LAYOUT + 1}}}')
    with pytest.raises(LocalError, match=r"another version of espilot; .*espilot recover"):
        QueueReader(tmp_path)
