"""Progress of a run: a line that renews itself on a terminal (rich), plain lines in a log."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any, Protocol, TextIO

from espilot.config import TaskConfig
from espilot.model import Counts
from espilot.supervisor.outcome import Snapshot
from espilot.view.wording import duration_text

LINE_EVERY_S = 5.0
RATE_WINDOW_S = 20.0
BAR_WIDTH = 20


class Screen(Protocol):
    """Where progress is shown."""

    def show(self, done: int, texts: dict[str, str]) -> None:
        """Show how many ranges are safe, and the texts about them."""

    def say(self, text: str) -> None:
        """Leave a line behind."""

    def end(self, done: int | None) -> None:
        """Leave the screen, with how many ranges are safe at the end if that is known."""


class Progress:
    """Shows snapshots as they come, at most one a second."""

    def __init__(self, task: TaskConfig, out: TextIO) -> None:
        self._total = task.total_ranges
        self._pace = Pace(task.events_per_range)
        terminal = _open_terminal(task.name, self._total, out) if out.isatty() else None
        self.renews_itself = terminal is not None
        """Whether anything else that is written there would break the picture."""
        self._screen: Screen = terminal or Lines(task.name, self._total, out)

    def show(self, snapshot: Snapshot) -> None:
        """Show where the run is."""
        counts = snapshot.counts
        rate = self._pace.note(counts, time.monotonic())
        draining = bool(snapshot.drain.get("draining"))
        texts = {
            "rate": f"{rate:.1f} events/s" if rate else "",
            "eta": "" if draining else self._pace.left_text(self._total - safe_of(counts)),
            "state": state_text(snapshot),
        }
        self._screen.show(safe_of(counts), texts)

    def say(self, text: str) -> None:
        """Leave a line behind, above what renews itself."""
        self._screen.say(text)

    def end(self, done: int | None = None) -> None:
        """Leave the line; `done`: how many ranges are safe at the end."""
        self._screen.end(done)


class Pace:
    """How fast ranges become safe, over the last moments."""

    def __init__(self, events_per_range: int) -> None:
        self._per_range = events_per_range
        self._points: deque[tuple[float, int]] = deque()
        self._ranges_per_s = 0.0

    def note(self, counts: Counts, now: float) -> float:
        """Take the counts at a monotonic time; events made per second, 0 while it is not known.

        Outputs count when they are made: archives come in heaps.
        """
        self._points.append((now, safe_of(counts) + counts.done + counts.packed))
        while len(self._points) > 2 and self._points[1][0] < now - RATE_WINDOW_S:
            self._points.popleft()
        (then, before), (_, made) = self._points[0], self._points[-1]
        self._ranges_per_s = max(0, made - before) / (now - then) if now > then else 0.0
        return self._ranges_per_s * self._per_range

    def left_text(self, ranges: int) -> str:
        """How long the rest takes at this pace; "" while that is not known."""
        if not self._ranges_per_s or ranges <= 0:
            return ""
        left_s = math.ceil(ranges / self._ranges_per_s)
        return f"{left_s} s left" if left_s < 60 else f"{duration_text(left_s)} left"


class Lines:
    """Plain lines, one every few seconds."""

    def __init__(self, name: str, total: int, out: TextIO) -> None:
        self._name, self._total, self._out = name, total, out
        self._started = time.monotonic()
        self._next = 0.0
        self._last = ""

    def show(self, done: int, texts: dict[str, str]) -> None:
        """Write a line, if it is time and something has changed."""
        bar = "#" * (BAR_WIDTH * done // self._total) if self._total else ""
        said = [text for text in (texts["state"], texts["rate"], texts["eta"]) if text]
        line = f"{self._name} [{bar:.<{BAR_WIDTH}}] {done}/{self._total} ranges safe, "
        line += ", ".join(said)
        now = time.monotonic()
        if now < self._next or line == self._last:
            return
        self._next, self._last = now + LINE_EVERY_S, line
        self._out.write(f"{line}  {now - self._started:.0f} s\n")
        self._out.flush()

    def say(self, text: str) -> None:
        """Write it at once."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def end(self, done: int | None) -> None:
        """Nothing is left to be tidied: the summary comes next."""


class Terminal:
    """A bar and a line below it that renew themselves."""

    def __init__(self, bar: Any, name: str, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task(name, total=total or None, state="", rate="", eta="")
        bar.start()

    def show(self, done: int, texts: dict[str, str]) -> None:
        """Draw it anew."""
        self._bar.update(self._task, completed=done, **texts)
        self._bar.refresh()

    def say(self, text: str) -> None:
        """Print it above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, style="yellow")

    def end(self, done: int | None) -> None:
        """Leave the last picture: what was true a second ago would stay for ever."""
        if done is not None:
            self.show(done, {"rate": "", "eta": "", "state": ""})
        self._bar.stop()


def _open_terminal(name: str, total: int, out: TextIO) -> Terminal | None:
    """A terminal drawn by rich; None where rich is not installed. It obeys NO_COLOR itself."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column
    except ImportError:
        return None
    fixed = Column(no_wrap=True)
    # Drawn when a snapshot comes: a thread that draws would be forked with us.
    bar = Bar(
        TextColumn("{task.description}", style="bold", markup=False, table_column=fixed),
        BarColumn(BAR_WIDTH),
        MofNCompleteColumn(table_column=fixed),
        TextColumn("safe", table_column=fixed),
        TextColumn("{task.fields[rate]}", style="green", markup=False, table_column=fixed),
        TextColumn("{task.fields[eta]}", style="cyan", markup=False, table_column=fixed),
        TextColumn("{task.fields[state]}", markup=False),
        console=Console(file=out, highlight=False),
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    return Terminal(bar, name, total)


def safe_of(counts: Counts) -> int:
    """Ranges whose output is safe on the storage."""
    return counts.finished + counts.staged


def state_text(snapshot: Snapshot) -> str:
    """What is in work, at risk and on its way; what is wrong, and whether it comes to an end."""
    c = snapshot.counts
    failed = c.failed + c.failed_total + c.fatal + c.fatal_total
    parts = [
        f"{c.sent} in work",
        f"{c.sent + c.done + c.packed + c.staged} at risk",
        f"{c.done + c.packed} to ship",
    ]
    if failed:
        parts.append(f"{failed} failed")
    if snapshot.storage != "ok":
        parts.append(f"storage: {snapshot.storage}")
    if snapshot.drain.get("draining"):
        parts.append(f"draining ({snapshot.drain['draining']})")
    return ", ".join(parts)
