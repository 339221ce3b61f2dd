"""Process trees with real processes: found by descent and by run id, measured, signalled."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from espilot.adapters import proctree, procusage

FAMILY = """
import os, signal, sys
for _ in range(int(sys.argv[1])):
    if os.fork() == 0: break
else:
    print('up', flush=True)
while True: signal.pause()
"""


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """Wait until the condition is true, at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        select.select([], [], [], 0.005)
    return value


class Family:
    """A process with children, all carrying a run id."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.started: list[subprocess.Popen[str]] = []

    def start(self, code: str, *args: str) -> subprocess.Popen[str]:
        """Start Python; returns when it said `up`."""
        started = subprocess.Popen(
            [sys.executable, "-S", "-c", code, *args],
            env={**os.environ, "ESPILOT_RUN_ID": self.run_id},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(started)
        assert started.stdout is not None
        assert started.stdout.readline() == "up\n"
        return started

    def end(self) -> None:
        _, left = proctree.kill_until_gone(lambda: proctree.carriers(self.run_id), 10)
        for started in self.started:
            started.kill()
            started.communicate()
        assert not left


@pytest.fixture
def family() -> Iterator[Family]:
    family = Family(f"test-{uuid.uuid4().hex}")
    yield family
    family.end()


def test_descendants_and_carriers(family: Family) -> None:
    """A family is found by descent and by run id; neither finds who looks."""
    root = family.start(FAMILY, "3")
    children = {each.pid for each in proctree.descendants(root.pid)}
    assert len(children) == 3
    assert {each.pid for each in proctree.carriers(family.run_id)} == children | {root.pid}
    assert {each.pid for each in proctree.members(root.pid, "no-such-run")} == children | {root.pid}
    assert os.getpid() not in {each.pid for each in proctree.members(os.getpid(), family.run_id)}


def test_run_id_is_compared_whole(family: Family) -> None:
    """A run id that only begins or ends like another one's is not the same."""
    family.start(FAMILY, "0")
    assert proctree.carriers(family.run_id[:-1]) == ()
    assert proctree.carriers(family.run_id + "0") == ()
    assert proctree.carriers("") == ()


def test_ancestors_are_spared(family: Family) -> None:
    """Who looks for carriers finds neither itself nor its ancestors, which carry the id too."""
    look = (
        "import sys; from espilot.adapters import proctree\n"
        "print([each.pid for each in proctree.carriers(sys.argv[1])])"
    )
    code = (
        "import subprocess, sys\nprint('up', flush=True)\n"
        "subprocess.run([sys.argv[1], '-c', *sys.argv[2:]])\n"
    )
    sibling = family.start(FAMILY, "0")
    child = family.start(code, sys.executable, look, family.run_id)
    output, _ = child.communicate(timeout=20)
    assert output == f"[{sibling.pid}]\n"


def test_strange_command_name(family: Family) -> None:
    """Blanks and parentheses in the name of a program do not confuse."""
    child = family.start("open('/proc/self/comm', 'w').write(') Z 1 (x');" + FAMILY, "0")
    process = proctree.look_up(child.pid)
    assert process is not None
    assert process.ppid == os.getpid()
    assert process.alive


def test_lesson_31_cpu_time_of_a_strangely_named_process(family: Family) -> None:
    """A process named `a b)` that never waited for a child has its CPU time."""
    code = (
        "open('/proc/self/comm', 'w').write('a b)')\n"
        "import signal, time\n"
        "while time.process_time() < 0.3: pass\n"
        "print('up', flush=True)\nsignal.pause()\n"
    )
    child = family.start(code)
    sample = proctree.TreeSampler(child.pid).sample()
    assert (sample.processes, sample.pids) == (1, (child.pid,))
    assert 0.25 < sample.cpu_s < 2.0


def test_missing_process() -> None:
    """A process that does not exist is None, its descendants none, its sample empty."""
    pid = subprocess.Popen(["true"])
    pid.wait()
    assert proctree.look_up(pid.pid) is None
    assert proctree.descendants(pid.pid) == ()
    assert proctree.sample_tree(pid.pid, "no-such-run") == proctree.TreeSample(0, 0, 0)


def test_sample(family: Family) -> None:
    """A sample has processes, memory, and CPU time; shared memory counts once in the PSS."""
    root = family.start(FAMILY, "3")
    sample = proctree.sample_tree(root.pid, family.run_id)
    assert sample.processes == len(sample.pids) == 4
    assert root.pid in sample.pids
    pss = procusage.pss_bytes(sample.pids)
    assert pss is not None
    assert 10**6 < pss < sample.rss_bytes < 400 * 10**6


def test_usage_of_a_process_that_is_gone() -> None:
    """It counts as nothing, and is no reason to know nothing of the others."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = procusage.pss_bytes([os.getpid()])
    assert mine is not None
    together = procusage.pss_bytes([os.getpid(), ended.pid])
    assert together is not None
    assert 0.5 < together / mine < 2
    assert procusage.io_bytes([ended.pid]) == (0, 0)


def test_bytes_of_ended_children(family: Family, tmp_path: Path) -> None:
    """What an ended child wrote stays in the sum of its parent."""
    code = (
        "import os, signal, sys\n"
        "if os.fork() == 0:\n"
        "    with open(sys.argv[-1], 'wb') as file:\n"
        "        file.write(bytes(3000000)); file.flush(); os.fsync(file.fileno())\n"
        "    os._exit(0)\n"
        "os.wait()\nprint('up', flush=True)\nsignal.pause()\n"
    )
    before = procusage.io_bytes([os.getpid()])[1]
    with (tmp_path / "mine").open("wb") as mine:
        mine.write(bytes(100_000))
        mine.flush()
        os.fsync(mine.fileno())
    if procusage.io_bytes([os.getpid()])[1] == before:
        pytest.skip("NOT TESTED: bytes of ended children; this file system has no disk below it")
    root = family.start(code, str(tmp_path / "written"))
    _, written = procusage.io_bytes([root.pid])
    assert 3_000_000 <= written < 4_000_000


def test_cpu_of_ended_children(family: Family) -> None:
    """CPU time that ended children used stays in the sum of the tree."""
    code = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    while time.process_time() < 0.3: pass\n"
        "    os._exit(0)\n"
        "os.wait()\nprint('up', flush=True)\nsignal.pause()\n"
    )
    root = family.start(code)
    assert proctree.descendants(root.pid) == ()
    assert 0.25 < proctree.sample_tree(root.pid, family.run_id).cpu_s < 2.0


def test_sampler_sees_new_processes(family: Family) -> None:
    """Repeated samples notice new and ended processes though most of the machine is skipped."""
    root = family.start(FAMILY, "1")
    sampler = proctree.TreeSampler(os.getpid())
    assert sampler.sample().processes == 3
    family.start(FAMILY, "2")
    assert sampler.sample().processes == 6
    root.kill()
    root.wait()
    for _ in range(40):
        sample = sampler.sample()
    # The orphaned child of the killed one belongs to somebody else now.
    assert sample.processes == 4


def test_carriers_are_sampled_without_root(family: Family) -> None:
    """When the root is gone the run id still finds what belongs to the payload."""
    root = family.start(FAMILY, "2")
    root.kill()
    root.wait()
    assert proctree.sample_tree(root.pid, family.run_id).processes == 2


def test_signal_only_the_same_process(family: Family) -> None:
    """A signal meant for a former holder of the pid is not sent."""
    root = family.start(FAMILY, "0")
    process = proctree.look_up(root.pid)
    assert process is not None
    former = proctree.Process(
        pid=process.pid,
        ppid=process.ppid,
        state="S",
        threads=1,
        start_ticks=process.start_ticks - 1,
        cpu_s=0.0,
        rss_bytes=0,
    )
    assert proctree.signal_all([former], signal.SIGKILL) == 0
    assert proctree.wait_gone([former], 0) == ()
    assert proctree.look_up(root.pid).alive
    assert proctree.signal_all([process], signal.SIGKILL) == 1
    assert proctree.wait_gone([process], 10) == ()


def test_wait_gone_many(family: Family) -> None:
    """More processes than are watched at once: each one is waited for, zombies count as gone."""
    root = family.start(FAMILY, "200")
    family_now = proctree.members(root.pid, family.run_id)
    assert len(family_now) == 201
    children = [each for each in family_now if each.pid != root.pid]
    assert len(proctree.wait_gone(family_now, 0.0)) == 201
    assert proctree.signal_all(children, signal.SIGKILL) == 200
    assert proctree.wait_gone(children, 10) == ()
    assert len(proctree.descendants(root.pid)) == 200
    assert [each.pid for each in proctree.members(root.pid, family.run_id)] == [root.pid]


def test_wait_gone_wakes_up(family: Family) -> None:
    """A readable wake-up fd ends the wait at once; a deadline ends it in time."""
    root = family.start(FAMILY, "0")
    process = proctree.members(root.pid, family.run_id)
    read_fd, write_fd = os.pipe()
    try:
        os.write(write_fd, b"x")
        before = time.monotonic()
        assert proctree.wait_gone(process, 60, wake_fds=[read_fd]) == process
        assert time.monotonic() - before < 5
    finally:
        os.close(read_fd)
        os.close(write_fd)
    before = time.monotonic()
    assert proctree.wait_gone(process, 0.2) == process
    assert 0.2 <= time.monotonic() - before < 5


def test_main_thread_that_ended(family: Family) -> None:
    """A process whose main thread has ended while others run is alive, and can be killed."""
    code = (
        "import ctypes, threading\n"
        "def wait(): print('up', flush=True); threading.Event().wait()\n"
        "threading.Thread(target=wait).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    root = family.start(code)
    eventually(lambda: proctree.look_up(root.pid).state == "Z", "an ended main thread")
    (process,) = proctree.members(root.pid, "no-such-run")
    assert proctree.wait_gone([process], 0) == (process,)
    killed, left = proctree.kill_until_gone(lambda: proctree.members(root.pid, family.run_id), 10)
    assert (killed, left) == (1, ())


def test_kill_until_gone_catches_forks(family: Family) -> None:
    """Processes that are forked while others are killed do not escape."""
    code = (
        "import os, signal, sys, time\nprint('up', flush=True)\n"
        "for _ in range(1500):\n"
        "    end = time.monotonic() + 0.002\n"
        "    while time.monotonic() < end: pass\n"
        "    if os.fork(): break\n"
        "signal.pause()\n"
    )
    root = family.start(code)
    eventually(lambda: len(proctree.carriers(family.run_id)) > 5, "a growing family")
    finder = proctree.TreeFinder(root.pid, family.run_id)
    killed, left = proctree.kill_until_gone(finder.find, 10)
    assert killed > 5
    assert left == ()
    assert proctree.carriers(family.run_id) == ()
    root.wait()
