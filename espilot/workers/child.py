"""What all workers have in common: control link, doorbells, death pipe, queue, beat.

A worker ends when its supervisor does (parent-death signal and death pipe), re-reads the queue each
second, because a doorbell may be lost, and says *alive* from the same loop: each second while the
queue moves, less often at rest.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from espilot.adapters.control import ControlLink, Doorbells
from espilot.adapters.journal import JournalHandler
from espilot.adapters.loop import Loop
from espilot.adapters.process import guard_against_orphanhood
from espilot.adapters.story import NAME as STORY_NAME
from espilot.adapters.story import Story
from espilot.errors import MessageError
from espilot.logs import open_log
from espilot.queue.store import Queue
from espilot.wire import envelope
from espilot.wire.messages import Alive, Bell, Hello, Stop
from espilot.workers.context import Context

BEAT_S = 1.0
TELL_S = 2.5
"""A role to which nothing happens says so seldom: at rest the pilot shall take nothing."""
NOT_FOR_WORKERS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU,
    signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
"""Meant for the supervisor, though batch systems send them to every process of a job; a worker
ends by message or by KILL."""
FLUSH_S = 0.2
"""So long the story of a move may wait to be written."""
RING_GAP_S, PACKING_GAP_S = 0.01, 0.05
"""Shortest time between two rings of one bell: a busy role need not be told each time, least of all
the stage-out worker, which waits for whole archives."""

M = TypeVar("M")


class Child:
    """This worker process. Roles register what they do on messages, bells and beats."""

    def __init__(self, role: str, context: Context, *, parent_pid: int, death_fd: int) -> None:
        guard_against_orphanhood(parent_pid, death_fd)
        for number in NOT_FOR_WORKERS:
            signal.signal(number, signal.SIG_IGN)
        self.role = role
        self.context = context
        self.settings = context.settings
        journal = JournalHandler(context.journal) if context.journal else None
        self.log = open_log(role, context.log_file, also=journal)
        self._lock = hold_shared(context)
        self.queue = Queue(context.queue)
        self.loop = Loop()
        self.story = Story(context.state / STORY_NAME, role, due=self._flush_soon)
        self.facts: dict[str, Any] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {}
        self._number = 0
        self._told_moves, self._tell_at = -1, 0.0
        # A watchdog is fed with each sign of life of all.
        watched = "WATCHDOG_USEC" in os.environ
        self._tell_every_s = 0.0 if watched else min(TELL_S, self.settings.limits.silent_s / 6)
        self._rung: dict[str, float] = {}
        self._link = ControlLink(context.runtime, role)
        self._bells = Doorbells(context.runtime, role)
        self._on_bell: Callable[[], None] = lambda: None
        self.loop.on_readable(self._link.socket, self._receive)
        self.loop.on_readable(self._bells.socket, self._answer_bell)
        self.loop.on_readable(death_fd, self.loop.stop)
        self.on(Stop, lambda stop: self.loop.stop())

    def on(self, kind: type[M], handler: Callable[[M], None]) -> None:
        """Handle a kind of control message."""
        self._handlers[kind] = handler

    def on_bell(self, handler: Callable[[], None]) -> None:
        """Look into the queue: at a doorbell, and at each beat."""
        self._on_bell = handler

    def send(self, message: Any) -> None:
        """Tell the supervisor."""
        self._number += 1
        self._link.send(envelope.encode(message, self._number))

    def ring(self, role: str) -> None:
        """Ring another role's bell, with a gap between rings; the last ring is never dropped."""
        now, gap_s = time.monotonic(), PACKING_GAP_S if role == "stageout" else RING_GAP_S
        due = self._rung.get(role, 0.0) + gap_s
        if due > now:
            if due < now + gap_s:
                self._rung[role] = due
                self.loop.call_at(due, lambda: self._ring_now(role))
            return
        self._rung[role] = now
        self._ring_now(role)

    def run(self) -> None:
        """Say hello, ring all bells, serve until told to stop."""
        self.log.info("start", "worker started")
        self.send(Hello(self.role, os.getpid()))
        self._bells.ring_all(envelope.encode(Bell(self.role)))
        self.loop.every(BEAT_S, self._beat)
        self._on_bell()
        self.loop.run()
        self._flush_story()
        self.log.info("stop", "worker ended")
        self._link.close()
        self._bells.close()
        self.queue.close()

    def _beat(self) -> None:
        now, moves = time.monotonic(), self.queue.counts().moves
        if moves != self._told_moves or now >= self._tell_at:
            record = self.queue.job()
            self.log.job = None if record is None else record.job.panda_id
            self.send(Alive(self.role, moves, self.facts))
            self._told_moves, self._tell_at = moves, now + self._tell_every_s
        self._on_bell()
        self._flush_story()

    def _flush_soon(self) -> None:
        self.loop.call_later(FLUSH_S, self._flush_story)

    def _flush_story(self) -> None:
        lost_before = self.story.lost
        if not self.story.flush() and not lost_before:
            self.log.warning("story", "story not written, the pilot goes on without",
                             error=self.story.error)  # fmt: skip

    def _ring_now(self, role: str) -> None:
        self._bells.ring(role, envelope.encode(Bell(self.role)))

    def _answer_bell(self) -> None:
        self._bells.clear()
        self._on_bell()

    def _receive(self) -> None:
        for data in self._link.receive():
            try:
                message = envelope.decode(data)
            except MessageError as error:
                self.log.warning("control", "unusable message", error=error)
                continue
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(message)


def hold_shared(context: Context) -> int:
    """Hold the workers' lock; a new supervisor waits until none is left who does."""
    fd = os.open(context.state / "workers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return fd


def fail_loudly(role: str, error: BaseException) -> int:
    """The last words of a worker that met a defect; they go to the pilot's log."""
    import traceback

    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.write(f"{role}: ended by an unexpected error, see above\n")
    return 70
