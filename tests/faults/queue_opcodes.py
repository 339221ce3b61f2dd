"""Kill a process at every Python opcode of a verb of the queue, and look at what is left.

Run as a program, in an interpreter without threads and without an open queue: it forks one child
per opcode. `python queue_opcodes.py SCENARIO...` prints the kill points; a broken promise is an
assertion, so a non-zero exit.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from queue_oracle import (
    JOB,
    check_queue,
    go_round,
    make_archive,
    make_failure,
    make_outputs,
    make_range,
    make_ranges,
    range_id,
)

from espilot.model import RangeState
from espilot.queue import moves as moves_module
from espilot.queue.store import Queue

MAP_BYTES = 1 << 17
NEVER = 1 << 40
TRACED = str(Path(moves_module.__file__).parent)
Verb = Callable[[Queue], None]


def prepare(queue: Queue) -> None:
    """Some ranges in each state: 1-2 ready, 3-6 sent, 7-8 done, 9 packed, 10 staged, 11-12 failed,
    13 reported with its archive still known."""
    with queue.moves() as m:
        m.set_job(JOB, "running", {"before": {}})
        m.set_epoch(1)
        m.put_ranges(make_ranges(3, 13), now=1.0)
        m.take(["a", "b", "a", "b", *"cdefghi"], epoch=1, now=2.0)
        for number in (7, 8, 9, 10, 13):
            m.finish(range_id(number), epoch=1, outputs=make_outputs(number), now=3.0)
        m.fail(make_failure(11), epoch=1, now=3.0)
        m.fail(make_failure(12, fatal=True), epoch=1, now=3.0)
        for name, number in (("packed", 9), ("staged", 10), ("reported", 13)):
            m.pack(make_archive(name, [number]))
        m.staged("staged", storage_id=3)
        m.staged("reported", storage_id=3)
        m.reported("reported")
        m.put_ranges(make_ranges(1, 2), now=4.0)


def prepare_idle(queue: Queue) -> None:
    """A job without ranges."""
    with queue.moves() as m:
        m.set_job(JOB, "ending", {})


def one_move(verb: Callable[[Any], Any]) -> Verb:
    """A scenario of one transaction."""

    def act(queue: Queue) -> None:
        with queue.moves() as moves:
            verb(moves)

    return act


def hot_path(m: Any) -> None:
    """What the dispatcher does for one batch of messages."""
    m.finish(range_id(3), epoch=1, outputs=make_outputs(3), now=5.0, facts=(1, 2.0, 3.0))
    m.fail(make_failure(4), epoch=1, now=5.0)
    m.take(["b"], epoch=1, now=5.0)


def seal(m: Any) -> None:
    """What the stage-out worker commits: an archive, and what dropped out of it."""
    m.drop(range_id(7), make_failure(7), now=5.0)
    m.pack(make_archive("new", [8]))


def book(m: Any) -> None:
    """What the event-server worker commits after a report."""
    m.forget_failures([range_id(12)])
    m.reported("staged", refused=frozenset())


def let_go(m: Any) -> None:
    """Ranges and archives that the server wants no more."""
    m.give_back_ranges([range_id(1), range_id(5)])
    m.abandon_archive("packed")
    m.reported("staged", refused=frozenset([range_id(10)]))


def two_transactions(queue: Queue) -> None:
    """A verb as it must not be: done in one transaction and packed in a second."""
    with queue.moves() as m:
        m.finish(range_id(3), epoch=1, outputs=make_outputs(3), now=5.0)
    with queue.moves() as m:
        m.pack(make_archive("new", [3]))


def open_it(_: Queue) -> None:
    """Only the opening, which happens before this."""


SCENARIOS: dict[str, Verb] = {
    "open": open_it,
    "put": one_move(lambda m: m.put_ranges([make_range(2), make_range(20)], now=5.0)),
    "take": one_move(lambda m: m.take(["c", "d", "e"], epoch=1, now=5.0)),
    "finish": one_move(lambda m: m.finish(range_id(3), epoch=1, outputs=make_outputs(3), now=5.0)),
    "fail": one_move(lambda m: m.fail(make_failure(3, fatal=True), epoch=1, now=5.0)),
    "return-sent": one_move(lambda m: m.return_sent(epoch=1, owner="a")),
    "return-ranges": one_move(lambda m: m.return_ranges([range_id(4)], epoch=1)),
    "drop": one_move(lambda m: m.drop(range_id(7), None, now=5.0)),
    "forget-failures": one_move(lambda m: m.forget_failures([range_id(11)])),
    "give-back": one_move(lambda m: m.give_back(RangeState.READY)),
    "pack": one_move(lambda m: m.pack(make_archive("new", [7, 8]))),
    "staged": one_move(lambda m: m.staged("packed", storage_id=4)),
    "reported": one_move(lambda m: m.reported("staged")),
    "abandon": one_move(lambda m: m.abandon_archive("packed")),
    "forget-archive": one_move(lambda m: m.forget_archive("reported")),
    "job": one_move(lambda m: m.set_job(JOB, "exhausted", {})),
    "epoch": one_move(lambda m: m.set_epoch(2)),
    "hot-path": one_move(hot_path),
    "seal": one_move(seal),
    "book": one_move(book),
    "let-go": one_move(let_go),
    "clear-job": one_move(lambda m: m.clear_job()),
    "two-transactions": two_transactions,
}
IDLE = frozenset({"clear-job"})
"""Scenarios that begin with a job and no range."""
OPENING = frozenset({"open"})
"""Scenarios in which the opening is killed too."""


class Executioner:
    """Kills this process at the k-th opcode of the queue's own code."""

    def __init__(self, k: int) -> None:
        self._left = k

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Trace only the queue's frames, by opcode."""
        if not frame.f_code.co_filename.startswith(TRACED):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self.step

    def step(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Count one opcode."""
        if event == "opcode":
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.step


def die_at(k: int, directory: Path, name: str) -> None:
    """Do the scenario and die at its k-th opcode, or end with 0 when it has fewer."""
    executioner = Executioner(k)
    if name in OPENING:
        sys.settrace(executioner.enter)
    queue = Queue(directory, map_bytes=MAP_BYTES)
    sys.settrace(executioner.enter)
    SCENARIOS[name](queue)
    sys.settrace(None)
    os._exit(0)


def killed(k: int, directory: Path, name: str) -> bool:
    """Fork a child for one kill; False when the scenario ended by itself."""
    pid = os.fork()
    if pid == 0:
        try:
            die_at(k, directory, name)
        finally:
            os._exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), f"{name}: the child ended with {status} at {k}"
    return status != 0


def run(name: str, place: Path) -> int:
    """All kill points of a scenario; returns how many there were."""
    work = place / "work"
    queue = Queue(work, map_bytes=MAP_BYTES)
    prepare_idle(queue) if name in IDLE else prepare(queue)
    before = check_queue(queue)
    queue.close()
    data = (work / "data.mdb").read_bytes()
    assert not killed(NEVER, work, name)
    queue = Queue(work, map_bytes=MAP_BYTES)
    after = check_queue(queue)
    queue.close()
    assert name in OPENING or before != after, f"{name} changes nothing"
    k = 1
    (work / "data.mdb").write_bytes(data)
    while killed(k, work, name):
        queue = Queue(work, map_bytes=MAP_BYTES)
        found = check_queue(queue)
        assert found in (before, after), f"{name}: half done when killed at opcode {k}"
        go_round(queue, 50)
        check_queue(queue)
        queue.close()
        (work / "data.mdb").write_bytes(data)
        k += 1
    return k - 1


def main() -> int:
    """Run the named scenarios."""
    gc.freeze()
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory(prefix="espilot-q", dir="/tmp") as place:
            sys.stdout.write(f"{name} {run(name, Path(place))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
