"""The matrix role x point in the life of a range: where each process of a run is killed once.

The points are functions of the product, reached from outside (`points/sitecustomize.py`). For each
transaction there is a kill before its commit, with the lock held, and one right after it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pilot_run import ROOT

POINTS = Path(__file__).resolve().parent / "points"
MOVES = "espilot.queue.moves:Moves"
STORE = "espilot.server.store:Store"
SERVER = "espilot.adapters.http.client:PandaServer"
POSIX = "espilot.adapters.storage.posix:PosixStorage"


@dataclass(frozen=True, slots=True)
class Point:
    """One moment: before or after the n-th call of a function, maybe only below another one.

    `victim` is killed instead of the role itself; `switches` are for the fake payload; `act` is
    what happens.
    """

    role: str
    target: str
    when: str
    nth: int = 1
    within: str = ""
    victim: str = ""
    switches: str = ""
    act: str = "kill"

    def __str__(self) -> str:
        below = f" in {self.within}" if self.within else ""
        victim = f" kills {self.victim}" if self.victim else ""
        name = self.target.partition(":")[2]
        return f"{self.role}: {self.when} {name}{below} {self.nth}{victim}"

    def plan(self, marker: Path) -> str:
        """What `sitecustomize` reads."""
        return json.dumps(asdict(self) | {"marker": str(marker)})

    def environment(self, marker: Path) -> dict[str, str]:
        """What a pilot is started with, so that it happens."""
        paths = [str(POINTS), str(ROOT)]
        return {"PYTHONPATH": os.pathsep.join(paths), "TEST_FAULT_POINT": self.plan(marker)}


def _around(role: str, target: str, nth: int = 1, *, within: str = "") -> list[Point]:
    return [Point(role, target, when, nth, within) for when in ("before", "after")]


def _move(role: str, verb: str, nth: int = 1, switches: str = "") -> list[Point]:
    """Before the commit of a move (`after` its call, inside the transaction), and after it."""
    target = f"{MOVES}.{verb}"
    return [Point(role, target, when, nth, switches=switches) for when in ("after", "committed")]


DISPATCHER = [
    *_move("dispatcher", "set_epoch"),
    *_move("dispatcher", "take"),
    *_move("dispatcher", "take", 4),
    *_move("dispatcher", "finish"),
    *_move("dispatcher", "finish", 7),
    *_move("dispatcher", "fail", 2, switches="--fail-every 5"),
    *_move("dispatcher", "return_sent"),
    *_around("dispatcher", "espilot.adapters.channel:PayloadChannel.__init__"),
    *_around("dispatcher", "espilot.adapters.channel:PayloadChannel.receive", 6),
    *_around("dispatcher", "espilot.adapters.channel:PayloadChannel.send", 5),
    *_around("dispatcher", "espilot.workers.dispatcher:Station.drain"),
    *_around("dispatcher", "espilot.pipeline.dispatch:Dispatch.settle_epoch"),
]
STAGEOUT = [
    *_move("stageout", "pack"),
    *_move("stageout", "pack", 3),
    *_move("stageout", "staged"),
    *_move("stageout", "forget_archive"),
    *_around("stageout", "os:fsync", 1, within="seal"),
    *_around("stageout", "os:fsync", 2, within="seal"),
    *_around("stageout", "pathlib:Path.rename", 1, within="seal"),
    *_around("stageout", "pathlib:Path.rename", 2, within="seal"),
    *_around("stageout", "espilot.queue.store:Queue.sync"),
    *_around("stageout", "espilot.adapters.outputs:remove", 3),
    Point("stageout", f"{POSIX}.put", "before"),
    *_around("stageout", "os:sendfile", 1, within="put"),
    *_around("stageout", "os:fsync", 1, within="put"),
    *_around("stageout", "pathlib:Path.replace", 1, within="put"),
    Point("stageout", f"{POSIX}.put", "after"),
    *_around("stageout", "pathlib:Path.unlink", 1, within="_clean"),
    *_around("stageout", "pathlib:Path.unlink", 2, within="_clean"),
]
EVENT_SERVER = [
    *_around("event-server", f"{SERVER}.acquire_job"),
    *_move("event-server", "set_job"),
    *_around("event-server", f"{SERVER}.acquire_ranges"),
    *_move("event-server", "put_ranges"),
    *_around("event-server", f"{SERVER}.acquire_ranges", 2),
    *_move("event-server", "put_ranges", 2),
    *_around("event-server", f"{SERVER}.report", 2),
    *_move("event-server", "reported", 2),
    *_move("event-server", "forget_failures", 2, switches="--fail-every 5"),
    *_move("event-server", "give_back_ranges", 1, switches="--fail-every 5"),
    *_move("event-server", "set_phase", 2),
    *_move("event-server", "give_back"),
    *_around("event-server", f"{SERVER}.update_job", 1),
    Point("event-server", "espilot.core.job:final_update", "after"),
    Point("event-server", "espilot.workers.event_server:EventServerWorker._ended", "before"),
    *_move("event-server", "clear_job"),
    *_around("event-server", f"{SERVER}.task_status"),
]
BUILTIN_SERVER = [
    *_around("builtin-server", f"{STORE}.create_task"),
    *_around("builtin-server", f"{STORE}.acquire_jobs"),
    *_around("builtin-server", f"{STORE}.acquire_ranges", 2),
    *_around("builtin-server", f"{STORE}.update_ranges", 2),
    *_around("builtin-server", f"{STORE}.update_job"),
    *_around("builtin-server", "espilot.server.job_end:end_job"),
]
ANSWER_LOST = [
    Point("builtin-server", f"{STORE}.{verb}", "after", nth, victim="event-server")
    for verb, nth in (
        ("acquire_jobs", 1),
        ("acquire_ranges", 1),
        ("acquire_ranges", 2),
        ("update_ranges", 1),
        ("update_ranges", 3),
        ("update_job", 1),
    )
] + [Point("builtin-server", "espilot.server.job_end:end_job", "after", victim="event-server")]
"""The server has committed (at the end of a job: is about to), and the pilot never hears of it."""
SUPERVISOR = [
    *_around("supervisor", "espilot.supervisor.statedir:write_atomically"),
    Point("supervisor", "espilot.supervisor.statedir:StateDir.__init__", "after"),
    *_around("supervisor", "espilot.supervisor.resume:prepare_state"),
    *[
        Point("supervisor", "espilot.supervisor.roles:Roles.start", "after", nth)
        for nth in (1, 2, 3, 4)
    ],
    *_around("supervisor", "espilot.supervisor.statedir:note_channel"),
    *_around("supervisor", "espilot.supervisor.statedir:note_payload"),
    Point("supervisor", "espilot.supervisor.payload:PayloadProcess.__init__", "after"),
    *_around("supervisor", "espilot.supervisor.keeper:PayloadKeeper.ended"),
    *_around("supervisor", "espilot.supervisor.keeper:PayloadKeeper.settled"),
    *[
        Point("supervisor", "espilot.supervisor.roles:Roles.unwant", "after", nth)
        for nth in (1, 2, 3, 4)
    ],
    Point("supervisor", "espilot.supervisor.supervisor:Supervisor.run", "after"),
    *_around("supervisor", "espilot.supervisor.resume:note_run", 2),
    Point("supervisor", "espilot.supervisor.statedir:StateDir.close", "before"),
]
PAYLOAD = [
    *_around("payload", "espilot.payload.fake.speech:TextSpeech.ask", 3),
    *_around("payload", "espilot.payload.fake.speech:TextSpeech.receive", 3),
    *_around("payload", "espilot.payload.fake.client:write_output", 3),
    *_around("payload", "espilot.payload.fake.speech:TextSpeech.finished", 3),
    *_around("payload", "espilot.payload.fake.main:_run_clients"),
]
MATRIX = {
    "dispatcher": DISPATCHER,
    "stageout": STAGEOUT,
    "event-server": EVENT_SERVER,
    "builtin-server": BUILTIN_SERVER,
    "answer-lost": ANSWER_LOST,
    "supervisor": SUPERVISOR,
    "payload": PAYLOAD,
}
NOT_REACHED = {
    "drop": "in the transaction of pack",
    "abandon_archive": "only when the server has taken the job away",
    "forget_done": "only in the engine without a pilot",
    "note_feed": "in the transaction of put_ranges",
    "return_ranges": "as return_sent, for some",
    "take_suspect": "as take, after a crash",
}
"""Moves without a point of their own, and why."""
