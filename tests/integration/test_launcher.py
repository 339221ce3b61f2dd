"""The launcher with real processes: nothing of a payload outlives it."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launcher_bench import (
    DAEMON,
    IGNORE_TERM,
    WAIT,
    Bench,
    benches,
    eventually,
    gone,
)

from espilot.adapters import process, proctree


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    yield from benches(tmp_path)


def test_exit_code_and_measurements(bench: Bench) -> None:
    """The result has the main process' exit code, 255 included, and what it used."""
    child = bench.python("import sys; sum(range(3000000)); print('out'); sys.exit(255)")
    assert bench.wait(child) == 0
    result = bench.result()
    assert (result["exit_code"], result["signal"], result["error"]) == (255, None, None)
    assert 0 < result["cpu_s"] < 10
    assert 5000 < result["max_rss_kib"] < 200_000
    assert 0 < result["wall_s"] < 10
    assert result["leftovers_killed"] == 0
    assert bench.file("payload.stdout") == "out\n"
    assert not list(bench.directory.glob("*.tmp"))


def test_death_by_signal(bench: Bench) -> None:
    """A payload that kills itself is told from one that exits."""
    bench.wait(bench.python("import os; os.kill(os.getpid(), 11)"))
    assert (bench.result()["exit_code"], bench.result()["signal"]) == (None, 11)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/no/such/program", "No such file or directory"),
        ("no-such-program-anywhere", "No such file or directory"),
        ("/etc/passwd", "Permission denied"),
    ],
)
def test_command_that_cannot_be_started(bench: Bench, command: str, reason: str) -> None:
    """A command that cannot be executed gives one line that names it, and no exit code."""
    assert bench.wait(bench.start([command])) == 0
    result = bench.result()
    assert result["error"] == f"cannot start payload: {command}: {reason}"
    assert result["exit_code"] is None
    assert bench.file("payload.stderr") == ""


def test_missing_directory(bench: Bench) -> None:
    """A payload directory that does not exist is named."""
    argv = bench.argv(["true"])
    argv[argv.index("--dir") + 1] = str(bench.directory / "absent")
    child = process.spawn(argv, env=bench.env, pass_fds=[bench.death.read_fd])
    bench.children.append(child)
    bench.wait(child)
    assert bench.result()["error"].endswith("absent: No such file or directory")


def test_term_ends_early(bench: Bench) -> None:
    """A payload that obeys TERM is gone long before the grace is over."""
    child = bench.python(WAIT, grace_s=60)
    bench.main(child)
    before = time.monotonic()
    child.signal(signal.SIGTERM)
    assert bench.wait(child) == 0
    assert time.monotonic() - before < 10
    assert bench.result()["signal"] == signal.SIGTERM
    assert bench.result()["leftovers_killed"] == 0


def test_stubborn_payload_is_killed(bench: Bench) -> None:
    """One that ignores TERM is killed after the grace; a second TERM does not restart the clock."""
    child = bench.python(IGNORE_TERM, grace_s=1.0)
    bench.main(child)
    before = time.monotonic()
    child.signal(signal.SIGTERM)
    while not select.select([child.pidfd], [], [], 0.3)[0]:
        child.signal(signal.SIGTERM)
        assert time.monotonic() - before < 5
    bench.wait(child)
    assert 1.0 <= time.monotonic() - before < 3
    assert bench.result()["signal"] == signal.SIGKILL
    assert gone(bench)


def test_lesson_42_stubborn_processes_are_ended_in_parallel(bench: Bench) -> None:
    """64 processes that ignore TERM, each in a session of its own, take one grace, not 64."""
    code = (
        "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for _ in range(63):\n    if os.fork() == 0:\n        os.setsid(); break\n"
        "else:\n    open('u', 'w').write(str(os.getpid()))\n    os.rename('u', 'up')\n"
        "while True: signal.pause()\n"
    )
    child = bench.python(code, grace_s=0.5)
    bench.main(child)
    assert eventually(lambda: len(proctree.descendants(child.pid)) == 64, "64 processes")
    before = time.monotonic()
    child.signal(signal.SIGTERM)
    bench.wait(child)
    assert time.monotonic() - before < 5
    assert gone(bench)


def test_stopped_payload_gets_its_term(bench: Bench) -> None:
    """A payload in SIGSTOP is woken to take its TERM."""
    child = bench.python(WAIT, grace_s=60)
    main = bench.main(child)
    proctree.signal_all([main], signal.SIGSTOP)
    eventually(lambda: proctree.look_up(main.pid).state == "T", "a stopped payload")
    before = time.monotonic()
    child.signal(signal.SIGTERM)
    bench.wait(child)
    assert time.monotonic() - before < 10
    assert bench.result()["signal"] == signal.SIGTERM


def test_leftovers_are_ended(bench: Bench) -> None:
    """A daemon that the payload leaves behind is ended and counted; the exit code stays."""
    child = bench.python(DAEMON + "raise SystemExit(3)")
    assert bench.wait(child) == 0
    assert bench.result()["exit_code"] == 3
    assert bench.result()["leftovers_killed"] == 1
    assert gone(bench)


def test_daemon_is_reaped(bench: Bench) -> None:
    """An orphan that ends while the payload runs does not stay as a zombie."""
    child = bench.python(DAEMON + WAIT)
    bench.main(child)
    daemon = int(bench.file("daemon"))
    assert proctree.look_up(daemon).ppid == child.pid
    os.kill(daemon, signal.SIGKILL)
    eventually(lambda: proctree.look_up(daemon) is None, "a reaped orphan")
    assert all(each.alive for each in proctree.descendants(child.pid))


def test_foreign_process_survives(bench: Bench) -> None:
    """A process of the same user that is not of this run is left alone, another run's too."""
    other = {**os.environ, "ESPILOT_RUN_ID": bench.run_id + "0"}
    foreign = process.spawn([sys.executable, "-S", "-c", WAIT], env=other, cwd=bench.directory)
    bench.children.append(foreign)
    bench.file("up")
    (bench.directory / "up").unlink()
    child = bench.python(WAIT)
    bench.main(child)
    child.signal(signal.SIGTERM)
    bench.wait(child)
    assert proctree.look_up(foreign.pid).alive


INSPECT = """
import os, signal, resource
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
ignored = [s for s in signal.valid_signals() if s not in (9, 19) and s < 32
           and int(status['SigIgn'], 16) >> (s - 1) & 1]
fds = [int(f) for f in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + f)]
print([int(s) for s in ignored], int(status['SigBlk'], 16), sorted(fds),
      os.getsid(0) == os.getpid(), resource.getrlimit(resource.RLIMIT_CORE)[0],
      os.readlink('/proc/self/fd/0'))
"""


def test_what_the_payload_inherits(bench: Bench) -> None:
    """The payload has default signals, an open mask, fds 0 to 2, its own session, no core dumps."""
    extra = os.open(os.devnull, os.O_RDONLY)
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGQUIT)}
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        argv = bench.argv([sys.executable, "-S", "-c", INSPECT])
        child = process.spawn(argv, env=bench.env, pass_fds=[bench.death.read_fd, extra])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(extra)
    bench.children.append(child)
    bench.wait(child)
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25) at its start.
    assert bench.file("payload.stdout") == "[13, 25] 0 [0, 1, 2] True 0 /dev/null\n"


def test_launcher_is_small(bench: Bench) -> None:
    """At rest the launcher has loaded nothing third-party and little memory of its own."""
    child = bench.python(WAIT)
    bench.main(child)
    sample = proctree.TreeSampler(child.pid).sample()
    assert sample.processes == 2
    rollup = Path(f"/proc/{child.pid}/smaps_rollup").read_text()
    private_kib = [int(line.split()[1]) for line in rollup.splitlines() if "Private_Dirty" in line]
    assert private_kib[0] < 6000
    maps = Path(f"/proc/{child.pid}/maps").read_text()
    assert "site-packages" not in maps


def test_payload_shares_the_grace(bench: Bench) -> None:
    """After TERM what the main process leaves behind has the rest of the grace, no new one."""
    child = bench.python(DAEMON + WAIT, grace_s=1.0)
    bench.main(child)
    bench.file("daemon")
    before = time.monotonic()
    child.signal(signal.SIGTERM)
    bench.wait(child)
    assert 1.0 <= time.monotonic() - before < 3
    assert bench.result()["signal"] == signal.SIGTERM
    assert gone(bench)
