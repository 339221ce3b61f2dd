"""Outputs that are told by their files alone: real files, the real inotify of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from espilot.adapters import directory_watch
from espilot.adapters.directory_watch import DirectoryWatch, is_being_written
from espilot.adapters.loop import Loop
from espilot.errors import LocalError
from espilot.wire.payload import Finished
from espilot.workers import output_watch
from espilot.workers.output_watch import CLOSED, HOLD_S, RENAMED, OutputWatch


class Book:
    """Who hears of outputs: ranges in hand leave it with the first word of their outputs."""

    def __init__(self, *ids: str, lfns: tuple[str, ...] = ("out",)) -> None:
        self.in_hand = set(ids)
        self.done: dict[str, tuple[str, ...]] = {}
        self.complaints: list[str] = []
        self._lfns = lfns

    def output_lfns(self) -> tuple[str, ...]:
        return self._lfns

    def is_in_hand(self, range_id: str) -> bool:
        return range_id in self.in_hand

    def found(self, outcomes: list[Finished]) -> None:
        for outcome in outcomes:
            self.in_hand.remove(outcome.id)
            self.done[outcome.id] = outcome.paths

    def complain(self, text: str, what: str = "") -> None:
        self.complaints.append(text)


class Stage:
    """A watched directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = Loop()
        self.watches: list[OutputWatch] = []

    def watch(self, book: Book, mode: str = RENAMED) -> OutputWatch:
        watch = OutputWatch(self.directory, mode, self.loop, book)
        self.watches.append(watch)
        return watch

    def turn_until(self, condition: Callable[[], object], within_s: float = 10.0) -> None:
        """Turn the loop until the condition holds."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, "did not come"
            self.loop.call_later(0.02, lambda: None)
            self.loop.turn()

    def turn_for(self, duration_s: float) -> None:
        """Turn the loop for so long."""
        end = time.monotonic() + duration_s
        self.turn_until(lambda: time.monotonic() >= end)

    def put(self, name: str, content: bytes = b"data") -> None:
        """Make a file as a good payload does."""
        hidden = self.directory / f".tmp-{name}"
        hidden.write_bytes(content)
        hidden.rename(self.directory / name)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "payload-1")
    yield made
    for watch in made.watches:
        watch.close()


def test_renamed_files_are_outcomes(stage: Stage) -> None:
    """What gets the name of a range in hand is told, whatever else lies there."""
    book = Book("1", "2", "3")
    stage.watch(book)
    for name in ("out.1", "out.2", "out.9", "other", "payload.stdout"):
        stage.put(name)
    stage.turn_until(lambda: len(book.done) == 2)
    assert book.done == {n: (f"{stage.directory}/out.{n}",) for n in "12"}
    assert book.in_hand == {"3"} and not book.complaints


def test_files_from_before_the_start_are_taken(stage: Stage) -> None:
    """What a killed dispatcher has not seen any more is found by its successor, at once."""
    stage.directory.mkdir()
    stage.put("out.1")
    (stage.directory / "out.7").mkdir()
    book = Book("1", "2")
    stage.watch(book)
    assert set(book.done) == {"1"}


def test_a_file_under_its_own_name_is_no_renamed_one(stage: Stage) -> None:
    """It may be half a file; the author is told once what to do."""
    book = Book("1", "2")
    stage.watch(book)
    for name in ("out.1", "out.2"):
        (stage.directory / name).write_bytes(b"half")
    stage.turn_until(lambda: book.complaints)
    stage.turn_for(HOLD_S)
    assert not book.done
    assert len(book.complaints) == 1 and "rename it" in book.complaints[0]


def test_renamed_while_it_is_written_counts_when_it_is_closed(stage: Stage) -> None:
    """A program may rename first and close later."""
    book = Book("1")
    stage.watch(book)
    with (stage.directory / "tmp").open("wb", buffering=0) as file:
        file.write(b"half")
        (stage.directory / "tmp").rename(stage.directory / "out.1")
        stage.turn_for(2 * HOLD_S)
        assert not book.done
        file.write(b"whole")
    stage.turn_until(lambda: book.done)
    assert not book.complaints


def test_closed_files_count_when_nobody_writes_them(stage: Stage) -> None:
    """Empty files and files that are open count when they are closed with something in them."""
    book = Book("1", "2", "3")
    stage.watch(book, CLOSED)
    (stage.directory / "out.2").touch()
    stage.put("out.3")
    with (stage.directory / "out.1").open("wb", buffering=0) as file:
        file.write(b"half")
        with (stage.directory / "out.1").open("ab"):
            pass  # its closing is not the last one
        stage.turn_for(2 * HOLD_S)
        assert set(book.done) == {"3"}
    stage.turn_until(lambda: "1" in book.done)
    assert book.in_hand == {"2"}


@pytest.mark.parametrize("killed", [True, False])
def test_a_killed_payload_has_not_closed_its_files(stage: Stage, killed: bool) -> None:
    """What was closed right before the end counts only if that was a good one."""
    book = Book("1")
    watch = stage.watch(book, CLOSED)
    (stage.directory / "out.1").write_bytes(b"half or whole")
    watch.finish(killed=killed)
    stage.turn_for(2 * HOLD_S if killed else 0.0)
    assert bool(book.done) is not killed


@pytest.mark.parametrize("ended", ["1", "2"])
def test_who_ends_takes_its_last_words_along(stage: Stage, ended: str) -> None:
    """A client that ended unasked may have been killed: its newest file does not count, also at
    the end, until another client makes it again."""
    book = Book("1")
    watch = stage.watch(book, CLOSED)
    (stage.directory / "out.1").write_bytes(b"half or whole")
    assert watch.doubt({ended}) > HOLD_S
    stage.turn_for(2 * HOLD_S)
    assert bool(book.done) is (ended == "2")
    watch.finish(killed=False)
    assert bool(book.done) is (ended == "2")
    (stage.directory / "out.1").write_bytes(b"whole")
    watch.finish(killed=False)
    assert book.done


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("rewritten_first", ["hits", "hist"])
def test_doubt_is_about_each_file(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, rewritten_first: str, watched: bool
) -> None:
    """A killed client's range counts when its successor has written every stream anew, not with
    one of the successor's and one of the dead client's."""
    monkeypatch.setattr(output_watch, "RESCAN_S", 0.05)
    if not watched:
        monkeypatch.setattr(output_watch, "DirectoryWatch", _refuse)
    book = Book("1", lfns=("hits", "hist"))
    watch = stage.watch(book, CLOSED)
    for lfn in ("hits", "hist"):
        (stage.directory / f"{lfn}.1").write_bytes(b"half or whole")
    watch.doubt({"1"})
    rewritten_last = {"hits": "hist", "hist": "hits"}[rewritten_first]
    (stage.directory / f"{rewritten_first}.1").write_bytes(b"whole")
    stage.turn_for(3 * HOLD_S)
    assert not book.done
    (stage.directory / f"{rewritten_last}.1").write_bytes(b"whole")
    stage.turn_until(lambda: book.done)
    assert book.done == {"1": (f"{stage.directory}/hits.1", f"{stage.directory}/hist.1")}


@pytest.mark.parametrize("mode", [RENAMED, CLOSED])
def test_all_streams_of_a_range(stage: Stage, mode: str) -> None:
    """A range with two outputs is done with the second one, and is told once."""
    book = Book("1", "2", lfns=("hits", "hist"))
    stage.watch(book, mode)
    stage.put("hits.1")
    stage.put("hist.2")
    stage.turn_for(0.1)
    assert not book.done
    stage.put("hist.1")
    stage.turn_until(lambda: book.done)
    assert book.done == {"1": (f"{stage.directory}/hits.1", f"{stage.directory}/hist.1")}


@pytest.mark.parametrize("mode", [RENAMED, CLOSED])
def test_a_flood_loses_no_output(stage: Stage, mode: str) -> None:
    """More events than the kernel keeps: the directory is scanned, and nothing is missing."""
    book = Book(*map(str, range(50)))
    stage.watch(book, mode)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    names = [stage.directory / f"flood-{n}" for n in range(2)]
    names[0].write_bytes(b"x")
    for n in range(min(limit, 100_000) + 10):
        names[n % 2].rename(names[1 - n % 2])
    for n in range(50):
        stage.put(f"out.{n}")
    stage.turn_until(lambda: not book.in_hand)
    stage.put("out.new")
    book.in_hand.add("new")
    stage.turn_until(lambda: not book.in_hand)


def test_the_flood_is_one(stage: Stage) -> None:
    """The test above overflows the queue of events: without the scan it would fail."""
    stage.directory.mkdir()
    watch = DirectoryWatch(stage.directory)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    names = [stage.directory / f"flood-{n}" for n in range(2)]
    names[0].write_bytes(b"x")
    for n in range(min(limit, 100_000) + 10):
        names[n % 2].rename(names[1 - n % 2])
    stage.put("out.1")
    seen = [watch.read() for _ in range(40)]
    watch.close()
    assert any(each.lost for each in seen) or limit > 100_000
    assert not any("out.1" in each.moved for each in seen) or limit > 100_000


def test_a_scan_believes_no_more_than_events(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a scan finds closed is held for a moment too: its writer may be dying."""
    monkeypatch.setattr(output_watch, "RESCAN_S", 0.02)
    monkeypatch.setattr(output_watch, "DirectoryWatch", _refuse)
    book = Book("1")
    watch = stage.watch(book, CLOSED)
    (stage.directory / "out.1").write_bytes(b"half")
    stage.turn_for(HOLD_S / 4)
    watch.doubt({"1"})
    stage.turn_for(2 * HOLD_S)
    assert not book.done


def _refuse(directory: Path) -> DirectoryWatch:
    raise LocalError("cannot watch: all of fs.inotify.max_user_instances are in use")


def test_without_inotify_the_directory_is_scanned(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On nodes where all watches are in use outputs are found all the same, only later."""
    monkeypatch.setattr(output_watch, "DirectoryWatch", _refuse)
    monkeypatch.setattr(output_watch, "RESCAN_S", 0.05)
    book = Book("1", "2")
    stage.watch(book)
    assert "once a second" in book.complaints[0] and "max_user_instances" in book.complaints[0]
    stage.put("out.1")
    stage.turn_until(lambda: "1" in book.done)
    stage.put("out.2")
    stage.turn_until(lambda: "2" in book.done)


def test_the_limit_of_instances_is_named(stage: Stage) -> None:
    """The kernel says `too many open files`; the message says which limit that is."""
    stage.directory.mkdir()
    watches: list[DirectoryWatch] = []
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if limit > 500:
        pytest.skip("SKIPPED LOUDLY: this machine allows too many inotify instances to use up")
    try:
        with pytest.raises(LocalError, match="max_user_instances"):
            for _ in range(limit + 1):
                watches.append(DirectoryWatch(stage.directory))
    finally:
        for watch in watches:
            watch.close()


def test_a_directory_that_goes_away_is_told(stage: Stage) -> None:
    """Nothing hangs or spins; what is in hand goes back at the payload's end."""
    book = Book("1")
    watch = stage.watch(book)
    stage.directory.rmdir()
    stage.turn_until(lambda: book.complaints)
    assert "moved or removed" in book.complaints[0]
    watch.finish(killed=False)
    assert book.in_hand == {"1"}


@pytest.mark.parametrize("mode", [RENAMED, CLOSED])
@pytest.mark.parametrize("after_a_flood", [False, True])
def test_a_directory_that_is_made_anew_is_looked_into(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, mode: str, after_a_flood: bool
) -> None:
    """A payload that clears its directory away and makes it again has its outputs found before its
    end, also when the pause after another scan is not over."""
    monkeypatch.setattr(output_watch, "RESCAN_S", 0.05)
    book = Book("1", "2")
    watch = stage.watch(book, mode)
    if after_a_flood:
        watch._scan_again()
    stage.directory.rmdir()
    stage.turn_until(lambda: book.complaints)
    for number in ("1", "2"):
        stage.directory.mkdir(exist_ok=True)
        stage.put(f"out.{number}")
        stage.turn_until(lambda number=number: number in book.done)
    assert len(book.complaints) == 1


def test_a_link_in_place_of_the_directory_is_not_followed(stage: Stage, tmp_path: Path) -> None:
    """Outputs are looked for in the directory that was agreed on."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "out.1").write_bytes(b"x")
    stage.directory.symlink_to(elsewhere)
    book = Book("1")
    stage.watch(book)
    assert book.complaints and not book.done


def test_looking_at_a_file_disturbs_nobody(tmp_path: Path) -> None:
    """While we look, others open, write and rename it; a link or fifo is not waited for."""
    path = tmp_path / "out"
    path.write_bytes(b"x")
    assert not is_being_written(str(path))
    with path.open("ab"):
        assert is_being_written(str(path))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(path)
    for name in ("fifo", "link", "missing"):
        assert not is_being_written(str(tmp_path / name))
    assert set(directory_watch.scan(tmp_path)) == {"out", "fifo", "link"}
    assert not list(directory_watch.scan(tmp_path / "missing"))
