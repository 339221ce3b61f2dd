"""The launcher when others fail: supervisor or launcher killed, wrong options, no result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launcher_bench import (
    DAEMON,
    IGNORE_TERM,
    Bench,
    benches,
    eventually,
    gone,
)

from espilot.adapters import process, proctree
from espilot.errors import UsageError
from espilot.supervisor.launcher_options import Options


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    yield from benches(tmp_path)


def test_closed_death_pipe(bench: Bench) -> None:
    """When the death pipe closes everything is killed at once and the given paths are removed."""
    runtime = bench.directory / "runtime"
    runtime.mkdir()
    (runtime / "socket").touch()
    kept = bench.directory / "kept"
    kept.mkdir()
    link = bench.directory / "link"
    link.symlink_to(kept)
    child = bench.python(DAEMON + IGNORE_TERM, grace_s=60, remove=[runtime, link])
    bench.main(child)
    bench.file("daemon")
    before = time.monotonic()
    bench.death.close()
    assert bench.wait(child) == 0
    assert time.monotonic() - before < 2
    assert gone(bench)
    assert not runtime.exists()
    assert not link.is_symlink()
    assert kept.is_dir()


SUPERVISOR = """
import json, os, signal, sys
from pathlib import Path
from espilot.adapters import process
death = process.DeathPipe()
argv = json.loads(sys.argv[1])
argv[argv.index('--death-fd') + 1] = str(death.read_fd)
child = process.spawn(argv, env=dict(os.environ), pass_fds=[death.read_fd])
Path(sys.argv[2]).write_text(str(child.pid))
signal.pause()
"""


@pytest.mark.parametrize("stop_launcher", [False, True])
def test_killed_supervisor(bench: Bench, stop_launcher: bool) -> None:
    """All is gone within 2 s after the SIGKILL of the supervisor, even with a stopped launcher."""
    argv = bench.argv([sys.executable, "-S", "-c", DAEMON + IGNORE_TERM], grace_s=60)
    pid_file = bench.directory / "pid"
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, json.dumps(argv), str(pid_file)], env=bench.env
    ) as supervisor:
        bench.file("up")
        bench.file("daemon")
        launcher_pid = int(pid_file.read_text())
        if stop_launcher:
            os.kill(launcher_pid, signal.SIGSTOP)
            eventually(lambda: proctree.look_up(launcher_pid).state == "T", "a stopped launcher")
        supervisor.kill()
    eventually(lambda: gone(bench), "the end of everything", timeout_s=2)
    eventually(bench.result_path.exists, "the result")


@pytest.fixture
def _subreaper() -> Iterator[None]:
    """This process takes over orphans, as the supervisor does."""
    process.become_subreaper()
    yield
    process._prctl(process._PR_SET_CHILD_SUBREAPER, 0)


@pytest.mark.usefixtures("_subreaper")
def test_killed_launcher(bench: Bench) -> None:
    """With its launcher the main process dies; its orphans are found by the run id and killed."""
    child = bench.python(DAEMON + IGNORE_TERM)
    main = bench.main(child)
    daemon = int(bench.file("daemon"))
    child.signal(signal.SIGKILL)
    assert bench.wait(child) == -signal.SIGKILL
    assert proctree.wait_gone([main], 2) == ()
    assert [each.pid for each in proctree.carriers(bench.run_id)] == [daemon]
    killed, left = proctree.kill_until_gone(lambda: proctree.members(child.pid, bench.run_id), 5)
    assert (killed, left) == (1, ())
    process.reap()
    assert proctree.look_up(daemon) is None


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--dir", "/tmp"], "command is missing"),
        (["--dir", "relative", "--", "x"], "--dir"),
        (["--dirr", "/tmp", "--", "x"], "--dirr"),
        (["--dir", "--", "x"], "--dir needs a value"),
        (["--dir", "/d", "--result", "/r", "--", "x"], "--death-fd"),
        (["--dir", "/d", "--result", "/r", "--death-fd", "nan", "--", "x"], "--death-fd"),
        (["--dir", "/d", "--result", "/r", "--death-fd", "3", "--", "x"], "ESPILOT_RUN_ID"),
    ],
)
def test_wrong_command_line(argv: list[str], words: str) -> None:
    """A wrong command line gives one line that names the option."""
    with pytest.raises(UsageError, match=words):
        Options(argv, "short")


def test_wrong_command_line_exit_code() -> None:
    """The launcher's exit code for a wrong command line is 2, with one line on stderr."""
    argv = [sys.executable, "-m", "espilot.supervisor.launcher", "--what"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("launcher: ")
    assert ended.stderr.count("\n") == 1


def test_result_that_cannot_be_written(bench: Bench) -> None:
    """A result that cannot be written is exit code 1; the tree is ended all the same."""
    bench.result_path = bench.directory / "absent" / "result.json"
    assert bench.wait(bench.python(DAEMON)) == 1
    assert gone(bench)


def test_fork_that_fails(bench: Bench) -> None:
    """When the machine has no process left for the payload, the result says so."""
    code = (
        "import errno, os, sys\n"
        "def fork(): raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))\n"
        "os.fork = fork\n"
        "from espilot.supervisor import launcher\nlauncher.run()\n"
    )
    argv = bench.argv(["true"])
    argv = [sys.executable, "-c", code, *argv[argv.index("--dir") :]]
    child = process.spawn(argv, env=bench.env, pass_fds=[bench.death.read_fd])
    bench.children.append(child)
    assert bench.wait(child) == 0
    assert bench.result()["error"] == (
        "cannot start payload: fork: Resource temporarily unavailable"
    )


def test_bad_death_pipe(bench: Bench) -> None:
    """A death pipe that is none starts nothing and says so in one line."""
    argv = bench.argv(["touch", str(bench.directory / "started")], death_fd=99)
    ended = subprocess.run(argv, env=bench.env, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "launcher: cannot watch the death pipe: Bad file descriptor\n"
    assert not (bench.directory / "started").exists()
