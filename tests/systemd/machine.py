"""A machine for tests: systemd as PID 1 in a container whose disk is a copy-on-write view of ours.

The launcher sits in control groups of its own before it starts: otherwise the inner systemd would
take over those of the whole machine. Everything is taken away again by `close`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

NAME = f"esptest{os.getpid()}"
GROUPS = [Path("/sys/fs/cgroup", name) for name in ("systemd", "unified")]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def why_not() -> str:
    """Why there can be no such machine here; "" when there can."""
    if os.geteuid() != 0:
        return "not root"
    missing = [n for n in ("systemd-nspawn", "nsenter", "unshare") if shutil.which(n) is None]
    if missing:
        return f"{missing[0]} is not installed (see tests/systemd/install_packages.sh)"
    if not Path("/usr/lib/systemd/systemd").exists():
        return "systemd is not installed"
    return ""


def control_groups() -> list[Path]:
    """The launcher's own groups: two in a hybrid layout, one in the unified one."""
    hybrid = [parent for parent in GROUPS if parent.is_dir()]
    return [parent / NAME for parent in hybrid or [Path("/sys/fs/cgroup")]]


class Machine:
    """Booted when it is made."""

    def __init__(self, directory: Path) -> None:
        self.base = directory / "machine"
        self.root = self.base / "root"
        self.leader = 0
        self._launcher: subprocess.Popen[bytes] | None = None
        self._log = directory / "machine.log"
        self._mount()

    def _mount(self) -> None:
        self.base.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(self.base)], check=True)
        for name in ("up", "wk", "root"):
            (self.base / name).mkdir()
        options = f"lowerdir=/,upperdir={self.base}/up,workdir={self.base}/wk"
        argv = ["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)]
        subprocess.run(argv, check=True)

    def boot(self) -> None:
        """Start PID 1, and wait until it runs."""
        groups = control_groups()
        for group in groups:
            group.mkdir(exist_ok=True)
        joins = "".join(f"echo $$ > {group}/cgroup.procs; " for group in groups)
        nspawn = (
            f"exec systemd-nspawn --register=no --keep-unit --private-network "
            f"--console=read-only -M {NAME} -D {self.root} --boot "
            f"--setenv=SYSTEMD_LOG_TARGET=console -- --log-level=info --unit=basic.target"
        )
        # A test run that is killed takes the machine with it.
        with self._log.open("wb") as log:
            self._launcher = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "bash", "-c", joins + nspawn],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait(self._find_leader, "the machine boots")
        self._wait(lambda: self.run("systemctl", "is-system-running", check=False).strip()
                   in ("running", "degraded"), "systemd runs")  # fmt: skip

    def _find_leader(self) -> bool:
        assert self._launcher is not None
        if self._launcher.poll() is not None:
            raise AssertionError(f"no machine: {self._log.read_text(errors='replace')[-2000:]}")
        children = Path(f"/proc/{self._launcher.pid}/task/{self._launcher.pid}/children")
        for pid in children.read_text().split():
            # Its own first child has our name too, until it is PID 1.
            if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                self.leader = int(pid)
                return True
        return False

    def _wait(self, condition: object, what: str, within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():  # type: ignore[operator]
            if time.monotonic() > deadline:
                raise AssertionError(f"not in {within_s:g} s: {what}; {self._tail()}")
            time.sleep(0.05)

    def log(self) -> str:
        """What PID 1 wrote to its console."""
        return self._log.read_text(errors="replace")

    def _tail(self) -> str:
        return self.log()[-3000:]

    def enter(self, *argv: str) -> list[str]:
        """The command line that runs something in the machine."""
        options = ["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w/"]
        return ["nsenter", "-t", str(self.leader), *options, *argv]

    def run(self, *argv: str, check: bool = True, timeout_s: float = 120.0) -> str:
        """Run a command in the machine; its output."""
        done = subprocess.run(
            self.enter(*argv), capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{argv}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "-P", name, unit).strip()

    def close(self) -> None:
        """Power off, and take mounts and control groups away."""
        if self._launcher is not None:
            if self.leader:
                self.run("systemctl", "poweroff", "--force", check=False)
            try:
                self._launcher.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._launcher.pid, signal.SIGKILL)
                self._launcher.wait()
        end_members()
        for path in (self.root, self.base):
            subprocess.run(["umount", "-R", str(path)], check=False, **QUIET)
            if path.is_mount():
                subprocess.run(["umount", "-l", str(path)], check=False, **QUIET)
        for group in control_groups():
            remove_group(group)
        shutil.rmtree("/run/systemd/nspawn", ignore_errors=True)


def end_members() -> None:
    """KILL what is left in our groups: a machine whose PID 1 dies is gone."""
    for group in control_groups():
        for members in [*group.rglob("cgroup.procs")]:
            for pid in members.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def remove_group(group: Path) -> None:
    """Remove a control group with all below it, once it is empty."""
    deadline = time.monotonic() + 10.0
    while group.is_dir():
        below = [path for path in group.rglob("*") if path.is_dir()]
        try:
            for path in [*sorted(below, reverse=True), group]:
                path.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                sys.stderr.write(f"control group {group} stays\n")
                return
            time.sleep(0.1)
