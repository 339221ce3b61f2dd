"""The launcher with real processes: nothing of a payload outlives it, whoever dies first."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from espilot.adapters import process, proctree
from espilot.errors import LocalError, UsageError
from espilot.supervisor import launcher

DEADLINE_S = 20.0
# Writes its pid to the file "up" when it is ready, then waits for ever.
UP = "import os\nopen('u', 'w').write(str(os.getpid()))\nos.rename('u', 'up')\n"
WAIT = UP + "import signal\nwhile True: signal.pause()\n"
IGNORE_TERM = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT
# A daemon in a session of its own that ignores TERM: only the run id and the subreaper know it.
DAEMON = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open('daemon.tmp', 'w').write(str(os.getpid()))
        os.rename('daemon.tmp', 'daemon')
        while True: signal.pause()
    os._exit(0)
os.wait()
"""


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Wait until the condition is true, at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        select.select([], [], [], 0.005)
    return value


class Bench:
    """Starts launchers in the role of the supervisor, and ends whatever a test leaves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.result_path = directory / "result.json"
        self.run_id = f"test-{uuid.uuid4().hex}"
        self.death = process.DeathPipe()
        self.children: list[process.Child] = []

    def argv(self, payload: list[str], *, grace_s: float = 5.0, **options: Any) -> list[str]:
        return launcher.command(
            payload,
            directory=self.directory,
            result=self.result_path,
            death_fd=options.pop("death_fd", self.death.read_fd),
            grace_s=grace_s,
            **options,
        )

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "ESPILOT_RUN_ID": self.run_id}

    def start(self, payload: list[str], **options: Any) -> process.Child:
        child = process.spawn(
            self.argv(payload, **options), env=self.env, pass_fds=[self.death.read_fd]
        )
        self.children.append(child)
        return child

    def python(self, code: str, **options: Any) -> process.Child:
        return self.start([sys.executable, "-S", "-c", code], **options)

    def wait(self, child: process.Child) -> int:
        """The exit code of the launcher."""
        ready, _, _ = select.select([child.pidfd], [], [], DEADLINE_S)
        assert ready, "the launcher does not end"
        return dict(process.reap())[child.pid]

    def result(self) -> dict[str, Any]:
        return json.loads(self.result_path.read_text())

    def file(self, name: str) -> str:
        path = self.directory / name
        eventually(path.exists, f"file {name}")
        return path.read_text()

    def main(self, child: process.Child) -> proctree.Process:
        """The payload's main process, once it says that it is up."""
        main = proctree.look_up(int(self.file("up")))
        assert main is not None
        assert main.ppid == child.pid
        return main

    def clean(self) -> None:
        for child in self.children:
            child.signal(signal.SIGKILL)
            select.select([child.pidfd], [], [], DEADLINE_S)
            child.close()
        _, left = proctree.kill_until_gone(lambda: proctree.carriers(self.run_id), 10)
        process.reap()
        self.death.close()
        assert not left


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.clean()


def gone(bench: Bench) -> bool:
    return not proctree.carriers(bench.run_id)


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


def test_64_stubborn_processes_in_parallel(bench: Bench) -> None:
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
        launcher.Options(argv, "short")


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


def test_guard_against_orphanhood() -> None:
    """A worker whose parent is gone, or whose death pipe is closed, does not start."""
    code = (
        "import sys\nfrom espilot.adapters import process\nfrom espilot.errors import LocalError\n"
        "try: process.guard_against_orphanhood(int(sys.argv[1]), int(sys.argv[2]))\n"
        "except LocalError as error: print(error)\nelse: print('guarded')\n"
    )
    with process.DeathPipe() as death:

        def guard(parent_pid: int) -> str:
            argv = [sys.executable, "-c", code, str(parent_pid), str(death.read_fd)]
            return subprocess.check_output(argv, pass_fds=[death.read_fd], text=True).strip()

        assert guard(os.getpid()) == "guarded"
        assert guard(1) == "the supervisor (process 1) is gone"


def test_spawn_and_reap(tmp_path: Path) -> None:
    """A spawned child is reaped once, with its true exit code, and described in words."""
    with pytest.raises(LocalError, match="cannot start /no/such: No such file"):
        process.spawn(["/no/such"], env={})
    child = process.spawn([sys.executable, "-S", "-c", "raise SystemExit(255)"], env={})
    assert select.select([child.pidfd], [], [], DEADLINE_S)[0]
    assert process.reap() == [(child.pid, 255)]
    assert process.reap() == []
    assert not child.signal(signal.SIGTERM)
    child.close()
    assert process.pidfd_open(child.pid) is None
    assert process.describe_exit(255) == "exit code 255"
    assert process.describe_exit(-9) == "killed by SIGKILL (9)"


@pytest.fixture(autouse=True)
def _no_leaks(tmp_path: Path) -> Iterator[None]:
    """No test leaves a child or a file descriptor behind."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert set(os.listdir("/proc/self/fd")) <= before
    shutil.rmtree(tmp_path, ignore_errors=True)
