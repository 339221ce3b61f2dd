"""The dispatcher's decisions on a real queue, both dialects: messages in, rows and replies out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queue_oracle import JOB, check_queue, make_range, make_ranges, number_of, range_id

from espilot.core.assignment import MAX_NO_MORE
from espilot.core.clients import Message, Reply
from espilot.errors import OutputError
from espilot.model import EventRange, Output, RangeState
from espilot.pipeline.dispatch import Dispatch
from espilot.queue.moves import Moves
from espilot.queue.store import Queue
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text
from espilot.wire.payload import Ack, Finished, NoMore, PeerError, Pong, Ranges, Welcome

MAP_BYTES = 4 << 20
A, B, C = b"\0aaaa", b"\0bbbb", b"\0cccc"
NAMED = b"worker\0"


class Taker:
    """Takes every output but those with `bad` in their path."""

    def inspect(self, path: str) -> Output:
        """The facts of a file that exists."""
        if "bad" in path:
            raise OutputError(f"output {path}: is empty")
        return Output(path, 1, 2, 3, 4)


class CountingQueue(Queue):
    """Counts the transactions."""

    transactions = 0

    def moves(self) -> Moves:
        """One more."""
        self.transactions += 1
        return super().moves()


def handle(
    dispatch: Dispatch, messages: Iterable[Message], now: float
) -> tuple[list[Reply], list[str]]:
    """Read and settle a batch; the replies that may be sent, and the complaints."""
    at_once = dispatch.read(messages)
    replies, garbage = dispatch.settle(now)
    return at_once + replies, garbage


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[CountingQueue]:
    """A queue with a running job."""
    queue = CountingQueue(tmp_path / "queue", map_bytes=MAP_BYTES)
    with queue.moves() as moves:
        moves.set_job(JOB, "running", {})
    queue.transactions = 0
    yield queue
    check_queue(queue)
    queue.close()


def dispatch_of(
    queue: Queue, *, max_held: int = 8, epoch: int = 1, most_ahead: int = 0
) -> Dispatch:
    """A dispatcher of one epoch."""
    return Dispatch(queue, Taker(), epoch=epoch, max_held=max_held, most_ahead=most_ahead)


def put(queue: Queue, *ranges: EventRange) -> None:
    """Ranges come from the server."""
    with queue.moves() as moves:
        moves.put_ranges(ranges, now=1.0)


def exhaust(queue: Queue) -> None:
    """The server has no more ranges."""
    with queue.moves() as moves:
        moves.set_phase("exhausted")


def say(
    dispatch: Dispatch, *messages: tuple[bytes, bytes], pids: dict[bytes, int] | None = None
) -> list[Reply]:
    """Hand in one batch; the replies."""
    batch = [(identity, message, (pids or {}).get(identity)) for identity, message in messages]
    return handle(dispatch, batch, 5.0)[0]


def ids_of(replies: list[Reply], identity: bytes) -> list[str]:
    """The ranges that a text client got."""
    return [
        text.parse_reply(message)["eventRangeID"]
        for to, message in replies
        if to == identity and message != text.NO_MORE
    ]


def finished(number: int, path: str = "/w/out") -> bytes:
    """A text client's report."""
    return text.finished((path,), range_id(number), 1.0, 2.0)


def heard(replies: list[Reply], identity: bytes = A) -> list[object]:
    """What a native client hears."""
    return [native.parse_pilot(message) for to, message in replies if to == identity]


# -- handing out ------------------------------------------------------------------------------


def test_text_request_gets_one_range(queue: CountingQueue) -> None:
    """A request gets exactly one range, which is sent before the reply may go out."""
    put(queue, *make_ranges(1, 3))
    dispatch = dispatch_of(queue)
    replies = say(dispatch, (A, text.READY))
    assert replies == [(A, text.range_reply(make_range(1)))]
    assert queue.ids(RangeState.SENT) == [range_id(1)]
    assert queue.ids(RangeState.READY) == [range_id(2), range_id(3)]
    assert (dispatch.tally.handed_out, dispatch.waiting) == (1, 0)


def test_native_request_gets_a_bunch(queue: CountingQueue) -> None:
    """A native client that asks for n gets up to n in one message."""
    put(queue, *make_ranges(1, 3))
    dispatch = dispatch_of(queue)
    replies = say(dispatch, (A, native.hello(11, 4, "x", "y")), (A, native.ready(5)))
    welcome, ranges = heard(replies)
    assert isinstance(welcome, Welcome)
    assert isinstance(ranges, Ranges)
    assert [r.id for r in ranges.ranges] == [range_id(n) for n in (1, 2, 3)]
    assert dispatch.waiting == 2


def test_one_transaction_per_batch(queue: CountingQueue) -> None:
    """Whatever arrives together, outcomes and requests of many clients, is one transaction."""
    put(queue, *make_ranges(1, 40))
    dispatch = dispatch_of(queue)
    clients = [b"\0%04d" % n for n in range(20)]
    queue.transactions = 0
    first = say(dispatch, *((c, text.READY) for c in clients))
    assert queue.transactions == 1
    held = {c: ids_of(first, c)[0] for c in clients}
    batch = []
    for client in clients:
        batch += [(client, finished(number_of(held[client]))), (client, text.READY)]
    second = say(dispatch, *batch)
    assert queue.transactions == 2
    assert len(second) == 20
    assert (queue.counts().done, queue.counts().sent) == (20, 20)


def test_nothing_to_settle_is_no_transaction(queue: CountingQueue) -> None:
    """Pings, garbage and waking up without a waiting client take no lock."""
    dispatch = dispatch_of(queue)
    replies = say(dispatch, (A, native.ping(7)), (A, native.progress(range_id(1), 3)))
    say(dispatch)
    assert heard(replies) == [Pong(7)]
    assert queue.transactions == 0


def test_waiting_is_served_later(queue: CountingQueue) -> None:
    """A request that cannot be served waits without a reply, and is served when ranges come."""
    dispatch = dispatch_of(queue)
    assert say(dispatch, (A, text.READY), (B, text.READY)) == []
    assert dispatch.waiting == 2
    put(queue, make_range(1))
    assert ids_of(say(dispatch), A) == [range_id(1)]
    put(queue, make_range(2))
    assert ids_of(say(dispatch), B) == [range_id(2)]
    assert dispatch.waiting == 0


def test_clients_take_turns(queue: CountingQueue) -> None:
    """A client that asks for much does not starve one that asks for little."""
    put(queue, *make_ranges(1, 4))
    dispatch = dispatch_of(queue)
    replies = say(dispatch, *[(A, text.READY)] * 10, (B, text.READY), (C, text.READY))
    assert Counter(to for to, _ in replies) == {A: 2, B: 1, C: 1}
    put(queue, make_range(5))
    assert ids_of(say(dispatch, (B, text.READY)), A) == [range_id(5)]
    put(queue, make_range(6))
    assert ids_of(say(dispatch, (C, text.READY)), B) == [range_id(6)], "A was served last"


def test_max_held(queue: CountingQueue) -> None:
    """A flood of requests never puts more than the limit into one client's hands."""
    put(queue, *make_ranges(1, 50))
    dispatch = dispatch_of(queue, max_held=3)
    replies = say(dispatch, *[(A, text.READY)] * 20)
    assert len(replies) == 3
    assert (dispatch.waiting, queue.counts().sent) == (17, 3)
    assert len(say(dispatch, (A, finished(1)))) == 1
    assert queue.counts().sent == 3
    assert len(say(dispatch, (A, text.process_error(range_id(2), "x")))) == 1


def test_somebody_else_may_report(queue: CountingQueue) -> None:
    """Who reports does not matter: the range leaves the hand of whoever held it."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue, max_held=1)
    say(dispatch, (A, text.READY), (A, text.READY))
    assert len(ids_of(say(dispatch, (B, finished(1))), A)) == 1
    assert queue.counts().done == 1


# -- outcomes ---------------------------------------------------------------------------------


def test_finished_is_recorded_with_its_facts(queue: CountingQueue) -> None:
    """An output is in the queue with what is known of it; a native client hears `ack` after."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, native.ready(2)))
    done = native.done(range_id(1), ["/w/a", "/w/b"], cpu_s=1.5, wall_s=2.5, events=1)
    assert heard(say(dispatch, (A, done))) == [Ack(range_id(1))]
    (row,), _ = queue.done()
    assert [o.path for o in row.outputs] == ["/w/a", "/w/b"]
    assert (row.events, row.cpu_s, row.wall_s, row.done_at) == (1, 1.5, 2.5, 5.0)


def test_more_events_than_the_range_has(queue: CountingQueue) -> None:
    """A payload cannot claim more events than its range has."""
    put(queue, make_range(1))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, native.ready(1)))
    say(dispatch, (A, native.done(range_id(1), ["/w/a"], cpu_s=1, wall_s=1, events=2**31)))
    assert queue.done()[0][0].events == 2


def test_first_outcome_wins(queue: CountingQueue) -> None:
    """A second outcome, the same or another, in the same batch or later, changes nothing."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, text.READY), (A, text.READY))
    error = text.process_error(range_id(1), "too late")
    say(dispatch, (A, finished(1, "/w/first")), (A, finished(1, "/w/second")), (B, error))
    say(dispatch, (A, text.process_error(range_id(2), "first")), (A, finished(2)))
    assert [r.outputs[0].path for r in queue.done()[0]] == ["/w/first"]
    assert [f.id for f in queue.failures()] == [range_id(2)]
    assert dispatch.tally.ignored == 3


@pytest.mark.parametrize("an_id", ["never-heard-of", range_id(2), "x" * 250, "ü" * 250])
def test_outcome_of_a_range_that_is_not_sent(queue: CountingQueue, an_id: str) -> None:
    """Unknown, unsent and absurd ids are counted, complained about, and harm nothing."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, text.READY), (B, native.ready(1)))
    with queue.moves() as moves:
        moves.return_ranges([range_id(2)], epoch=1)
    before = check_queue(queue)
    batch = [(A, text.finished(("/w/out",), an_id, 1, 1), None)]
    _, complaints = handle(dispatch, batch, 5.0)
    assert len(complaints) == 1 and len(complaints[0]) < 300
    (answer,) = heard(say(dispatch, (B, native.done(an_id, ["/w/o"], cpu_s=1, wall_s=1))), B)
    assert isinstance(answer, PeerError)
    assert dispatch.tally.ignored == 2
    assert check_queue(queue) == before


def test_outcome_of_another_epoch(queue: CountingQueue) -> None:
    """What an older payload reports does not end a range that a newer one holds."""
    put(queue, make_range(1))
    old, new = dispatch_of(queue, epoch=1), dispatch_of(queue, epoch=2)
    say(old, (A, text.READY))
    with queue.moves() as moves:
        moves.return_sent(before=2)
    say(new, (A, text.READY))
    say(old, (A, finished(1)))
    assert (queue.counts().sent, queue.counts().done) == (1, 0)
    say(new, (A, finished(1)))
    assert queue.counts().done == 1


@pytest.mark.parametrize("dialect", ["text", "native"])
def test_bad_output_fails_the_range(queue: CountingQueue, dialect: str) -> None:
    """An output that cannot be taken fails its range with the reason, and only it."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue)
    if dialect == "text":
        say(dispatch, (A, text.READY), (A, text.READY))
        outcome = text.finished(("/w/good", "/w/bad"), range_id(1), 1, 1)
    else:
        say(dispatch, (A, native.ready(2)))
        outcome = native.done(range_id(1), ["/w/good", "/w/bad"], cpu_s=1, wall_s=1)
    say(dispatch, (A, outcome))
    (failure,) = queue.failures()
    assert (failure.id, failure.fatal) == (range_id(1), False)
    assert "is empty" in failure.diag
    assert queue.counts().sent == 1


def calls_of_an_outcome(directory: Path, n: int) -> int:
    """How many functions are called for one outcome and the next range, `n` in hand."""
    queue = Queue(directory, map_bytes=64 << 20)
    try:
        with queue.moves() as moves:
            moves.put_ranges(make_ranges(1, n + 20), now=0.0)
            moves.set_job(JOB, "running", {})
        dispatch = Dispatch(queue, Taker(), epoch=1, max_held=n + 1)
        handle(dispatch, [(NAMED, native.hello(7, n, "x", "y"), 7)], 1.0)
        handle(dispatch, [(NAMED, native.ready(n), 7)], 1.0)
        assert queue.counts().sent == n
        calls = 0

        def count(frame: FrameType, event: str, argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        last = native.done(range_id(n), ["/w/out"])
        sys.setprofile(count)
        try:
            handle(dispatch, [(NAMED, last, 7), (NAMED, native.ready(1), 7)], 2.0)
        finally:
            sys.setprofile(None)
        assert queue.counts().done == 1 and queue.counts().sent == n
        return calls
    finally:
        queue.close()


def test_lesson_41_an_outcome_is_found_at_once(tmp_path: Path) -> None:
    """With thousands of ranges in hand an outcome takes no more steps than with ten."""
    few, many = calls_of_an_outcome(tmp_path / "a", 10), calls_of_an_outcome(tmp_path / "b", 5000)
    assert many <= few + 5


def test_failures_keep_their_kind(queue: CountingQueue) -> None:
    """Failed and fatal outcomes of both dialects end as such."""
    put(queue, *make_ranges(1, 4))
    dispatch = dispatch_of(queue)
    say(dispatch, *[(A, text.READY)] * 2, (B, native.ready(2)))
    held = queue.owners()
    mine = sorted(i for i, owner in held.items() if owner.startswith(A.hex()))
    others = sorted(set(held) - set(mine))
    say(
        dispatch,
        (A, text.process_error(mine[0], "Seek failed")),
        (A, b"ERR_TE_FATAL " + mine[1].encode() + b": no such guid"),
        (B, native.failed(others[0], 1305, "broke")),
        (B, native.failed(others[1], 99, "never", fatal=True)),
    )
    fates = {f.id: f.fatal for f in queue.failures()}
    assert fates == {mine[0]: False, mine[1]: True, others[0]: False, others[1]: True}


def test_parse_error_names_the_range(queue: CountingQueue) -> None:
    """A range that a payload could not understand fails; its id is dug out of the text."""
    put(queue, make_range(1))
    dispatch = dispatch_of(queue)
    ((_, reply),) = say(dispatch, (A, text.READY))
    say(dispatch, (A, text.parse_error(reply, "odd")))
    assert [f.id for f in queue.failures()] == [range_id(1)]


# -- garbage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", [b"", b"hello?", b"\xff\xfe", b"x" * 100_000, b"\n", b"\0\0", b"/a,ID:"]
)
def test_text_garbage(queue: CountingQueue, message: bytes) -> None:
    """Bytes that mean nothing are counted and described shortly; others are served on."""
    put(queue, make_range(1))
    dispatch = dispatch_of(queue)
    _, complaints = handle(dispatch, [(A, message, None), (B, text.READY, None)], 5.0)
    assert all(len(c) < 300 and c.isprintable() for c in complaints)
    assert dispatch.tally.garbage + dispatch.tally.ignored == 1
    assert queue.counts().sent == 1


@pytest.mark.parametrize("message", [b"\x81", b"\x80", b"\x81\x90\x01", b"\x81\xa1t\xa3huh"])
def test_native_garbage_is_answered(queue: CountingQueue, message: bytes) -> None:
    """A native client that cannot be understood hears `error`."""
    (answer,) = heard(say(dispatch_of(queue), (A, message)))
    assert isinstance(answer, PeerError)


@pytest.mark.parametrize(
    ("fields", "about"),
    [
        ({"t": "hello", "v": 2, "pid": 1}, "hello"),
        ({"t": "hello", "slots": 2**40}, "hello"),
        ({"t": "ready", "n": 0}, "ready"),
        ({"t": "ready", "n": "many"}, "ready"),
        ({"t": "progress", "id": range_id(1), "event": -1}, "progress"),
        ({"t": "done", "outputs": ["/w/o"]}, "done"),
        ({"t": "failed", "id": "\n"}, "failed"),
        ({"t": "dance\n" * 50}, "dance " * 12 + "dance..."),
        ({"t": ""}, "message"),
        ({"t": 7}, "message"),
        ({"v": 1}, "message"),
    ],
)
def test_a_refused_message_is_named(
    queue: CountingQueue, fields: dict[str, object], about: str
) -> None:
    """`error` says which message could not be used: a client that waits for the answer to its
    `hello` or `ready` must know that none will come. Ranges in hand stay there."""
    put(queue, make_range(1))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, native.ready(1)))
    (answer,) = heard(say(dispatch, (A, msgpack.packb(fields))))
    assert isinstance(answer, PeerError)
    assert (answer.about, dispatch.tally.garbage) == (about, 1)
    assert len(answer.about) <= 80 and answer.diag
    assert queue.counts().sent == 1


@pytest.mark.parametrize("kind", ["done", "failed"])
def test_a_refused_report_fails_its_range(queue: CountingQueue, kind: str) -> None:
    """An outcome that cannot be used is the last word about its range: it fails with the reason
    and leaves its client's hand; the client hears of the error, and no `ack`."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue, max_held=1)
    say(dispatch, (A, native.ready(2)))
    bad = {"t": kind, "id": range_id(1), "outputs": "/w/out", "code": -1}
    answer, ranges = heard(say(dispatch, (A, msgpack.packb(bad))))
    assert isinstance(answer, PeerError) and answer.about == range_id(1)
    assert isinstance(ranges, Ranges) and ranges.ranges[0].id == range_id(2)
    (failure,) = queue.failures()
    assert (failure.id, failure.fatal, failure.code) == (range_id(1), False, 1220)
    assert "cannot be used" in failure.diag and len(failure.diag) <= 500
    assert queue.ids(RangeState.SENT) == [range_id(2)]


def test_a_refused_report_of_a_range_that_is_not_sent(queue: CountingQueue) -> None:
    """It changes nothing."""
    put(queue, make_range(1))
    dispatch = dispatch_of(queue)
    bad = msgpack.packb({"t": "done", "id": range_id(1), "outputs": []})
    (answer,) = heard(say(dispatch, (A, bad)))
    assert isinstance(answer, PeerError) and answer.about == range_id(1)
    assert (queue.counts().ready, dispatch.tally.ignored) == (1, 1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([A, B, NAMED]), st.binary(max_size=60)), max_size=6))
def test_any_bytes(batch: list[tuple[bytes, bytes]]) -> None:
    """No bytes of a payload make an error or a transaction."""

    class NoQueue:
        def moves(self) -> None:
            raise AssertionError("garbage reached the queue")

    dispatch = Dispatch(NoQueue(), Taker(), epoch=1, max_held=2)  # type: ignore[arg-type]
    dispatch.mode = "outcomes"
    handle(dispatch, [(i, m, None) for i, m in batch if b"ID:" not in m], 5.0)


# -- ranges that cannot be written ------------------------------------------------------------


def test_unwritable_range_fails_with_its_reason(queue: CountingQueue) -> None:
    """A range with a comma in a value is failed, not sent; who asked gets the next one."""
    put(queue, make_range(1)._replace(lfn="a,b"), make_range(2))
    dispatch = dispatch_of(queue)
    assert ids_of(say(dispatch, (A, text.READY)), A) == [range_id(2)]
    (failure,) = queue.failures()
    assert failure.id == range_id(1)
    assert "LFN" in failure.diag
    assert dispatch.waiting == 0


def test_a_native_client_can_take_it(queue: CountingQueue) -> None:
    """What the text dialect cannot carry goes to a native client."""
    put(queue, make_range(1)._replace(lfn="a,b"))
    (ranges,) = heard(say(dispatch_of(queue), (A, native.ready(1))))
    assert isinstance(ranges, Ranges)
    assert ranges.ranges[0].lfn == "a,b"


def test_thousands_of_unwritable_ranges(queue: CountingQueue) -> None:
    """A task of nothing but unwritable ranges fails range by range, not by a full stack."""
    put(queue, *(r._replace(scope='"') for r in make_ranges(1, 1500)))
    exhaust(queue)
    replies = say(dispatch_of(queue), (A, text.READY))
    assert replies == [(A, text.NO_MORE)]
    assert queue.counts().failed == 1500


# -- modes and the end ------------------------------------------------------------------------


def test_no_more_only_when_exhausted_and_empty(queue: CountingQueue) -> None:
    """*No more* needs both: the server has none, and none is ready."""
    put(queue, make_range(1))
    dispatch = dispatch_of(queue)
    assert ids_of(say(dispatch, (A, text.READY)), A) == [range_id(1)]
    assert say(dispatch, (B, text.READY)) == [], "the server may have more"
    put(queue, make_range(2))
    exhaust(queue)
    assert ids_of(say(dispatch), B) == [range_id(2)], "a ready range goes first"
    assert say(dispatch, (C, native.ready(3)), (A, text.READY)) == [
        (C, native.no_more("done")),
        (A, text.NO_MORE),
    ]
    assert dispatch.waiting == 0


def test_outcomes_after_no_more(queue: CountingQueue) -> None:
    """Reports of ranges still in work count after *no more*; a range that came back is served."""
    put(queue, *make_ranges(1, 2))
    exhaust(queue)
    dispatch = dispatch_of(queue)
    replies = say(dispatch, *[(A, text.READY)] * 3)
    assert replies[-1] == (A, text.NO_MORE)
    say(dispatch, (A, finished(1)))
    assert queue.counts().done == 1
    with queue.moves() as moves:
        moves.return_ranges([range_id(2)], epoch=1)
    assert ids_of(say(dispatch, (B, text.READY)), B) == [range_id(2)]


def test_at_the_limit_is_not_the_end(queue: CountingQueue) -> None:
    """A client that holds its limit waits, although the server is exhausted and ranges are left."""
    put(queue, *make_ranges(1, 2))
    exhaust(queue)
    dispatch = dispatch_of(queue, max_held=1)
    assert len(say(dispatch, (A, text.READY), (A, text.READY))) == 1
    assert dispatch.waiting == 1
    assert ids_of(say(dispatch, (A, finished(1))), A) == [range_id(2)]


@pytest.mark.parametrize("mode", ["outcomes", "settle"])
def test_modes_that_answer_no_request(queue: CountingQueue, mode: str) -> None:
    """In these modes outcomes count and requests wait, also when the server is exhausted."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, text.READY))
    exhaust(queue)
    dispatch.mode = mode
    assert say(dispatch, (A, finished(1)), (A, text.READY)) == []
    assert (queue.counts().done, queue.counts().ready, dispatch.waiting) == (1, 1, 1)
    dispatch.mode = "serve"
    assert ids_of(say(dispatch), A) == [range_id(2)]


def test_mode_no_more(queue: CountingQueue) -> None:
    """A drain answers every request with *no more* and its reason; what is ready stays."""
    put(queue, *make_ranges(1, 3))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, text.READY))
    dispatch.mode, dispatch.reason = "no-more", "drain"
    replies = say(dispatch, (A, finished(1)), (A, text.READY), (B, native.ready(2)))
    assert replies == [(A, text.NO_MORE), (B, native.no_more("drain"))]
    assert (queue.counts().done, queue.counts().ready) == (1, 2)


def test_flood_of_requests_at_the_end(queue: CountingQueue) -> None:
    """A flood of requests is not answered with a flood."""
    exhaust(queue)
    replies = say(dispatch_of(queue), *[(A, text.READY)] * 5000)
    assert replies == [(A, text.NO_MORE)] * MAX_NO_MORE


# -- clients that go --------------------------------------------------------------------------


def test_died(queue: CountingQueue) -> None:
    """What a dead process held is ready again, whatever connections it had; others keep theirs."""
    put(queue, *make_ranges(1, 4))
    dispatch = dispatch_of(queue)
    pids = {A: 100, B: 100, C: 200}
    say(dispatch, (A, text.READY), (B, text.READY), (C, text.READY), (A, text.READY), pids=pids)
    say(dispatch, (A, finished(1)), (B, text.READY))
    kept = [i for i, owner in queue.owners().items() if owner.endswith(":200")]
    assert len(dispatch.died(100, 1.0)) == 2
    assert queue.ids(RangeState.SENT) == kept
    assert (dispatch.clients, dispatch.waiting) == (1, 0)
    assert dispatch.died(100, 1.0) == []
    assert dispatch.died(999, 1.0) == []


def test_undeliverable(queue: CountingQueue) -> None:
    """A reply that does not go out takes all its client holds back; another client gets it."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue)
    replies = say(dispatch, (A, text.READY), (A, text.READY))
    assert dispatch.undeliverable(replies) == 2
    assert queue.ids(RangeState.SENT) == []
    assert len(ids_of(say(dispatch, (B, text.READY), (B, text.READY)), B)) == 2
    assert dispatch.undeliverable([(b"\0gone", b"x")]) == 0


def test_a_name_is_taken_over(queue: CountingQueue) -> None:
    """A restarted client under its old name starts with empty hands: its predecessor's ranges and
    requests are not its own."""
    put(queue, make_range(1))
    dispatch = dispatch_of(queue)
    say(dispatch, (NAMED, text.READY), (NAMED, text.READY), pids={NAMED: 100})
    assert dispatch.waiting == 1
    replies = say(dispatch, (NAMED, text.READY), pids={NAMED: 200})
    assert ids_of(replies, NAMED) == [range_id(1)]
    assert dispatch.waiting == 0
    assert queue.owners() == {range_id(1): f"{NAMED.hex()}:200"}
    assert dispatch.died(100, 1.0) == []
    assert dispatch.died(200, 1.0) == [range_id(1)]


def test_last_words_of_a_replaced_client(queue: CountingQueue) -> None:
    """A report counts although its sender's name was taken over in the same batch."""
    put(queue, make_range(1))
    dispatch = dispatch_of(queue)
    say(dispatch, (NAMED, text.READY), pids={NAMED: 100})
    batch = [(NAMED, finished(1), 100), (NAMED, text.READY, 200)]
    assert handle(dispatch, batch, 5.0)[0] == []
    assert (queue.counts().done, queue.counts().ready) == (1, 0)


# -- suspects ---------------------------------------------------------------------------------


def test_suspects_come_last_and_alone(queue: CountingQueue) -> None:
    """What was in hand at a crash is handed out after all others, one at a time."""
    put(queue, *make_ranges(1, 3))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, text.READY), (B, text.READY), pids={A: 100, B: 200})
    assert dispatch.died(100, 1.0) == [range_id(1)]
    assert dispatch.died(200, 1.0) == [range_id(2)]
    other = say(dispatch, (C, text.READY), pids={C: 300})
    assert ids_of(other, C) == [range_id(3)]
    assert say(dispatch, (C, text.READY), (A, text.READY)) == [], "a suspect beside another range"
    first = say(dispatch, (C, finished(3)))
    assert ids_of(first, C) == [range_id(1)]
    put(queue, make_range(4))
    assert say(dispatch, (B, text.READY)) == [], "another range beside a suspect"
    rest = say(dispatch, (C, finished(1)))
    assert ids_of(rest, A) + ids_of(rest, B) == [range_id(4)]
    assert say(dispatch, (C, text.READY)) == []
    done = say(dispatch, (A, finished(4)))
    assert [i for c in (A, B, C) for i in ids_of(done, c)] == [range_id(2)]


def test_second_crash_alone(queue: CountingQueue) -> None:
    """The range that was alone in hand at a second crash fails; the innocent one is processed."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, text.READY), (B, text.READY), pids={A: 100, B: 200})
    dispatch.died(100, 1.0)
    dispatch.died(200, 1.0)
    guilty = ids_of(say(dispatch, (C, text.READY), pids={C: 300}), C)
    assert dispatch.died(300, 2.0) == guilty == [range_id(1)]
    (failure,) = queue.failures()
    assert (failure.id, failure.fatal, failure.code) == (range_id(1), False, 1227)
    assert "2 times" in failure.diag
    innocent = say(dispatch, (A, text.READY), pids={A: 400})
    assert ids_of(innocent, A) == [range_id(2)]
    say(dispatch, (A, finished(2)))
    assert queue.counts().done == 1


def test_commanded_end_makes_no_suspects(queue: CountingQueue) -> None:
    """Who was told to end did not crash: its range is handed out again like any other."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, text.READY), pids={A: 100})
    dispatch.mode = "outcomes"
    dispatch.died(100, 1.0)
    dispatch.mode = "serve"
    both = say(dispatch, (B, text.READY), (C, text.READY))
    assert {*ids_of(both, B), *ids_of(both, C)} == {range_id(1), range_id(2)}


def test_crashed_epoch(queue: CountingQueue) -> None:
    """The crash of a payload whose clients have no process of their own makes suspects as well;
    what was only taken ahead is innocent."""
    put(queue, *make_ranges(1, 3))
    dispatch = dispatch_of(queue, most_ahead=4)
    say(dispatch, (A, text.READY))
    assert sorted(dispatch.settle_epoch(1.0, crashed=True)) == [range_id(1), range_id(2)]
    order = [each.id for each in queue.ready()]
    assert order == [range_id(3), range_id(2), range_id(1)]


# -- ranges taken ahead -----------------------------------------------------------------------


def test_answer_from_ahead(queue: CountingQueue) -> None:
    """A range taken ahead is committed as sent before it is asked for; its request needs no
    transaction."""
    put(queue, *make_ranges(1, 3))
    dispatch = dispatch_of(queue, most_ahead=4)
    say(dispatch, (A, text.READY))
    assert queue.counts().sent == 2
    before = queue.transactions
    assert ids_of(dispatch.read([(B, text.READY, None)]), B) == [range_id(2)]
    assert queue.transactions == before
    assert not dispatch.urgent


def test_release_ahead(queue: CountingQueue) -> None:
    """When nothing is handed out, what was taken ahead is ready again, and no suspect."""
    put(queue, *make_ranges(1, 3))
    dispatch = dispatch_of(queue, most_ahead=4)
    say(dispatch, (A, text.READY))
    dispatch.release_ahead()
    assert (queue.counts().sent, queue.counts().ready) == (1, 2)
    assert [each.id for each in queue.ready()] == [range_id(3), range_id(2)]


def test_unwritable_ahead(queue: CountingQueue) -> None:
    """A client whose range cannot be written gets one of those taken ahead, not *no more*."""
    bad = make_range(2)._replace(lfn="a,b")
    put(queue, make_range(1), bad, make_range(3))
    exhaust(queue)
    dispatch = dispatch_of(queue, most_ahead=4)
    handle(dispatch, [(A, text.READY, None)], 1.0)
    handle(dispatch, [(A, finished(1), None)], 1.001)
    assert queue.counts().sent == 2
    replies, _ = handle(dispatch, [(B, text.READY, None)], 1.002)
    assert ids_of(replies, B) == [range_id(3)]
    assert queue.counts().failed == 1


def unwritable_ahead(queue: CountingQueue) -> tuple[Dispatch, list[Reply]]:
    """A dispatcher that has just read B's two requests, the first of them answered by a range that
    cannot be written; and the replies so far."""
    bad = make_range(2)._replace(lfn="a,b")
    put(queue, make_range(1), bad, make_range(3), make_range(4))
    dispatch = dispatch_of(queue, most_ahead=4)
    handle(dispatch, [(A, text.READY, None)], 1.0)
    handle(dispatch, [(A, finished(1), None)], 1.001)
    replies = dispatch.read([(NAMED, text.READY, 100), (NAMED, text.READY, None)])
    assert ids_of(replies, NAMED) == [range_id(3)]
    return dispatch, replies


@pytest.mark.parametrize("how", ["undeliverable", "died", "taken over"])
@pytest.mark.parametrize("phase", ["running", "exhausted"])
def test_unwritable_range_of_a_client_that_is_gone(
    queue: CountingQueue, how: str, phase: str
) -> None:
    """Its client is gone before the commit: the range fails with its reason, is not ready again,
    and nobody is asked for."""
    dispatch, replies = unwritable_ahead(queue)
    if phase == "exhausted":
        exhaust(queue)
    if how == "undeliverable":
        assert dispatch.undeliverable(replies) == 1
    elif how == "died":
        assert dispatch.died(100, 1.0) == [range_id(3)]
    else:
        dispatch.read([(NAMED, text.finished(("/w/o",), "unknown", 1, 1), 200)])
    dispatch.settle(1.002)
    (failure,) = queue.failures()
    assert failure.id == range_id(2) and "LFN" in failure.diag
    assert dispatch.waiting == 0
    dispatch.release_ahead()
    assert {range_id(3), range_id(4)} == {each.id for each in queue.ready()}


@pytest.mark.parametrize("mode", ["no-more", "outcomes"])
def test_no_other_range_in_place_of_an_unwritable_one(queue: CountingQueue, mode: str) -> None:
    """When meanwhile nothing is handed out any more, who got an unwritable range gets no other."""
    dispatch, _ = unwritable_ahead(queue)
    dispatch.mode = mode
    dispatch.release_ahead()
    replies, _ = dispatch.settle(1.002)
    assert replies == ([(NAMED, text.NO_MORE)] if mode == "no-more" else [])
    assert [each.id for each in queue.failures()] == [range_id(2)]


def test_a_request_of_a_client_that_is_gone(queue: CountingQueue) -> None:
    """A request that was read late, after its client's name was taken over, asks for nothing."""
    put(queue, make_range(1))
    dispatch = dispatch_of(queue)
    batch = [(NAMED, text.READY + b"\n", 100), (NAMED, finished(9), 200)]
    assert handle(dispatch, batch, 1.0)[0] == []
    assert (dispatch.waiting, queue.counts().ready) == (0, 1)


def test_settle_epoch(queue: CountingQueue) -> None:
    """At the end of an epoch all that is still sent in it is ready again."""
    put(queue, *make_ranges(1, 3))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, text.READY), (B, native.ready(2)), (A, text.READY))
    assert sorted(dispatch.settle_epoch(1.0)) == [range_id(n) for n in (1, 2, 3)]
    assert (dispatch.clients, dispatch.waiting) == (0, 0)
    say(dispatch, (A, finished(1)))
    assert queue.counts().ready == 3


# -- all together -----------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ready"), st.sampled_from([A, B, C]), st.integers(1, 4)),
        st.tuples(st.just("done"), st.sampled_from([A, B, C]), st.integers(1, 12)),
        st.tuples(st.just("bad"), st.sampled_from([A, B, C]), st.integers(1, 12)),
        st.tuples(st.just("fail"), st.sampled_from([A, B, C]), st.integers(1, 12)),
        st.tuples(st.just("die"), st.sampled_from([A, B, C]), st.integers(1, 1)),
        st.tuples(st.just("lose"), st.sampled_from([A, B, C]), st.integers(1, 1)),
    ),
    max_size=25,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_any_course(queue: CountingQueue, steps: list[tuple[str, bytes, int]]) -> None:
    """Whatever clients do, each range is in one state, no client holds more than its limit, and
    nothing that is done is handed out again."""
    with queue.moves() as moves:
        for state in (RangeState.READY, RangeState.SENT, RangeState.DONE, RangeState.FAILED):
            moves.give_back(state)
        moves.put_ranges(make_ranges(1, 12), now=1.0)
    dispatch = dispatch_of(queue, max_held=3)
    pids = {A: 1, B: 2, C: 3}
    ended: set[str] = set()
    for kind, client, n in steps:
        if kind == "die":
            dispatch.died(pids[client], 1.0)
        elif kind == "lose":
            dispatch.undeliverable([(client, b"")])
        else:
            message = {
                "ready": native.ready(n),
                "done": native.done(range_id(n), ["/w/o"], cpu_s=1, wall_s=1),
                "bad": native.done(range_id(n), ["/w/bad"], cpu_s=1, wall_s=1),
                "fail": native.failed(range_id(n), 1, "x"),
            }[kind]
            for said in heard(say(dispatch, (client, message), pids=pids), client):
                if isinstance(said, Ranges):
                    assert not ended & {r.id for r in said.ranges}
                if isinstance(said, Ack):
                    assert said.id not in ended
                    ended.add(said.id)
                assert not isinstance(said, NoMore)
        check_queue(queue)
        assert max(Counter(queue.owners().values()).values(), default=0) <= 3
    counts = queue.counts()
    assert counts.done + counts.failed == len(ended)
    assert counts.live == 12


def test_found_outputs_count_as_a_report(queue: CountingQueue) -> None:
    """A range whose outputs are there is done, its holder hears so and has room for another."""
    put(queue, *make_ranges(1, 3))
    dispatch = dispatch_of(queue, max_held=1)
    (welcome, _) = say(dispatch, (A, native.hello(7, 1, "x", "y")), (A, native.ready(2)))
    assert isinstance(native.parse_pilot(welcome[1]), Welcome)
    dispatch.find(Finished(range_id(1), ("/w/out",), None, None))
    replies, garbage = dispatch.settle(6.0)
    assert queue.state(range_id(1)) is RangeState.DONE
    said = [native.parse_pilot(message) for to, message in replies if to == A]
    assert said[0] == Ack(range_id(1)) and isinstance(said[1], Ranges) and not garbage


def test_found_outputs_that_cannot_be_taken_fail_their_range(queue: CountingQueue) -> None:
    """What is there may be a link or empty; a range that nobody holds any more is no matter."""
    put(queue, *make_ranges(1, 2))
    dispatch = dispatch_of(queue)
    say(dispatch, (A, text.READY))
    dispatch.find(Finished(range_id(1), ("/w/bad",), None, None))
    assert dispatch.settle(6.0) == ([], [])
    assert queue.state(range_id(1)) is RangeState.FAILED
    dispatch.find(Finished(range_id(2), ("/w/out",), None, None))
    dispatch.settle(6.0)
    assert queue.state(range_id(2)) is RangeState.READY
