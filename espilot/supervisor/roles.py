"""The worker processes: start, watch, stop, restart by the table in `core/restart.py`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from espilot.adapters import process
from espilot.config import Settings, credential_variables
from espilot.core.restart import RULES, Died, GiveUp, RestartCounter, Started
from espilot.errors import LocalError
from espilot.logs import Log
from espilot.workers.context import Context

START_S = 60.0
"""So long a role may take from its start to its first message."""
STOP_S = 5.0
"""So long a role may take to end when told to."""
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""For the C library: the few threads of a worker share one heap, and large buffers go back to the
system at once. Without it the stage-out worker keeps 15 MB more after a few archives."""
PACKAGE_ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(slots=True)
class Role:
    """One role and its present process. Times are monotonic."""

    name: str
    counter: RestartCounter
    child: process.Child | None = None
    started: float = 0.0
    heard: float | None = None
    wanted: bool = True
    renewing: bool = False
    facts: dict[str, object] = field(default_factory=dict)

    def is_silent(self, now: float, limit_s: float) -> bool:
        """Whether its loop has not turned for longer than it may."""
        if self.heard is None:
            return now - self.started > START_S
        return now - self.heard > limit_s


class Roles:
    """All workers of this pilot."""

    def __init__(self, context: Callable[[], Context], log: Log, death_fd: int) -> None:
        self._context = context
        self._log = log
        self._death_fd = death_fd
        self._roles: dict[str, Role] = {}

    def start(self, name: str) -> None:
        """Start a role (again)."""
        role = self._roles.setdefault(name, Role(name, self._new_counter(name)))
        if role.child is not None or not role.wanted:
            return
        context = self._context()
        context_file = context.runtime / f"context-{name}.json"
        try:
            context.write(context_file)
        except LocalError as error:
            if not context_file.exists():
                raise
            self._log.warning("start", "role starts with its former settings", role=name,
                              error=error)  # fmt: skip
        argv = [sys.executable, "-P", "-m", "espilot.workers", name, str(context_file)]
        argv += [str(os.getpid()), str(self._death_fd)]
        with context.log_file.open("ab") as log_file:
            role.child = process.spawn(
                argv,
                env=worker_environment(name, context.settings),
                pass_fds=(self._death_fd,),
                stdout=log_file.fileno(),
                stderr=log_file.fileno(),
            )
        role.started, role.heard = time.monotonic(), None
        role.counter.handle(Started(), role.started)
        self._log.info("start", "role started", role=name, pid=role.child.pid)

    def _new_counter(self, name: str) -> RestartCounter:
        limits = self._context().settings.limits
        rule = replace(RULES[name], starts=limits.role_restarts, window_s=limits.role_window_s)
        return RestartCounter(rule)

    def heard(self, name: str, now: float) -> None:
        """A message came from the role."""
        role = self._roles.get(name)
        if role is not None and role.child is not None:
            role.heard = now

    def ended(self, pid: int, code: int, now: float) -> tuple[str, float | GiveUp | None] | None:
        """A child of the supervisor was reaped.

        Returns the role's name and when to start it again, why not, or None when it is not wanted;
        None when the child is no role.
        """
        role = next((r for r in self._roles.values() if r.child and r.child.pid == pid), None)
        if role is None or role.child is None:
            return None
        role.child.close()
        role.child = None
        if not role.wanted:
            self._log.info("reap", "role ended", role=role.name, how=process.describe_exit(code))
            return role.name, None
        renewing, role.renewing = role.renewing, False
        if renewing:
            self._log.info("reap", "role ended for a new one", role=role.name)
        else:
            self._log.warning("reap", "role died", role=role.name, how=process.describe_exit(code))
        after = role.counter.handle(Died(own_fault=not renewing), now)
        assert after is not None
        return role.name, after if isinstance(after, GiveUp) else after.at_mono

    def kill_silent(self, now: float) -> None:
        """KILL every role whose loop does not turn; it is restarted when it is reaped."""
        limit_s = self._context().settings.limits.silent_s
        for role in self._roles.values():
            if role.child is not None and role.is_silent(now, limit_s):
                self._log.error("kill", "role is silent", role=role.name, pid=role.child.pid,
                                silent_s=now - (role.heard or role.started))  # fmt: skip
                role.child.signal(signal.SIGKILL)
                role.heard = now

    def shift(self, gap_s: float) -> None:
        """The machine was suspended: nobody could be heard meanwhile."""
        for role in self._roles.values():
            role.started += gap_s
            if role.heard is not None:
                role.heard += gap_s

    def unwant(self, name: str) -> bool:
        """The role shall end and not start again; returns whether it runs."""
        role = self._roles.get(name)
        if role is None:
            return False
        role.wanted = False
        return role.child is not None

    def renew(self, name: str) -> bool:
        """The role is about to be ended for a new one; that is no death of its own.

        Returns whether it runs.
        """
        role = self._roles.get(name)
        if role is None or role.child is None:
            return False
        role.renewing = True
        return True

    def last_heard(self) -> dict[str, float]:
        """When each role that runs gave its last sign of life (monotonic)."""
        running = [each for each in self._roles.values() if each.child is not None]
        return {each.name: each.heard for each in running if each.heard is not None}

    def terminate(self, name: str) -> None:
        """TERM a role; the built-in server listens to nothing else."""
        role = self._roles.get(name)
        if role is not None and role.child is not None:
            role.child.signal(signal.SIGTERM)

    def kill(self, name: str) -> None:
        """KILL a role."""
        role = self._roles.get(name)
        if role is not None and role.child is not None:
            role.child.signal(signal.SIGKILL)

    def pids(self) -> dict[str, int]:
        """The processes that run, by role."""
        return {r.name: r.child.pid for r in self._roles.values() if r.child is not None}


def worker_environment(name: str, settings: Settings) -> dict[str, str]:
    """A worker's environment; what opens the storages is only for the one that uses them."""
    env = python_environment() | MALLOC
    private = () if name == "stageout" else credential_variables(settings)
    return {key: value for key, value in env.items() if key not in private}


def python_environment() -> dict[str, str]:
    """Our environment, with the package importable from where it is."""
    env = dict(os.environ)
    paths = [str(PACKAGE_ROOT), *filter(None, [env.get("PYTHONPATH")])]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    return env
