"""The queue's keys and rows as bytes: what goes in comes out, and order is the order of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_oracle import JOB, make_archive, make_outputs, make_range

from espilot.errors import QueueError
from espilot.model import Archive, ArchiveState, EventRange, Output, RangeState
from espilot.queue import records as rec

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
U64 = st.integers(0, 2**64 - 1)


def test_every_state_has_a_code() -> None:
    """Codes are distinct, none is 0 (the counters' key), and they fit the counters."""
    assert set(rec.CODES) == set(RangeState)
    assert sorted(rec.STATES) == list(range(1, 8))
    assert set(rec.ARCHIVE_CODES) == set(ArchiveState)


@given(a=st.tuples(st.integers(1, 7), U64), b=st.tuples(st.integers(1, 7), U64))
def test_keys_sort_as_numbers(a: tuple[int, int], b: tuple[int, int]) -> None:
    """The index walks a state from its oldest range to its newest, and states do not mix."""
    assert (rec.pack_key(*a) < rec.pack_key(*b)) == (a < b)
    assert rec.pack_key(*a) > rec.COUNTS_KEY


@given(st.lists(U64, min_size=16, max_size=16))
def test_counters(counts: list[int]) -> None:
    """Counters survive; a queue without any starts at zero, and not with a shared list."""
    assert rec.unpack_counts(rec.pack_counts(counts)) == counts
    fresh = rec.unpack_counts(None)
    fresh[rec.MOVES] += 1
    assert rec.unpack_counts(None) == [0] * 16


@given(
    st.builds(
        EventRange,
        id=TEXT,
        start_event=st.integers(0, 2**60),
        last_event=st.integers(0, 2**60),
        lfn=TEXT,
        guid=TEXT,
        scope=TEXT,
        pfn=TEXT,
    )
)
def test_ranges(event_range: EventRange) -> None:
    """A range survives with all its fields."""
    assert rec.read_range(event_range.id, rec.pack_range(event_range)) == event_range


@given(st.lists(st.builds(Output, TEXT, U64, U64, U64, st.integers(-(2**62), 2**62)), max_size=4))
def test_outputs(outputs: list[Output]) -> None:
    """A done row holds its outputs, events and times."""
    row = [rec.DONE, 9, b"", "a", 1, 4.5, (rec.pack_outputs(tuple(outputs)), 3, None, 2.5)]
    done = rec.read_done("id", rec.unpack_row(rec.pack_row(row)))
    assert done.outputs == tuple(outputs)
    assert (done.id, done.events, done.cpu_s, done.wall_s, done.done_at) == (
        "id",
        3,
        None,
        2.5,
        4.5,
    )
    assert done.size_bytes == sum(o.size_bytes for o in outputs)


@pytest.mark.parametrize("code", [rec.FAILED, rec.FATAL])
def test_failures(code: int) -> None:
    """A failed row knows whether it is fatal."""
    failure = rec.read_failed("id", [code, 1, b"", "a", 1, 1.0, (1305, "it broke")])
    assert (failure.fatal, failure.code, failure.diag) == (code == rec.FATAL, 1305, "it broke")


@given(st.sampled_from(ArchiveState), st.none() | st.integers(0, 2**40), st.lists(TEXT))
def test_archives(state: ArchiveState, storage_id: int | None, ids: list[str]) -> None:
    """An archive survives with its state and the order of its members."""
    archive = Archive("name", tuple(ids), 10**12, "0a0b0c0d", 5, state, storage_id)
    assert rec.read_archive("name", rec.pack_archive(archive)) == archive


def test_job() -> None:
    """A job survives with its facts; its lists are tuples again."""
    job, facts = rec.read_job(rec.pack_job(JOB, {"before": {"ready": 1}}))
    assert job == JOB
    assert facts == {"before": {"ready": 1}}


@pytest.mark.parametrize("range_id", ["", "x" * 401, "ü" * 201, "\ud800"])
def test_ids_that_are_no_keys(range_id: str) -> None:
    """An id that LMDB cannot take is refused in one short line."""
    with pytest.raises(QueueError, match="cannot be a key") as caught:
        rec.id_bytes(range_id)
    assert len(str(caught.value)) < 200


def test_longest_id() -> None:
    """400 bytes are a key."""
    assert len(rec.id_bytes("x" * 400)) == 400


def test_rows_of_the_oracle_are_valid() -> None:
    """What the other tests put in is what the records describe."""
    assert make_range(3).events == 2
    assert make_outputs(3)[0].size_bytes == 103
    assert make_archive("a", [1, 2]).ids == (make_range(1).id, make_range(2).id)
