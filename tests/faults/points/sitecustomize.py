"""Kills a process of the pilot, or does it harm, at a chosen point, without a hook in the product.

Python imports this module at its start when its directory is on PYTHONPATH. The environment
variable TEST_FAULT_POINT holds a JSON object:

* `role`: which process is meant, and only that: `supervisor`, `payload`, or a worker's role
* `target`: `module:attribute` of a function or method that is wrapped
* `when`: `before` the call, `after` it, or `committed`: after the transaction of a move
* `nth`: the n-th such moment counts; `within`: only calls below a function of this name do
* `marker`: a file that is made by the kill, so that there is one in all
* `victim`: who is killed, if it is another one: a worker's role
* `act`: what happens instead of the kill: `clock SECONDS` sets this process's clock, `descriptors
  SECONDS` leaves it without new ones for so long, `skip` makes the call say yes and do nothing

It must import nothing of the product itself, and little else.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

ROLES = ("dispatcher", "event-server", "stageout", "builtin-server")


def role_of(argv):
    """The role of a process by its command line; "" for all others."""
    if "espilot.workers" in argv:
        return next((role for role in ROLES if role in argv), "")
    names = [os.path.basename(word) for word in argv[:3]]
    if "fake-payload" in names:
        return "payload"
    return "supervisor" if "espilot" in names else ""


class Point:
    """One moment in the life of a process, and the kill."""

    def __init__(self, plan):
        self.module, _, self.attribute = plan["target"].partition(":")
        self._plan = plan
        self._count = 0
        self._armed = threading.local()

    def install(self):
        """Wrap the target: at once, or as soon as its module is loaded."""
        if self.module in sys.modules:
            self.wrap(sys.modules[self.module])
        else:
            sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        """The module's own loader, followed by the wrapping."""
        if name != self.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def execute_and_wrap(module):
            execute(module)
            self.wrap(module)

        spec.loader.exec_module = execute_and_wrap
        return spec

    def wrap(self, module):
        """Put the point around the function."""
        *owners, name = self.attribute.split(".")
        owner = module
        for each in owners:
            owner = getattr(owner, each)
        original = getattr(owner, name)
        when = self._plan["when"]

        def wrapped(*args, **kwargs):
            if when == "before" and self.reach() == "skip":
                return None
            result = original(*args, **kwargs)
            if when == "after":
                self.reach()
            elif when == "committed":
                self._armed.value = True
            return result

        setattr(owner, name, wrapped)
        if when == "committed":
            self._wrap_end(owner)

    def _wrap_end(self, moves):
        leave = moves.__exit__

        def left(*args):
            result = leave(*args)
            if getattr(self._armed, "value", False):
                self._armed.value = False
                self.reach()
            return result

        moves.__exit__ = left

    def reach(self):
        """Count this moment; act at the n-th one, once in a run; returns what was done."""
        if not self._is_within():
            return ""
        self._count += 1
        if self._count != self._plan["nth"]:
            return ""
        try:
            os.close(os.open(self._plan["marker"], os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return ""
        act, _, value = self._plan["act"].partition(" ")
        if act == "clock":
            set_clock(float(value))
        elif act == "descriptors":
            use_up_descriptors(float(value))
        elif act == "kill":
            os.kill(self._victim(), signal.SIGKILL)
        return act

    def _is_within(self):
        wanted = self._plan["within"]
        frame = sys._getframe(2)
        while wanted and frame is not None:
            if frame.f_code.co_name == wanted:
                return True
            frame = frame.f_back
        return not wanted

    def _victim(self):
        """This process, or the worker of another role below the same supervisor."""
        if not self._plan["victim"]:
            return os.getpid()
        for name in filter(str.isdecimal, os.listdir("/proc")):
            try:
                process = Path("/proc", name)
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                argv = (process / "cmdline").read_text().split("\0")
            except (OSError, ValueError):
                continue
            if parent == os.getppid() and role_of(argv) == self._plan["victim"]:
                return int(name)
        raise LookupError(self._plan["victim"])


def set_clock(by_s):
    """Let the clock of this process jump; the monotonic one goes on as before."""
    right = time.time
    time.time = lambda: right() + by_s


def use_up_descriptors(for_s):
    """Leave no new descriptor to this process for a while."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    give_back = threading.Timer(for_s, resource.setrlimit, (resource.RLIMIT_NOFILE, before))
    give_back.daemon = True
    give_back.start()


def install():
    """Set up the point, if this process is meant."""
    text = os.environ.get("TEST_FAULT_POINT")
    if not text:
        return
    plan = json.loads(text)
    if role_of(sys.orig_argv) == plan["role"]:
        Point(plan).install()


install()
