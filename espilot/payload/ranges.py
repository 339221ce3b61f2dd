"""Event ranges as a loop: the face of the SDK."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from espilot.errors import MessageError, UsageError
from espilot.model import EventRange
from espilot.payload.client import FLUSH_S, TERM_FLUSH_S, Client, Stopwatch, channel_address
from espilot.wire import payload_native as native
from espilot.wire.payload import CODE_EXECUTION, Welcome, printable

OUTPUT_DIR_VARIABLE = "ESPILOT_OUTPUT_DIR"
WHY_CHARS = 200
EXIT_TERMINATED = 128 + signal.SIGTERM


class RangeInHand:
    """One range to be processed; it ends with `done` or `failed`, and the first of them counts."""

    def __init__(self, event_range: EventRange, owner: EventRanges) -> None:
        self._range = event_range
        self._owner = owner
        self._watch = Stopwatch()
        self.settled = False

    @property
    def id(self) -> str:
        """The id of the range."""
        return self._range.id

    @property
    def start_event(self) -> int:
        """The first event."""
        return self._range.start_event

    @property
    def last_event(self) -> int:
        """The last event, itself included."""
        return self._range.last_event

    @property
    def events(self) -> range:
        """The event numbers."""
        return range(self._range.start_event, self._range.last_event + 1)

    @property
    def lfn(self) -> str:
        """The logical name of the input file."""
        return self._range.lfn

    @property
    def guid(self) -> str:
        """The unique id of the input file."""
        return self._range.guid

    @property
    def scope(self) -> str:
        """The scope of the input file."""
        return self._range.scope

    @property
    def pfn(self) -> str:
        """Where the input file is; empty when the job has none."""
        return self._range.pfn or self._owner.inputs.get(self._range.lfn, "")

    @property
    def cancelled(self) -> bool:
        """Whether the pilot needs this range no more; asking looks for new messages."""
        return self._owner._is_cancelled(self.id)

    def output_path(self, stream: int = 0) -> str:
        """Return where the output belongs: `<output_dir>/<output name>.<id>`."""
        return output_path(self._owner.welcome, self.id, stream)

    def progress(self, event: int) -> None:
        """Tell the pilot that a long range is alive and has reached `event`."""
        self._owner._send(native.progress(self.id, event))

    def done(
        self,
        *paths: str | os.PathLike[str],
        events: int | None = None,
        cpu_s: float | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Report the outputs, one path per stream; times are measured unless given.

        `UsageError` when the pilot could not use the report; the range still needs an outcome then.
        """
        if not paths:
            raise UsageError(f"range {self.id}: done() needs the path of an output")
        measured_s, wall_s = self._watch.read()
        pack = partial(
            native.done,
            self.id,
            [str(Path(path).absolute()) for path in paths],
            cpu_s=measured_s if cpu_s is None else cpu_s,
            wall_s=wall_s,
            events=self._range.events if events is None else events,
            meta=meta,
        )
        self._settle(_usable(self.id, pack))

    def failed(self, diag: str, code: int = CODE_EXECUTION, fatal: bool = False) -> None:
        """Report that this range has no output; fatal means that it can never work.

        Of a long `diag` the beginning is told, as one printable line.
        """
        self._settle(
            _usable(self.id, partial(native.failed, self.id, code, printable(diag), fatal))
        )

    def _settle(self, message: bytes) -> None:
        if not self.settled:
            self.settled = True
            self._owner._settle(self.id, message)


class EventRanges:
    """The ranges of the job, one after the other, until the pilot has no more.

    `channel` is its name, by default that of the environment; `slots` is how many ranges are held
    here at once: one in work, the others waiting. As a context manager it reports a range whose
    processing raised as failed. Create it after forking.
    """

    def __init__(
        self, channel: str | None = None, *, slots: int = 1, name: str | None = None
    ) -> None:
        self._client = Client(channel_address(channel), slots=slots, name=name or "")
        self._current: RangeInHand | None = None
        self._is_terminated = self._is_flushing = False
        atexit.register(self._flush)
        self._end_on_term()

    @property
    def welcome(self) -> Welcome:
        """What the pilot said of the job; waits for it."""
        return self._client.await_welcome()

    @property
    def job(self) -> Mapping[str, Any]:
        """The job: PandaID, taskID, parameters, outputs."""
        return self.welcome.job

    @property
    def output_dir(self) -> str:
        """Where outputs belong."""
        return output_dir(self.welcome)

    @property
    def inputs(self) -> Mapping[str, str]:
        """Physical names of the input files by their logical names."""
        return self.welcome.inputs

    def __iter__(self) -> Iterator[RangeInHand]:
        """Return itself: it is one stream, however often it is asked."""
        return self

    def __next__(self) -> RangeInHand:
        """Return the next range; one left without outcome is reported failed before."""
        self._abandon("the payload asked for the next range without an outcome of this one")
        if self._client.closed:
            raise StopIteration
        self._client.ask()
        event_range = self._client.next_range()
        if event_range is None:
            self.close()
            raise StopIteration
        self._client.send(native.started(event_range.id))
        self._current = RangeInHand(event_range, self)
        return self._current

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Report what is in hand as failed, unless the process is being ended, and close."""
        if kind is None:
            self._abandon("the payload left its loop without an outcome of this range")
        elif issubclass(kind, Exception):
            self._abandon(f"{kind.__name__}: {error}")
        self.close()

    def close(self) -> None:
        """Close the channel after delivering what was sent; ranges in hand go back to the pilot.

        A SIGTERM in the meantime ends the process when this is done.
        """
        before = self._is_terminated
        self._flush()
        if self._is_terminated and not before:
            raise SystemExit(EXIT_TERMINATED)

    def _flush(self) -> None:
        self._is_flushing = True
        flush_s = TERM_FLUSH_S if self._is_terminated else FLUSH_S
        try:
            self._client.close(flush_s, lambda: self._is_terminated)
        finally:
            self._is_flushing = False
        atexit.unregister(self._flush)

    def _end_on_term(self) -> None:
        """Make SIGTERM an orderly exit, unless the payload handles it itself."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._exit_terminated)

    def _exit_terminated(self, number: int, frame: FrameType | None) -> None:
        self._is_terminated = True
        if not self._is_flushing:
            raise SystemExit(EXIT_TERMINATED)

    def _abandon(self, reason: str) -> None:
        if self._current and not self._current.settled:
            self._current.failed(reason)
        self._current = None

    def _is_cancelled(self, range_id: str) -> bool:
        self._client.drain()
        return range_id in self._client.cancelled

    def _send(self, message: bytes) -> None:
        if not self._client.closed:
            self._client.send(message)
            self._client.drain()

    def _settle(self, range_id: str, message: bytes) -> None:
        """Send an outcome and ask for the next range with it; a cancelled range has no outcome."""
        if not self._is_cancelled(range_id):
            self._client.send(message)
        self._client.cancelled.discard(range_id)
        self._client.ask(1)


def _usable(range_id: str, pack: Callable[[], bytes]) -> bytes:
    """Return an outcome's message, if the pilot can use it: otherwise the outcome would be lost."""
    try:
        message = pack()
        native.parse(message)
    except (MessageError, ValueError, TypeError, OverflowError) as error:
        why = printable(str(error), WHY_CHARS)
        raise UsageError(f"the outcome of range {range_id} cannot be reported: {why}") from None
    return message


def output_dir(welcome: Welcome) -> str:
    """Return where outputs belong: as the pilot says, else as the environment says, else here."""
    return welcome.output_dir or os.environ.get(OUTPUT_DIR_VARIABLE) or str(Path.cwd())


def output_path(welcome: Welcome, range_id: str, stream: int = 0) -> str:
    """Return the path of one output of a range; `stream` counts the job's output names from 0."""
    names = welcome.job.get("outputs") or ["output"]
    if not 0 <= stream < len(names):
        raise UsageError(f"the job has {len(names)} outputs, there is no stream {stream}")
    return str(Path(output_dir(welcome), f"{names[stream]}.{range_id}"))
