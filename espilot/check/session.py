"""One case in the world: a channel, a start of the payload, and the clock.

It goes through phases: *serving* (ranges are handed out until all who ask have heard that there
are no more), *closing* (we have sent SIGTERM), *drained* (its tree has ended, the last messages
are read). Nothing here waits: all is called back by the one loop.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from espilot.adapters.channel import PayloadChannel
from espilot.adapters.loop import Loop, Timer
from espilot.adapters.process import pidfd_open
from espilot.adapters.proctree import descendants, look_up
from espilot.check.cases import Case, Ending, odd_ranges, plain_ranges
from espilot.check.judgement import (
    PING_SEQ,
    judge_dialect,
    judge_exit,
    judge_outputs,
    judge_resources,
    judge_silence,
)
from espilot.check.ledger import Ledger, Peer
from espilot.check.places import Looker
from espilot.check.replies import Replies
from espilot.check.wishes import Result, Wishes
from espilot.config import Settings
from espilot.errors import LocalError
from espilot.supervisor.payload import PayloadProcess
from espilot.wire import payload_native as native
from espilot.wire.payload import Hello
from espilot.workers.context import Context

LARGEST_MESSAGE_BYTES = 64 * 2**20
"""Larger than the pilot's limit, so that a message over that can be told by its size."""
TICK_S = 0.2
SILENCE_S = 0.1
CLOSED_S = 0.5
"""From the closing of the channel to SIGTERM."""
DEATH_DELAY_S = 0.05
BUSY_SHARE = 0.1
BUSY_FACTOR = 5
"""A silent payload that uses CPU time, or waits for a CPU that others have, is waited for so many
times longer: on a busy machine a start takes long."""
BATCH = 64


class Session:
    """One case from its start to its result; `done` is called once."""

    def __init__(
        self,
        case: Case,
        wishes: Wishes,
        directory: Path,
        *,
        loop: Loop,
        death_fd: int,
    ) -> None:
        self.case = case
        self.result = Result(case)
        self.ended = False
        self._wishes = wishes
        self._loop = loop
        self._context = _make_context(directory, wishes.settings())
        self._payload_dir = self._context.payload_dir(1)
        self._findings = self.result.findings
        looker = Looker(self._context.workdir)
        self._ledger = Ledger(self._findings, looker.look, tolerant=case.tolerant)
        make = odd_ranges if case.odd else plain_ranges
        self._replies = Replies(
            case, self._ledger, self._findings, ranges=make(wishes.inputs), send=self._send
        )
        self._pidfds: dict[int, int] = {}
        self._memory: dict[tuple[int, int], int] | None = None
        self._growth_bytes = 0
        self._pinged = False
        self._tick_timer: Timer | None = None
        name = f"EventService_EventRanges-{uuid.uuid4().hex}"
        self._channel: PayloadChannel | None = PayloadChannel(
            name, max_message_bytes=LARGEST_MESSAGE_BYTES
        )
        self._started = self._first_request = self._last_heard = time.monotonic()
        self._term_at: float | None = None
        self._cpu_s = self._wanted_s = 0.0
        try:
            self._payload = PayloadProcess(self._context, epoch=1, channel=name, death_fd=death_fd)
        except BaseException:
            self._close_channel()
            raise
        loop.on_readable(self._channel.socket, self._receive)
        self._tick_timer = loop.call_later(TICK_S, self._tick)

    @property
    def pid(self) -> int:
        """The launcher's process."""
        return self._payload.child.pid

    @property
    def pidfd(self) -> int:
        """Readable when the launcher has ended."""
        return self._payload.child.pidfd

    # -- the channel ----------------------------------------------------------------------------

    def _receive(self) -> None:
        """Take what waits, a batch at most."""
        self._receive_batch()

    def _receive_batch(self) -> int:
        incoming = [] if self._channel is None else self._channel.receive(BATCH)
        for identity, message, pid, extra_frames in incoming:
            if pid is not None:
                self._watch(pid)
            if extra_frames:
                self._findings.add("extra-frames", f"{2 + extra_frames} frames instead of 2")
            before = self._ledger.requests, self._ledger.outcomes
            peer, said = self._ledger.hear(identity, message, pid)
            if isinstance(said, Hello):
                self._send(peer.identity, self._welcome())
            self._follow(peer, *before)
        if incoming:
            self._last_heard = time.monotonic()
        return len(incoming)

    def _follow(self, peer: Peer, requests: int, outcomes: int) -> None:
        """React to a request or an outcome, given the counts before it."""
        asked = self._ledger.requests > requests
        if asked and not requests:
            self._first_request = time.monotonic()
        if self._ledger.outcomes > outcomes:
            self._measure_memory()
            # There is room in a hand, or nothing is in hand any more: others may be served now.
            for other in list(self._ledger.peers.values()):
                if other.asked:
                    self._reply(other)
        elif asked:
            self._reply(peer)

    def _reply(self, peer: Peer) -> None:
        delay_s = self.case.reply_s if self._ledger.handed_out else self.case.first_reply_s
        if not delay_s:
            self._answer(peer)
            return
        if self.case.ping and peer.native and not self._pinged:
            self._pinged = True
            self._send(peer.identity, native.ping(PING_SEQ))
        self._loop.call_later(delay_s, partial(self._answer, peer))

    def _welcome(self) -> bytes:
        job = {"PandaID": 110, "taskID": 90, "parameters": "", "outputs": ["output"]}
        inputs = {each.lfn: each.pfn for each in self._wishes.inputs if each.pfn}
        return native.welcome(job, str(self._payload_dir), inputs, 60.0)

    def _send(self, identity: bytes, message: bytes) -> None:
        if self._channel is not None:
            self._channel.send(identity, message)

    def _answer(self, peer: Peer) -> None:
        self._replies.answer(peer, time.monotonic() - self._first_request)
        if self._replies.interrupts:
            self._end_from_outside()

    def _end_from_outside(self) -> None:
        """The case's own end: SIGTERM, maybe with the channel closed before."""
        if self._replies.over:
            return
        self._replies.over = True
        if self.case.ending is Ending.CLOSE:
            self._close_channel()
            self._loop.call_later(CLOSED_S, self._terminate)
        else:
            self._terminate()

    def _terminate(self) -> None:
        self._replies.over = True
        if self._term_at is None and not self.ended:
            self._term_at = time.monotonic()
            self._payload.terminate(self._term_at)

    def _close_channel(self) -> None:
        """Close our end; harmless when repeated."""
        if self._channel is not None:
            self._loop.forget(self._channel.socket)
            self._channel.close()
            self._channel = None

    # -- clients --------------------------------------------------------------------------------

    def _watch(self, pid: int) -> None:
        if pid in self._pidfds:
            return
        try:
            pidfd = pidfd_open(pid)
        except LocalError:
            # What it holds is lost at the end of the case.
            return
        if pidfd is None:
            self._loop.call_later(DEATH_DELAY_S, partial(self._client_died, pid))
            return
        self._pidfds[pid] = pidfd
        self._loop.on_readable(pidfd, partial(self._client_ended, pid))

    def _client_ended(self, pid: int) -> None:
        self._unwatch(pid)
        self._loop.call_later(DEATH_DELAY_S, partial(self._client_died, pid))

    def _client_died(self, pid: int) -> None:
        """Take its last words, then what it held is lost."""
        if self.ended or self._replies.over:
            return
        while self._receive_batch() == BATCH:
            continue
        self._ledger.left(pid)

    def _unwatch(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid)
        self._loop.forget(pidfd)
        os.close(pidfd)

    # -- the clock ------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self.ended:
            return
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)
        now = time.monotonic()
        if self._memory is not None:
            self._measure_memory()
        if self._payload.kill_at is not None and now > self._payload.kill_at:
            self._payload.kill()
        silent_s = now - self._last_heard
        used = self._payload.sample()
        if silent_s < TICK_S:
            self._cpu_s, self._wanted_s = used.cpu_s, 0.0
        self._wanted_s += TICK_S if used.wanting else 0.0
        if (
            not self._replies.over
            and silent_s > self._wishes.timeout_s
            and not self._busy(silent_s, used.cpu_s)
        ):
            judge_silence(self.result, self._wishes, self._ledger, self._payload)
            self._terminate()

    def _busy(self, silent_s: float, cpu_s: float) -> bool:
        """Whether it uses CPU time or waits for a CPU, for a bounded while."""
        active_s = max(cpu_s - self._cpu_s, self._wanted_s)
        return active_s > BUSY_SHARE * silent_s and silent_s < BUSY_FACTOR * self._wishes.timeout_s

    def _measure_memory(self) -> None:
        """How much each process that was there at the first outcome has grown since."""
        if self._memory is None:
            self._memory = {p.identity: p.rss_bytes for p in descendants(self.pid)}
        for identity, size_bytes in self._memory.items():
            now = look_up(identity[0])
            if now is not None and now.identity == identity:
                self._growth_bytes = max(self._growth_bytes, now.rss_bytes - size_bytes)

    # -- the end --------------------------------------------------------------------------------

    def reaped(self, launcher_code: int, done: Callable[[Session], None]) -> None:
        """The launcher has ended and the payload's tree with it; read on until it is silent."""
        if self._receive_batch():
            self._last_heard = time.monotonic()
        if self._channel is not None and time.monotonic() - self._last_heard < SILENCE_S:
            again = partial(self.reaped, launcher_code, done)
            self._loop.call_later(SILENCE_S, again)
            return
        self._judge_end(launcher_code)
        self.close()
        done(self)

    def _judge_end(self, launcher_code: int) -> None:
        ledger, result = self._ledger, self.result
        result.wall_s = time.monotonic() - self._started
        if not self._replies.over:
            ledger.close()
        took_s = None if self._term_at is None else time.monotonic() - self._term_at
        judge_exit(result, self._wishes, ledger, self._payload, (launcher_code, took_s))
        judge_outputs(result, ledger)
        judge_resources(result, self._wishes, ledger, self._payload, self._growth_bytes)
        judge_dialect(result, self._wishes, ledger, pinged=self._pinged)
        result.ranges, result.messages = ledger.handed_out, ledger.messages
        result.finished, result.failed = ledger.finished, ledger.failed

    def close(self) -> None:
        """Give back everything; what still runs is killed."""
        if self.ended:
            return
        self.ended = True
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        for pid in list(self._pidfds):
            self._unwatch(pid)
        self._close_channel()
        self._payload.kill()
        self._payload.sweep()
        self._payload.child.close()


def _make_context(directory: Path, settings: Settings) -> Context:
    """The directories of a pilot with one start of its payload."""
    context = Context(
        workdir=directory,
        state=directory / "state",
        runtime=directory / "runtime",
        storage="",
        settings=settings,
        jobdir=Path.cwd(),
    )
    for path in (context.state, context.runtime, context.logs):
        path.mkdir(parents=True)
    return context
