"""The dispatcher: owns the payload channel, hands out ranges, takes outcomes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Set
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from espilot.adapters.channel import PayloadChannel, Sending
from espilot.adapters.exit_status import ended_well
from espilot.adapters.loop import Loop, Timer
from espilot.adapters.outputs import OutputInspector
from espilot.adapters.process import pidfd_open
from espilot.adapters.story import Story
from espilot.config import Settings
from espilot.core.clients import Client, Reply
from espilot.errors import LocalError
from espilot.logs import Log
from espilot.model import RangeState
from espilot.pipeline.dispatch import Dispatch
from espilot.queue.store import Queue
from espilot.wire import payload_native
from espilot.wire.messages import Bound, Serve, Settled
from espilot.wire.payload import Finished
from espilot.wire.record import Opening
from espilot.workers.child import Child
from espilot.workers.context import Context
from espilot.workers.hang_watch import HangWatch
from espilot.workers.output_watch import OutputWatch
from espilot.workers.recording import FLUSH_S, RecordedChannel, Recorder

BATCH = 512
"""Messages settled in one transaction; more would keep the first client waiting."""
BATCHES = 16
"""Batches read before an end is judged."""
MOST_AHEAD = 128
"""Ranges that are committed as sent before they are asked for."""
SETTLE_S = 0.005
"""Longest time that outcomes, and requests that were answered, wait for their transaction."""
SILENCE_S = 0.1
"""The channel of a reaped payload counts as drained after so long without a message."""
DEATH_DELAY_S = 0.02
"""From a client's death to its ranges being ready: its last messages may still be on their way."""
MAX_COMPLAINTS = 100
"""Bad messages logged per epoch; the others are only counted."""


class Host(Protocol):
    """What a dispatcher needs of the process that it is in."""

    context: Context
    settings: Settings
    queue: Queue
    loop: Loop
    log: Log
    story: Story
    facts: dict[str, Any]

    def send(self, message: Any) -> None:
        """Tell whoever keeps the payload: `Bound`, `Settled`, `Overdue`."""
        ...

    def ring(self, role: str) -> None:
        """There is something to do for another role."""
        ...


class Station:
    """One epoch of the payload: its channel and the decisions about it."""

    def __init__(self, child: Host, serve: Serve) -> None:
        self.child = child
        self.epoch = serve.epoch
        self.settled: Settled | None = None
        self.crashed = self.killed = self._closed = False
        context, settings = child.context, child.settings
        inspector = OutputInspector(
            context.workdir, context.private, settings.payload.output_limit_bytes
        )
        self.dispatch = Dispatch(
            child.queue,
            inspector,
            epoch=serve.epoch,
            max_held=settings.payload.max_held,
            most_ahead=MOST_AHEAD,
        )
        self.dispatch.welcome = self._welcome
        self.dispatch.tell = child.story.tell
        self.channel = open_channel(child, serve)
        self._hang_watch = HangWatch(settings.payload, self.dispatch, child.send)
        self._pidfds: dict[int, int] = {}
        self._unwatched: set[int] = set()
        self._complaints = 0
        self._settling: Timer | None = None
        self._ended = self._handed_out = 0
        self._last_message = time.monotonic()
        with child.queue.moves() as moves:
            moves.set_epoch(serve.epoch)
            # Whoever held ranges before this start is dead, also in an earlier run.
            back = moves.return_sent(before=serve.epoch)
        if back:
            child.story.tell("returned", back, epoch=serve.epoch, why="who held it is dead")
        child.loop.on_readable(self.channel.socket, self.receive)
        self._outputs: OutputWatch | None = None
        if settings.payload.outputs != "reported":
            directory = context.payload_dir(serve.epoch)
            self._outputs = OutputWatch(directory, settings.payload.outputs, child.loop, self)

    def receive(self) -> None:
        """Take what waits on the channel, a batch at most, and answer it."""
        self._receive_batch()

    def _receive_batch(self) -> int:
        incoming = self.channel.receive(BATCH)
        if not incoming:
            return 0
        self._last_message = time.monotonic()
        for _, _, pid, extra_frames in incoming:
            if pid is not None:
                self._watch(pid)
            if extra_frames:
                self.complain("message with extra frames")
        self._send(self.dispatch.read(incoming))
        # At once behind the replies: an output is to be looked at as it was when it was reported.
        self.dispatch.read_reports()
        if self.dispatch.urgent:
            self._settle()
        elif self._settling is None:
            # Nobody waits for the commit: it is made for all that comes in a moment.
            self._settling = self.child.loop.call_later(SETTLE_S, self._settle)
        return len(incoming)

    def _receive_all(self) -> None:
        """Take everything that waits now; of who speaks without end, a bounded part."""
        for _ in range(BATCHES):
            if self._receive_batch() < BATCH:
                return

    def found(self, outcomes: list[Finished]) -> None:
        """Ranges whose outputs are there without a report."""
        self._last_message = time.monotonic()
        for outcome in outcomes:
            self.dispatch.find(outcome)
        self._settle()

    def is_in_hand(self, range_id: str) -> bool:
        """Whether a range is sent."""
        return self.child.queue.state(range_id) is RangeState.SENT

    def output_lfns(self) -> tuple[str, ...]:
        """The outputs of the job."""
        record = self.child.queue.job()
        return () if record is None else record.job.output_lfns

    def look(self) -> None:
        """Something changed in the queue: serve who waits."""
        if self.settled is None:
            self._settle()
            self._hang_watch.look(time.monotonic(), self._read_pending)
            self._tell_facts()

    def _read_pending(self) -> None:
        self._receive_all()
        self._settle()

    def drain(self) -> None:
        """The payload is reaped: when the channel is silent, its sent ranges become ready."""
        if self._closed:
            return
        self._receive_all()
        if self._outputs is not None and self.settled is None:
            self._outputs.finish(killed=self.killed)
        self._settle()
        if time.monotonic() - self._last_message < SILENCE_S:
            self.child.loop.call_later(SILENCE_S, self.drain)
            return
        if self.settled is None:
            returned = self.dispatch.settle_epoch(time.time(), crashed=self.crashed)
            ready = self.child.queue.counts().ready
            self.settled = Settled(self.epoch, len(returned), ready)
            self.child.log.info("settle", "channel drained", epoch=self.epoch, ready=ready,
                                returned=len(returned))  # fmt: skip
        self.child.send(self.settled)

    def close(self) -> None:
        """Close the channel and forget its clients; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._cancel_settling()
        self.child.loop.forget(self.channel.socket)
        for pid in list(self._pidfds):
            self._unwatch(pid)
        if self._outputs is not None:
            self._outputs.close()
        self.channel.close()

    def _cancel_settling(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None

    def _settle(self) -> None:
        self._cancel_settling()
        replies, complaints = self.dispatch.settle(time.time())
        self._send(replies)
        for complaint in complaints:
            self.complain(complaint)
        tally = self.dispatch.tally
        ended = tally.outcomes + tally.failures
        if ended > self._ended:
            self.child.ring("stageout")
        if tally.handed_out > self._handed_out or self.dispatch.waiting:
            self.child.ring("event-server")
        self._ended, self._handed_out = ended, tally.handed_out

    def _send(self, replies: list[Reply]) -> None:
        lost = [r for r in replies if self.channel.send(*r) is not Sending.SENT]
        if lost:
            self._look_for_outputs()
            if self._outputs is not None:
                gone = {identity for identity, _ in lost}
                self._outputs.doubt(self._hands_of(lambda client: client.identity in gone))
            returned = self.dispatch.undeliverable(lost)
            self.child.log.info("send", "clients are gone", replies=len(lost), returned=returned)

    def _watch(self, pid: int) -> None:
        if pid in self._pidfds:
            return
        try:
            pidfd = pidfd_open(pid)
        except LocalError as error:
            # Its ranges come back when the payload has ended.
            self._complain_once(pid, str(error))
            return
        if pidfd is None:
            self.child.loop.call_later(DEATH_DELAY_S, partial(self._client_died, pid))
            return
        self._pidfds[pid] = pidfd
        self.child.log.info("client", "client connected", pid=pid, epoch=self.epoch)
        self.child.loop.on_readable(pidfd, partial(self._client_ended, pid))

    def _client_ended(self, pid: int) -> None:
        wait_s, undecided = 0.0, set[str]()
        if self._outputs is not None:
            well = ended_well(pid, self._pidfds[pid])
            wait_s, undecided = self._judge_files(self._outputs, pid, well)
        self._unwatch(pid)
        self.child.loop.call_later(
            DEATH_DELAY_S + wait_s, partial(self._client_died, pid, undecided)
        )

    def _judge_files(
        self, outputs: OutputWatch, pid: int, well: bool | None
    ) -> tuple[float, set[str]]:
        """How long to wait for what an ended client has made; the ranges that only the payload's
        end decides."""
        asked_to_end = self._hands_of(lambda client: client.pid == pid and client.refused)
        hands = self._hands_of(lambda client: client.pid == pid)
        if well is None:
            return outputs.doubt(hands - asked_to_end), outputs.await_end(asked_to_end)
        wait_s = outputs.doubt(hands - asked_to_end if well else hands)
        return max(wait_s, outputs.expect(asked_to_end)), set()

    def _hands_of(self, concerned: Callable[[Client], bool]) -> set[str]:
        hands = [ids for client, ids in self.dispatch.hands() if concerned(client)]
        return {range_id for ids in hands for range_id in ids}

    def _client_died(self, pid: int, undecided: Set[str] = frozenset()) -> None:
        if self._closed or self.settled is not None:
            return
        self._receive_all()
        self._look_for_outputs()
        self._settle()
        back = self.dispatch.died(pid, time.time(), undecided)
        self.child.log.info("client", "client ended", pid=pid, returned=len(back))
        if back:
            self._settle()

    def _look_for_outputs(self) -> None:
        """Before ranges are taken back: what is there counts."""
        if self._outputs is not None:
            self._outputs.read()

    def _unwatch(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid)
        self.child.loop.forget(pidfd)
        os.close(pidfd)

    def _complain_once(self, pid: int, text: str) -> None:
        if pid not in self._unwatched:
            self._unwatched.add(pid)
            self.complain(text, "client is not watched")

    def complain(self, text: str, what: str = "unusable message") -> None:
        """Log what is unusable, a bounded number of times."""
        self._complaints += 1
        if self._complaints <= MAX_COMPLAINTS:
            self.child.log.warning("message", what, error=text)

    def _tell_facts(self) -> None:
        tally = self.dispatch.tally
        self.child.facts = {
            "epoch": self.epoch,
            "clients": self.dispatch.clients,
            "waiting": self.dispatch.waiting,
            "messages": tally.messages,
            "garbage": tally.garbage,
            "ignored": tally.ignored,
            "last_message_mono": self._last_message,
            "ahead": len(self.dispatch.ahead.ranges),
            **self._hang_watch.facts,
        }

    def _welcome(self) -> bytes:
        record = self.child.queue.job()
        job = {} if record is None else {
            "PandaID": record.job.panda_id,
            "taskID": record.job.task_id,
            "parameters": str(record.job.definition.get("jobPars", "")),
            "outputs": list(record.job.output_lfns),
        }  # fmt: skip
        directory = str(self.child.context.payload_dir(self.epoch))
        return payload_native.welcome(job, directory, {}, 60.0)


def open_channel(child: Host, serve: Serve) -> PayloadChannel:
    """The channel of an epoch, with a recorder beside it where the settings say so."""
    config = child.settings.payload
    if not config.record:
        return PayloadChannel(serve.channel)

    def complain(text: str) -> None:
        child.log.warning("message", "recording has trouble", error=text)

    directory = str(child.context.payload_dir(serve.epoch))
    opening = Opening(serve.epoch, serve.channel, directory, time.time())
    recorder = Recorder(Path(config.record), config.record_limit_bytes, complain)
    child.loop.every(FLUSH_S, recorder.flush)
    return RecordedChannel(opening, recorder)


class Dispatcher:
    """Follows the supervisor's directives: one station at a time."""

    def __init__(self, child: Host) -> None:
        self.child = child
        self.station: Station | None = None

    def serve(self, serve: Serve) -> None:
        """Bring the station into the wanted state."""
        if self.station is None or self.station.epoch != serve.epoch:
            self.close()
            self.station = Station(self.child, serve)
            self.child.log.info("bind", "channel open", epoch=serve.epoch, name=serve.channel)
            self.child.send(Bound(serve.epoch))
        self.station.dispatch.mode = serve.mode
        self.station.dispatch.reason = serve.reason or "done"
        if serve.mode != "serve":
            self.station.dispatch.release_ahead()
        if serve.mode == "settle":
            self.station.crashed = serve.reason == "crash"
            self.station.killed = bool(serve.reason)
            self.station.drain()
        else:
            self.station.look()

    def look(self) -> None:
        """Serve who waits."""
        if self.station is not None:
            self.station.look()

    def close(self) -> None:
        """Close the channel, if one is open."""
        if self.station is not None:
            self.station.close()
            self.station = None


def serve(child: Child) -> None:
    """Be the dispatcher."""
    dispatcher = Dispatcher(child)
    child.on(Serve, dispatcher.serve)
    child.on_bell(dispatcher.look)
    child.run()
    dispatcher.close()
