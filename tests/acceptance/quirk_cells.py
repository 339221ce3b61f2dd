"""One pilot that goes through many sick servers, job after job: a matrix without its start-ups.

A *cell* is a server of its own with some quirks and one task. All cells answer at one address, one
after the other: when the task of a cell is over and the pilot asks for its next job, the next cell
has taken the place of the former. So each cell is a real server, asked over real HTTP by a real
pilot, and costs no more than its jobs.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bad_answers
from aiohttp import web

from espilot.server import app
from espilot.server.brokerage import Queue
from espilot.server.options import FAULTS, Quirks, ServerOptions
from espilot.server.store import Store
from espilot.server.tasks import NewTask

KINDS = ("normal", "event", "jumbo")
"""Tasks by their jobs: one normal job; event jobs and the merge job; jumbo jobs beside a co-jumbo
job that nobody takes."""
CELL_S = 45.0
"""A cell that takes longer is left: it has failed, the others have not."""
PATIENCE_S = 1.5
"""A call's longest time, and when the server gives up a job whose answer is lost."""
EVENTS, PER_FILE, SITE = 6, 3, "Q"
INPUTS = {"EVNT.1": b"evnt", "EVNT.2": b"more"}
_ASKING = ("/getJob", "/acquire_jobs")


@dataclass(frozen=True)
class Cell:
    """One server and one task. With `heals_after` the quirks go away after so many calls."""

    dialect: str
    kind: str
    switches: tuple[tuple[str, Any], ...]
    heals_after: int = 0
    ends: str = "finished"
    takes_faults: bool = False
    spoiled: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        words = [f"{name}={_short(value)}" for name, value in self.switches]
        words = [self.label] if self.label else words if len(words) < 5 else ["unprovoked"]
        return "-".join((self.kind, self.dialect, *words)).replace("/", ".")

    @property
    def quirks(self) -> Quirks:
        return Quirks(**{"dialects": self.dialect, **dict(self.switches)})

    @property
    def closes_waiting(self) -> bool:
        """Whether a drained pool leaves no job waiting."""
        return bool(dict(self.switches).get("close_waiting_consumers", True))

    @property
    def loses_jobs(self) -> bool:
        """Whether a job is handed out whose pilot does not hear of it."""
        return bool(self.spoiled) or "pilot/acquire_jobs" in self.quirks_of("drop_answer")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Two inputs of an event job. Only where they matter they are files, to be brought."""
        matter = "guid_shift" in dict(self.switches)
        return tuple(INPUTS) if matter else ("nowhere.1", "nowhere.2")

    def quirks_of(self, fault: str) -> Mapping[str, int]:
        """The calls that a fault shall hit."""
        return dict(self.switches).get(fault, {})


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "+".join(f"{function}:{n}" for function, n in value.items()).replace("*", "any")
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(" ", "_")


@dataclass
class Opened:
    """A cell as it answers, and as it was left."""

    cell: Cell
    number: int
    directory: Path
    calls: list[str] = field(default_factory=list)
    took_s: float = 0.0
    hits: dict[str, int] = field(default_factory=dict)
    log_bytes: int = 0
    jobs: int = 0

    def __post_init__(self) -> None:
        self.stem = f"c{self.number}"
        self.database = self.directory / f"{self.stem}.sqlite"
        self._began = time.monotonic()
        self._healed = False
        self._stores: list[Store] = []
        self.store, self.front = self._open(self.cell.quirks)
        self.task_id = self.store.create_task(self._task(), time.time())
        # A missing first GUID shifts the list of a definition.
        with closing(sqlite3.connect(self.database)) as db, db:
            db.execute("UPDATE file SET guid = '' WHERE lfn LIKE '%.1'")

    def _open(self, quirks: Quirks) -> tuple[Store, app._Front]:
        seed, tokens = ("std", ("useJumboJobs",)) if self.cell.kind == "jumbo" else ("all", ())
        options = ServerOptions(
            sent_timeout_s=PATIENCE_S if self.cell.loses_jobs else 10.0,
            queues={SITE: Queue(SITE, seed, tokens)},
            quirks=quirks,
        )
        # Each has numbers of its own: they end up on one storage.
        store = Store(self.database, options, now=1e6 + 1000 * self.number)
        self._stores.append(store)
        return store, app._Front(store, quirks)

    def _task(self) -> NewTask:
        out = f"{self.stem}.out"
        if self.cell.kind == "normal":
            return NewTask(self.stem, 1, job=json.dumps(normal_job(out)))
        return NewTask(
            self.stem,
            EVENTS,
            outputs=(out,),
            inputs=tuple((lfn, PER_FILE) for lfn in self.cell.inputs),
            # A second one finds an empty pool, unless it was closed before.
            consumers=1 if self.cell.closes_waiting else 2,
            jumbo_jobs=int(self.cell.kind == "jumbo"),
            merge_transformation="merge" if self.cell.kind == "event" else "",
            merge_parameters=f"--in=@inputFor_{out} --out={out}",
        )

    def look(self) -> bool:
        """Whether the pilot is through with this cell."""
        self.took_s = time.monotonic() - self._began
        self.store.fail_lost_jobs(time.time())
        over = self.store.task_status(self.task_id)["state"] != "running"
        return over or self.took_s > CELL_S

    def spoils(self, path: str) -> bool:
        """Whether this answer is to be spoiled: the first of each function."""
        name = path.rpartition("/")[2]
        first = self.calls.count(name) == 1
        return bool(self.cell.spoiled) and first and name in bad_answers.FUNCTIONS

    def note(self, path: str, log_bytes: int) -> None:
        """A call comes."""
        self.log_bytes = self.log_bytes or log_bytes
        self.calls.append(path.rpartition("/")[2])
        if self.cell.heals_after and not self._healed and len(self.calls) > self.cell.heals_after:
            self._healed = True
            server = self.front.server
            self.store, self.front = self._open(Quirks(dialects=self.cell.dialect))
            self.front.server = server

    def close(self) -> None:
        """All turns are over: until then a late call may come."""
        left = self.front._gate._faults._left
        for name in FAULTS:
            self.hits[name] = sum(self.cell.quirks_of(name).values()) - sum(left[name].values())
        for store in self._stores:
            store.close()


def normal_job(out: str) -> dict[str, Any]:
    """The definition of a normal job with two inputs."""
    sizes = ",".join(str(len(data)) for data in INPUTS.values())
    sums = ",".join(f"ad:{zlib.adler32(data):08x}" for data in INPUTS.values())
    log = f"{out}.log.tgz"
    return {
        "transformation": "transform", "jobPars": f"--out={out}", "jobName": out,
        "inFiles": ",".join(INPUTS), "fsize": sizes, "checksum": sums, "GUID": "second",
        "outFiles": f"{out},{log}", "scopeOut": "test", "logFile": log, "scopeLog": "test",
        "prodDBlockToken": "NULL,NULL", "ddmEndPointOut": "SE,SE", "coreCount": 1,
    }  # fmt: skip


class Row:
    """The cells at one address. What they do happens in the thread of `serving`."""

    def __init__(self, cells: Sequence[Cell], directory: Path) -> None:
        self.left = list(reversed(cells))
        self.directory = directory
        self.past: list[Opened] = []
        self.over = threading.Event()
        self.server: web.Server | None = None
        self.now: Opened

    def _next(self) -> Opened:
        opened = Opened(self.left.pop(), len(self.past), self.directory)
        opened.front.server = self.server
        self.past.append(opened)
        return opened

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One call, by whoever's turn it is."""
        try:
            self._turn(request.path)
            now = self.now
            answer = await now.front.handle(request)
            if now.spoils(request.path):
                return await bad_answers.spoil(now.cell.spoiled, request, answer)
            return answer
        except Exception:
            self.over.set()
            raise

    def _turn(self, path: str) -> None:
        if path.endswith(_ASKING) and self.now.look():
            if self.left:
                self.now = self._next()
            else:
                self.over.set()
        self.now.note(path, self.log_bytes)

    @property
    def log_bytes(self) -> int:
        """How far the pilot's log has come."""
        path = self.directory / "w" / "logs" / "pilot.log"
        return path.stat().st_size if path.exists() else 0

    async def serve(self, tell: Any, stop: asyncio.Event) -> None:
        self.server = web.Server(self.handle, auto_decompress=False, access_log=None)
        # In this thread, because a database belongs to one.
        self.now = self._next()
        runner = web.ServerRunner(self.server, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            tell(f"http://127.0.0.1:{runner.addresses[0][1]}")
            await stop.wait()
        finally:
            await runner.cleanup()
            for each in self.past:
                each.close()


@contextmanager
def serving(row: Row) -> Iterator[str]:
    """The address of the cells."""
    told: list[Any] = []
    ready = threading.Event()

    def run() -> None:
        async def main() -> None:
            stop = asyncio.Event()
            told.append((asyncio.get_running_loop(), stop))

            def tell(url: str) -> None:
                told.append(url)
                ready.set()

            await row.serve(tell, stop)

        asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        yield told[1]
    finally:
        loop, stop = told[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
