"""The payload's end of the channel in the native dialect: one client, one DEALER socket.

A client asks ahead: it says how many ranges it can hold (`slots`), asks for as many, and asks for
one more with each outcome, so the next range is on its way while the outcome is.
"""

from __future__ import annotations

import _thread
import logging
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable

import zmq

from espilot.errors import MessageError, PayloadError, UsageError
from espilot.model import EventRange
from espilot.wire import payload_native as native
from espilot.wire.payload import (
    Ack,
    Cancel,
    NoMore,
    PeerError,
    Ping,
    Ranges,
    Welcome,
)

CHANNEL_VARIABLE = "PILOT_EVENTRANGECHANNEL"
MAX_NAME_CHARS = 98
"""A longer name does not fit into the path of a socket."""
FLUSH_S = 30.0
"""How long the end of a client waits for the pilot to take what was sent."""
TERM_FLUSH_S = 3.0
"""The same after SIGTERM: KILL follows, and with the pilot gone nobody takes it any more."""
LOOK_S = 0.1
"""How often the end of a client looks whether it has to hurry."""
SDK = "espilot"
AWAITED = frozenset({"welcome", "ranges", "no_more"})
"""Messages of the pilot that are said once, so one that is unusable would be awaited for ever."""

_log = logging.getLogger(__name__)


def channel_address(channel: str | None) -> str:
    """Return the address of a channel; None takes the name from the environment."""
    name = channel or os.environ.get(CHANNEL_VARIABLE, "")
    if not name:
        raise UsageError(f"no channel: give its name or set {CHANNEL_VARIABLE}")
    host, colon, port = name.rpartition(":")
    if colon and host and port.isdigit():
        return f"tcp://{name}"
    if len(name) > MAX_NAME_CHARS or "/" in name or not name.isprintable():
        raise UsageError(f"channel name {name[:120]!r} has a slash or over {MAX_NAME_CHARS} chars")
    return f"ipc:///tmp/zmq_{name}"


class Client:
    """A native client of the pilot. Create it after forking; use it from one thread.

    `waiting` are ranges received and not yet taken, `cancelled` the ids the pilot took back;
    `on_ack` is called with the id of a range whose outcome is recorded.
    """

    def __init__(self, address: str, *, slots: int, name: str) -> None:
        if not 1 <= slots <= native.MAX_COUNT:
            raise UsageError(f"slots is {slots}, must be from 1 to {native.MAX_COUNT}")
        self.waiting: deque[EventRange] = deque()
        self.cancelled: set[str] = set()
        self.welcome: Welcome | None = None
        self.ended = False
        self.on_ack: Callable[[str], object] = lambda range_id: None
        self._slots = slots
        self._asked = False
        self._ending, self._flushed = _thread.allocate_lock(), _thread.allocate_lock()
        self._flushed.acquire()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = int(FLUSH_S * 1000)
        self._socket.maxmsgsize = -1
        self._socket.connect(address)
        self.send(native.hello(os.getpid(), slots, name, SDK))

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """The socket, to be polled together with other things."""
        return self._socket

    @property
    def closed(self) -> bool:
        """Whether the channel is closed."""
        return self._socket.closed

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._socket.send(message)

    def ask(self, n: int | None = None) -> None:
        """Ask for `n` more ranges; None is the first request, for every slot, made only once."""
        if n is None and self._asked:
            return
        self._asked = True
        if not self.ended:
            self.send(native.ready(n or self._slots))

    def drain(self) -> None:
        """Take in everything that has arrived, without waiting."""
        while not self.closed and self._socket.poll(0):
            self._take_in(self._socket.recv())

    def receive(self) -> None:
        """Wait for one message and take it in."""
        self._take_in(self._socket.recv())

    def await_welcome(self) -> Welcome:
        """Wait until the pilot has introduced the job."""
        while self.welcome is None:
            if self.closed:
                raise PayloadError("the channel was closed before the pilot introduced the job")
            self.receive()
        return self.welcome

    def next_range(self) -> EventRange | None:
        """Wait for a range; None when no more will come."""
        self.drain()
        while not self.waiting and not self.ended:
            self.receive()
        return self.waiting.popleft() if self.waiting else None

    def close(
        self, flush_s: float = FLUSH_S, told_to_end: Callable[[], bool] = lambda: False
    ) -> None:
        """Close the channel; what was sent is delivered if the pilot reads within `flush_s`.

        From `told_to_end` on it is `TERM_FLUSH_S`. A handled signal cuts nothing short; when its
        handler raised, call this again.
        """
        if not self._socket.closed:
            self._socket.close(linger=int(flush_s * 1000))
        self._start_ending()
        deadline = time.monotonic() + flush_s
        hurried = False
        while (left_s := deadline - time.monotonic()) > 0 and not self._is_flushed(left_s):
            if not hurried and told_to_end():
                hurried, deadline = True, min(deadline, time.monotonic() + TERM_FLUSH_S)

    def _start_ending(self) -> None:
        try:
            _thread.start_new_thread(self._end, ())
        except RuntimeError:
            # No thread can be had, as at the very end of newer interpreters: signals wait for us.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            try:
                self._end()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _end(self) -> None:
        """Wait until what was sent is delivered or given up; a second one has nothing to do."""
        # A signal here would end the waiting, and pyzmq could not go on with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if self._ending.acquire(blocking=False):
            try:
                self._context.term()
            finally:
                self._flushed.release()

    def _is_flushed(self, timeout_s: float) -> bool:
        if not self._flushed.acquire(timeout=min(timeout_s, LOOK_S)):
            return False
        self._flushed.release()
        return True

    def _take_in(self, message: bytes) -> None:
        try:
            said = native.parse_pilot(message)
        except MessageError as error:
            self._hear_nonsense(native.kind_of(message), str(error))
            return
        match said:
            case Welcome():
                self.welcome = said
            case Ranges(ranges):
                self.waiting.extend(ranges)
            case NoMore():
                self.ended = True
            case Ping(seq):
                self.send(native.pong(seq))
            case PeerError(diag, about):
                self._hear_error(diag, about)
            case Cancel() | Ack():
                self._hear_of_range(said)

    def _hear_nonsense(self, kind: str, diag: str) -> None:
        """Tell the pilot; without a message that we wait for there is no going on."""
        self.send(native.error(diag, kind))
        if kind in AWAITED:
            raise PayloadError(f"the pilot sent a {kind} message that cannot be used: {diag}")
        _log.warning("message from the pilot ignored: %s", diag)

    def _hear_of_range(self, said: Cancel | Ack) -> None:
        if isinstance(said, Ack):
            self.on_ack(said.id)
        else:
            self._cancel(said.id)

    def _cancel(self, range_id: str) -> None:
        """Drop a waiting range and ask for another; one in work is only marked."""
        kept = [r for r in self.waiting if r.id != range_id]
        if len(kept) == len(self.waiting):
            self.cancelled.add(range_id)
            return
        self.waiting = deque(kept)
        self.ask(1)

    def _hear_error(self, diag: str, about: str) -> None:
        """An unusable request would never be answered, so it ends us; the rest is only told."""
        if about in ("hello", "ready"):
            raise PayloadError(f"the pilot refused our {about}: {diag}")
        _log.warning("the pilot could not use a message about %r: %s", about, diag)


def is_readable(fd: int) -> bool:
    """Return whether something waits at this end of a pipe."""
    return bool(select.select([fd], [], [], 0)[0])


class Stopwatch:
    """CPU and wall time of this process and its ended children since it was made."""

    def __init__(self) -> None:
        self._cpu_s = _cpu_s()
        self._wall_s = time.monotonic()

    def read(self) -> tuple[float, float]:
        """Return CPU seconds and wall seconds."""
        return _cpu_s() - self._cpu_s, time.monotonic() - self._wall_s


def _cpu_s() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
