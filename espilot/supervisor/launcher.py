"""The payload's launcher: starts one payload, waits beside it, and ends its whole tree.

    python -m espilot.supervisor.launcher --dir DIR --result FILE --death-fd N [...] -- COMMAND ...

The supervisor starts it in a session of its own (`command` builds the command line) with the
environment that the payload shall have; ESPILOT_RUN_ID in it names the tree. In that order:

* When the payload's main process ends, what is left of its tree gets TERM, a short wait, KILL.
* On SIGTERM the whole tree gets TERM, at most `--grace-s`, KILL. A second one changes nothing.
* On end-of-file of the death pipe (the supervisor is dead) the whole tree gets KILL at once, and
  the paths given by `--remove` go.
* With `--group DIR` the payload is in that control group, and whoever is in it when the time of the
  tree is over gets KILL. A group that cannot be joined changes nothing else.

Every wait is one poll and ends early. The result is a JSON object in `--result`, written at once:
exit_code or signal of the main process (both null: see error), cpu_s and max_rss_kib of all that
was reaped, wall_s, leftovers_killed (processes that had to be ended after the main one). Our own
exit code is 0 when the result was written, 1 when not, 2 for a wrong command line.

One thread, no sockets, and at rest as little memory as possible: modules that are only needed for
ending a tree or for the result are imported there.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from espilot.adapters import process
from espilot.errors import EspilotError, LocalError, UsageError
from espilot.supervisor.launcher_options import RUN_ID_VARIABLE as RUN_ID_VARIABLE
from espilot.supervisor.launcher_options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import FrameType
    from typing import NoReturn

    from espilot.adapters.proctree import Process, TreeFinder

_KILL_TIMEOUT_S = 10.0
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def command(
    argv: Sequence[str],
    *,
    directory: Path,
    result: Path,
    death_fd: int,
    grace_s: float,
    remove: Sequence[Path] = (),
) -> list[str]:
    """The command line of a launcher for the payload `argv`.

    The interpreter is started without site-packages, which the launcher does not need: it saves a
    quarter of its memory.
    """
    boot = (
        f"import sys; sys.path.insert(0, {_ROOT!r}); "
        "from espilot.supervisor.launcher import run; run()"
    )
    options = ["--dir", str(directory), "--result", str(result)]
    options += ["--death-fd", str(death_fd), "--grace-s", str(grace_s)]
    for path in remove:
        options += ["--remove", str(path)]
    return [sys.executable, "-I", "-S", "-c", boot, *options, "--", *argv]


def in_group(argv: Sequence[str], group: Path) -> list[str]:
    """That command line, with the payload in a control group."""
    at = argv.index("--")
    return [*argv[:at], "--group", str(group), *argv[at:]]


class Launcher:
    """One payload from its start to the end of its tree."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stop = False
        self._main_pid = 0
        self._main_code: int | None = None
        self._error: str | None = None
        self._leftovers: set[tuple[int, int]] = set()
        self._started_mono = self._ended_mono = time.monotonic()
        self._wake_fd, wake_write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._error_fd = -1
        self._poller = select.poll()
        self._poller.register(self._wake_fd, select.POLLIN)
        self._poller.register(options.death_fd, select.POLLIN)
        os.set_inheritable(options.death_fd, False)
        signal.set_wakeup_fd(wake_write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._note_signal)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._note_signal)

    def _note_signal(self, signum: int, _frame: FrameType | None) -> None:
        """Only note it: the wake-up fd ends the poll."""
        if signum != signal.SIGCHLD:
            self._stop = True

    @property
    def orphaned(self) -> bool:
        """Whether the supervisor is dead."""
        return process.is_dead(self._options.death_fd)

    def run(self) -> dict[str, object]:
        """Start the payload, see it and its tree to their end; returns the result."""
        try:
            self._start()
        except OSError as error:
            self._error = f"cannot start payload: fork: {error.strerror}"
            return self._result()
        while self._main_code is None and not self._stop and not self.orphaned:
            self._poller.poll()
            self._collect()
        self._end_tree()
        self._collect()
        return self._result()

    def _start(self) -> None:
        """Fork the payload. Signals wait meanwhile, so that the child gets none of our handlers."""
        everything = signal.valid_signals()
        self._error_fd, error_write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, everything)
        own_pid = os.getpid()
        try:
            self._main_pid = os.fork()
            if self._main_pid == 0:
                _become_payload(self._options, own_pid, error_write_fd)
        finally:
            os.close(error_write_fd)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _collect(self) -> None:
        """Take the wake-ups and reap whatever has ended."""
        try:
            while os.read(self._wake_fd, 4096):
                pass
        except BlockingIOError:
            pass
        for pid, code in process.reap():
            if pid == self._main_pid:
                self._main_code = code
                self._ended_mono = time.monotonic()

    def _members(self, finder: TreeFinder) -> tuple[Process, ...]:
        """The living of the tree; notes those that are left over from an ended main process."""
        self._collect()
        found = finder.find()
        if self._main_code is not None and not self._stop:
            self._leftovers.update(each.identity for each in found)
        return found

    def _end_tree(self) -> None:
        """TERM and wait (not if the supervisor is dead), then KILL until nothing is left."""
        from espilot.adapters import proctree

        grace_s = self._options.grace_s if self._main_code is None else self._options.leftover_s
        self._terminate(time.monotonic() + grace_s)
        finder = proctree.TreeFinder(os.getpid(), self._options.run_id)
        if self._options.group:
            self._end_group()
        _, alive = proctree.kill_until_gone(lambda: self._members(finder), _KILL_TIMEOUT_S)
        if alive:
            pids = ", ".join(str(each.pid) for each in alive[:10])
            self._error = f"{len(alive)} processes could not be ended: {pids}"

    def _end_group(self) -> None:
        """KILL all of it in one go, faster than anything in it can fork."""
        from pathlib import Path

        from espilot.adapters import cgroup

        group = Path(self._options.group)
        if not self.orphaned:
            cgroup.kill_group(group)  # the supervisor reads its figures, then removes it
        else:
            cgroup.remove_group(group, _KILL_TIMEOUT_S)

    def _terminate(self, deadline: float) -> None:
        """TERM each process of the tree once; returns when all are gone or at the deadline."""
        from espilot.adapters import proctree

        told: set[tuple[int, int]] = set()
        finder = proctree.TreeFinder(os.getpid(), self._options.run_id)
        found = self._members(finder)
        while found and not self.orphaned and time.monotonic() < deadline:
            new = [each for each in found if each.identity not in told]
            proctree.signal_all(new, signal.SIGTERM)
            # A stopped process takes the TERM only when it goes on.
            proctree.signal_all(new, signal.SIGCONT)
            told.update(each.identity for each in new)
            self._wait_for(found, deadline)
            found = self._members(finder)

    def _wait_for(self, left: tuple[Process, ...], deadline: float) -> None:
        """Wait for the end of these, reaping; ends at the deadline or the supervisor's death."""
        from espilot.adapters import proctree

        wake_fds = (self._wake_fd, self._options.death_fd)
        while left and not self.orphaned and (left_s := deadline - time.monotonic()) > 0:
            left = proctree.wait_gone(left, left_s, wake_fds=wake_fds)
            self._collect()

    def _result(self) -> dict[str, object]:
        import resource

        code = self._main_code
        try:
            start_error = os.read(self._error_fd, 4096).decode("utf-8", "replace")
        except BlockingIOError:
            start_error = ""  # it lives still, which the error says already
        if code is None:
            self._ended_mono = time.monotonic()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "exit_code": code if code is not None and code >= 0 and not start_error else None,
            "signal": -code if code is not None and code < 0 else None,
            "error": start_error or self._error,
            "cpu_s": round(used.ru_utime + used.ru_stime, 3),
            "max_rss_kib": used.ru_maxrss,
            "wall_s": round(self._ended_mono - self._started_mono, 3),
            "leftovers_killed": len(self._leftovers),
        }


def _become_payload(options: Options, launcher_pid: int, error_fd: int) -> NoReturn:
    """In the child: turn into the payload; what goes wrong is told through `error_fd`."""
    what = options.directory
    try:
        os.setsid()
        process.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != launcher_pid:
            os._exit(127)  # it died before the kernel knew that we die with it
        os.chdir(options.directory)
        _redirect()
        _limit_core(options.core_bytes)
        if options.group:
            process.join_group(options.group)
        os.closerange(3, error_fd)
        os.closerange(error_fd + 1, os.sysconf("SC_OPEN_MAX"))
        process.reset_signals()
        what = options.command[0]
        os.execvpe(what, options.command, os.environ)
    except (OSError, LocalError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        os.write(error_fd, f"cannot start payload: {what}: {reason}".encode()[:4096])
    finally:
        os._exit(127)


def _redirect() -> None:
    """Standard input empty, output and error appended to files in the current directory."""
    append = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    for fd, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, "payload.stdout", append),
        (2, "payload.stderr", append),
    ):
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, fd)
        os.close(opened)


def _limit_core(core_bytes: int) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    wanted = core_bytes if hard == resource.RLIM_INFINITY else min(core_bytes, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (wanted, hard))


def write_result(path: str, result: dict[str, object]) -> None:
    """Write the result as JSON; a reader sees all of it or nothing. LocalError when impossible."""
    import json

    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as stream:  # noqa: PTH123
            json.dump(result, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from error


def _remove(paths: Sequence[str]) -> int:
    """Remove what the dead supervisor cannot; returns 1 when something stays."""
    from pathlib import Path

    from espilot.adapters import disk

    code = 0
    for path in paths:
        try:
            disk.remove_path(Path(path))
        except LocalError as error:
            code = _complain(error)
    return code


def _complain(error: EspilotError) -> int:
    sys.stderr.write(f"launcher: {error}\n")
    return 1


def main(argv: Sequence[str], run_id: str) -> int:
    """Run one payload; returns the launcher's own exit code."""
    try:
        options = Options(argv, run_id)
        process.become_subreaper()
        # Were we stopped when the supervisor dies, we could not read its death pipe.
        process.set_parent_death_signal(signal.SIGCONT)
        launcher = Launcher(options)
    except UsageError as error:
        _complain(error)
        return 2
    except LocalError as error:
        return _complain(error)
    except OSError as error:
        return _complain(LocalError(f"cannot watch the death pipe: {error.strerror}"))
    code = 0
    result = launcher.run()
    try:
        write_result(options.result, result)
    except LocalError as error:
        code = _complain(error)
    return _remove(options.remove) or code if launcher.orphaned else code


def run() -> NoReturn:
    """Entry point."""
    sys.exit(main(sys.argv[1:], os.environ.get(RUN_ID_VARIABLE, "")))


if __name__ == "__main__":
    run()
