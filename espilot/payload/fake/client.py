"""One client of the fake payload: asks, writes, reports, and errs as it was told."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import deque

import zmq
from zmq.utils.monitor import recv_monitor_message

from espilot.errors import MessageError
from espilot.payload.fake import faults
from espilot.payload.fake.content import header
from espilot.payload.fake.counts import Counts
from espilot.payload.fake.options import Options
from espilot.payload.fake.speech import NativeSpeech, Speech, TextSpeech, Work
from espilot.wire import payload_text as text

FLUSH_MS = 30_000
FLOOD_REQUESTS = 10_000
RECONNECT_MS = 3_000
CHANGE_DELAY_MS = 100
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_ID_START = b'[{"eventRangeID": "'


def run_client(options: Options, index: int) -> Counts:
    """Be one client until its end; only an orderly end returns. Call it in a process of its own."""
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if index == 0:
        faults.start_others(options)
    faults.pass_time(options.start_ms)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    if options.name:
        own = options.name if options.clients == 1 else f"{options.name}-{index}"
        socket.identity = own.encode() + b"\0"
    socket.linger = FLUSH_MS
    socket.connect(options.address)
    counts = Counts()
    if options.is_plain:
        run_plain(socket, options, counts)
    else:
        FaultyClient(socket, options, counts, index).run()
    counts.ended_s = time.monotonic()
    faults.pass_time(options.exit_delay_ms)
    socket.close()
    context.term()
    return counts


def run_plain(socket: zmq.Socket[bytes], options: Options, counts: Counts) -> None:
    """Process ranges as fast as possible: this loop measures the pilot, so it does nothing else."""
    send, recv, clock = socket.send, socket.recv, time.perf_counter_ns
    base, size = f"{options.outdir}/{options.prefix}.", options.outsize
    filler = memoryview(b"." * size)
    latencies, asked = counts.latencies_ns, deque[int]()
    failed = 0
    for _ in range(options.outstanding):
        asked.append(clock())
        send(text.READY)
    while True:
        reply = recv()
        latencies.append(clock() - asked.popleft())
        if reply == text.NO_MORE:
            break
        range_id = _understood_id(reply)
        if range_id:
            path = base + range_id
            write_output(path, header(range_id), filler)
            send(f"{path},ID:{range_id},CPU:0.001,WALL:0.001".encode())
        else:
            failed += 1
            send(text.parse_error(reply, "Wrong format"))
        asked.append(clock())
        send(text.READY)
    counts.no_more = 1
    counts.replies = len(latencies)
    counts.requests = counts.replies + len(asked)
    counts.failed = failed
    counts.ranges = counts.replies - 1
    counts.bytes = (counts.ranges - failed) * size


def _understood_id(reply: bytes) -> str:
    """Return the id of a range in the usual form at once, else by hand; empty if unusable."""
    if reply.startswith(_ID_START) and reply.endswith(b"}]"):
        return reply[len(_ID_START) : reply.index(b'"', len(_ID_START))].decode()
    try:
        return text.parse_reply(reply)["eventRangeID"]
    except MessageError:
        return ""


def write_output(path: str, head: bytes, filler: memoryview) -> None:
    """Write one output: the head, then filler up to the filler's length in all."""
    size = len(filler)
    fd = os.open(path, _FLAGS, 0o644)
    try:
        if len(head) >= size:
            os.write(fd, head[:size])
        elif (written := os.writev(fd, (head, filler[: size - len(head)]))) != size:
            _write_rest(fd, filler, size - written)
    finally:
        os.close(fd)


def _write_rest(fd: int, filler: memoryview, left: int) -> None:
    while left:
        left -= os.write(fd, filler[:left])


class FaultyClient:
    """A client that takes its time, holds several requests, and errs."""

    def __init__(
        self, socket: zmq.Socket[bytes], options: Options, counts: Counts, index: int
    ) -> None:
        self._socket = socket
        self._options = options
        self._counts = counts
        self._speech: Speech = (
            TextSpeech(socket) if options.dialect == "text" else NativeSpeech(socket, counts)
        )
        self._random = random.Random(index)
        self._filler = memoryview(b"." * options.outsize)
        self._asked: deque[int] = deque()
        self._first = index == 0
        self._eaten: list[bytearray] = []

    def run(self) -> None:
        """Work until there is no more, the limit is reached or a fault ends it."""
        self._speech.greet(self._options.outstanding)
        if self._options.no_request:
            faults.hang()
        self._ask_first()
        while self._asked:
            works = self._speech.receive()
            if works is None:
                self._note_replies(1)
                self._counts.no_more += 1
                return
            self._note_replies(len(works))
            for work in works:
                self._process(work)
                if self._counts.ranges == self._options.exit_early:
                    self._counts.faults["exit-early"] += 1
                    return
                self._ask(1)

    def _ask_first(self) -> None:
        if self._options.exit_early == 0:
            return
        if not self._options.flood_ready:
            self._ask(self._options.outstanding)
            return
        self._counts.faults["flood-ready"] += 1
        for _ in range(FLOOD_REQUESTS):
            self._ask(1)

    def _ask(self, n: int) -> None:
        if self._options.max_ranges is not None:
            n = min(n, self._options.max_ranges - self._counts.requests)
        if n > 0:
            self._asked.extend([time.perf_counter_ns()] * n)
            self._counts.requests += n
            self._speech.ask(n)

    def _note_replies(self, n: int) -> None:
        now_ns = time.perf_counter_ns()
        self._counts.replies += n
        for _ in range(min(n, len(self._asked))):
            self._counts.latencies_ns.append(now_ns - self._asked.popleft())

    def _process(self, work: Work) -> None:
        options = self._options
        if self._counts.ranges == options.hang_after:
            faults.hang()
        if self._counts.ranges == options.crash_after:
            faults.crash(options.crash_how)
        started_s = time.monotonic()
        faults.pass_time(options.delay_ms + self._random.random() * options.jitter_ms)
        self._counts.ranges += 1
        if self._due("garbage"):
            messages = self._speech.garbage
            self._socket.send(messages[(self._counts.faults["garbage"] - 1) % len(messages)])
        self._answer(work, started_s)
        if self._counts.ranges == 1 and self._first:
            self._eaten = faults.eat(options)

    def _answer(self, work: Work, started_s: float) -> None:
        if not work.id or self._due("parse-error"):
            self._counts.failed += 1
            self._speech.misunderstood(work, "Wrong format")
        elif self._due("fail"):
            self._counts.failed += 1
            self._speech.failed(work, "Failed to process event range")
        else:
            self._report(work, started_s)
        if self._due("oversize"):
            self._cut_connection()

    def _due(self, fault: str) -> bool:
        every = self._options.every.get(fault)
        if every is None or self._counts.ranges % every:
            return False
        self._counts.faults[fault] += 1
        return True

    def _report(self, work: Work, started_s: float) -> None:
        paths = self._make_outputs(work)
        if self._due("path-outside"):
            paths[0] = self._outside_path(work)
        wall_s = time.monotonic() - started_s
        self._speech.finished(work, paths, wall_s)
        if self._due("report-twice"):
            self._speech.finished(work, paths, wall_s)
        if self._due("report-unknown"):
            self._speech.finished(Work(faults.UNKNOWN_ID, b""), paths, wall_s)
        if self._due("change-after-report"):
            # The report shall have arrived, else there is nothing that changes after it.
            faults.pass_time(CHANGE_DELAY_MS)
            fd = os.open(paths[0], os.O_WRONLY | os.O_APPEND)
            os.write(fd, b"changed")
            os.close(fd)

    def _make_outputs(self, work: Work) -> list[str]:
        names = [self._options.prefix]
        names += [f"{self._options.prefix}{n}" for n in range(2, self._options.nfiles + 1)]
        paths = [f"{self._options.outdir}/{name}.{work.id}" for name in names]
        if self._due("missing-file"):
            return paths
        filler = self._filler[:0] if self._due("empty-file") else self._filler
        for path in paths:
            write_output(path, header(work.id), filler)
        self._counts.bytes += len(paths) * len(filler)
        return paths

    def _outside_path(self, work: Work) -> str:
        outdir, target = self._options.outdir, faults.OUTSIDE_FILE
        way = self._counts.faults["path-outside"] % 3
        if way == 1:
            return target
        if way == 2:
            return outdir + "/.." * outdir.count("/") + target
        link = f"{outdir}/outside.{work.id}"
        os.symlink(target, link)
        return link

    def _cut_connection(self) -> None:
        """Send too much and wait until we are connected anew; requests in flight are made again."""
        events = zmq.Event.DISCONNECTED | zmq.Event.HANDSHAKE_SUCCEEDED
        monitor = self._socket.get_monitor_socket(events)
        self._socket.send(bytes(faults.OVERSIZE_BYTES))
        was_cut = False
        while monitor.poll(RECONNECT_MS):
            event = recv_monitor_message(monitor)["event"]
            if was_cut and event == zmq.Event.HANDSHAKE_SUCCEEDED:
                break
            was_cut = was_cut or event == zmq.Event.DISCONNECTED
        self._socket.disable_monitor()
        if was_cut and self._asked:
            lost = len(self._asked)
            self._asked.clear()
            self._ask(lost)
