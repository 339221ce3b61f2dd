"""Requests per second of the built-in server while many pilots ask and report at once.

Each pilot is a thread with its own connection and job: it draws ranges, reports them in archives,
and ends its job. All ranges are accounted for: none may be handed out twice, none lost.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.children import BenchError, scratch
from bench.rows import Emit, make_row
from espilot.adapters.http import Connection, DialectChoice, PandaServer, Patience
from espilot.model import ArchiveFacts, EventRange, JobUpdate, RangeReport, ReportBatch
from espilot.wire.panda_v1 import Pilot

PILOTS, RANGES, BATCH = 50, 20_000, 100
TINY = 4, 200, 10
SLOWEST_S = 2.0
T = TypeVar("T")


def run(emit: Emit, *, tiny: bool) -> None:
    """Both dialects: requests per second, ranges per second, the slowest request."""
    pilots, ranges, batch = TINY if tiny else (PILOTS, RANGES, BATCH)
    for dialect in ("legacy", "v1"):
        with scratch() as root, serving(root, ranges, pilots) as url:
            began = time.monotonic()
            times = simulate(url, dialect, pilots, ranges, batch)
            wall_s = time.monotonic() - began
        emit(make_row("server", f"{dialect} requests", len(times) / wall_s, "requests/s"))
        emit(make_row("server", f"{dialect} ranges", ranges / wall_s, "ranges/s"))
        emit(make_row("server", f"{dialect} slowest", max(times), "s", limit=SLOWEST_S))


@contextmanager
def serving(root: Path, events: int, consumers: int) -> Iterator[str]:
    """The server as a process of its own, with one task for all pilots."""
    job = root / "job.toml"
    task = f'[task]\nname = "bench"\nevents = {events}\nconsumers = {consumers}\n'
    job.write_text(task + "max_attempts = 1\n")
    argv = [sys.executable, "bin/espilot", "server", "--db", str(root / "es.db"), "--port", "0"]
    with subprocess.Popen(
        [*argv, "--json", "--task", str(job), "--quirk", "close_waiting_consumers=off"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise BenchError("the server did not start")
            yield json.loads(line)["url"]
        finally:
            process.kill()


@dataclass
class Crew:
    """What the pilots share."""

    url: str
    dialect: str
    batch: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    times: list[float] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)

    def clock(self, call: Callable[[], T]) -> T:
        """One request, and how long it took."""
        began = time.monotonic()
        result = call()
        with self.lock:
            self.times.append(time.monotonic() - began)
        return result


def simulate(url: str, dialect: str, pilots: int, ranges: int, batch: int) -> list[float]:
    """Let all pilots work until the pool is empty; durations of all requests."""
    crew = Crew(url, dialect, batch)
    with ThreadPoolExecutor(pilots) as pool:
        for ended in [pool.submit(be_pilot, crew, number) for number in range(pilots)]:
            ended.result()
    check(crew, ranges)
    return crew.times


def check(crew: Crew, ranges: int) -> None:
    """Every range was drawn once and is booked."""
    if len(set(crew.drawn)) != len(crew.drawn):
        raise BenchError("a range was handed out twice")
    with_server = open_server(crew)
    status = with_server.task_status(int(crew.drawn[0].split("-")[0]))
    with_server.close()
    if (len(crew.drawn), status.finished) != (ranges, ranges):
        raise BenchError(f"{len(crew.drawn)} ranges drawn, {status.finished} booked of {ranges}")


def open_server(crew: Crew) -> PandaServer:
    """A connection of its own."""
    connection = Connection(crew.url, patience=Patience(60.0))
    return PandaServer(connection, pilot=Pilot("BENCH", "n"), choice=DialectChoice(crew.dialect))


def be_pilot(crew: Crew, number: int) -> None:
    """One job from begin to end."""
    server = open_server(crew)
    job = crew.clock(server.acquire_job)
    if job is None:
        raise BenchError(f"no job for pilot {number}")
    crew.clock(lambda: server.update_job(job, JobUpdate("running")))
    events = 0
    while ranges := crew.clock(lambda: server.acquire_ranges(job, crew.batch)):
        with crew.lock:
            crew.drawn += [strip(entry) for entry in ranges]
        report = make_report(f"{job.panda_id}.{events}.tar", ranges)
        crew.clock(lambda report=report: server.report(job, [report]))  # type: ignore[misc]
        events += len(ranges)
    state = "finished" if events else "failed"
    crew.clock(lambda: server.update_job(job, JobUpdate(state, events)))
    server.close()


def strip(event_range: EventRange) -> str:
    """What names a range whoever holds it: task, file and first event."""
    task, _, file_id, process, _ = event_range.id.split("-")
    return f"{task}-{file_id}-{process}"


def make_report(lfn: str, ranges: tuple[EventRange, ...]) -> ReportBatch:
    """All of them finished, in one archive."""
    facts = ArchiveFacts(lfn, 1000, "0badcafe", 1, len(ranges))
    return ReportBatch(tuple(RangeReport(entry.id, "finished") for entry in ranges), facts)
