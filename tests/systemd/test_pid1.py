"""The pilot as a service under a real systemd as PID 1: installed, started, killed, drained.

The event server, its database and the storage are in the machine too; what became of each range is
taken from them, as in the fault tests.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import run_oracle
from machine import Machine, why_not

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path("/usr/bin/python3")
PORT = 8123

SETTINGS = f"""
storage = "/srv/esp/storage"
[server]
url = "http://127.0.0.1:{PORT}"
[payload]
command = "/usr/bin/fake-payload --clients 2 --delay-ms 40"
cores = 2
term_grace_s = 2.0
[packing]
max_ranges = 20
max_age_s = 0.5
[jobs]
pause_min_s = 0.2
pause_max_s = 0.5
[limits]
free_start_bytes = 0
free_bytes = 0
[metrics]
textfile = "/var/lib/espilot-metrics/espilot_{{instance}}.prom"
every_s = 1
"""
DROP_IN = """
[Unit]
StartLimitBurst=50
[Service]
ReadWritePaths=/srv/esp/storage
RestartSec=1
WatchdogSec=6
"""
TASK = '[task]\nname = "pid1"\nevents = {events}\noutputs = ["output"]\n'


def lacks() -> str:
    """Why this cannot be tested here."""
    if (
        not PYTHON.exists()
        or subprocess.run([PYTHON, "-c", "import ensurepip"], check=False).returncode
    ):
        return f"{PYTHON} with its venv module is not installed"
    return why_not()


REASON = lacks()
pytestmark = pytest.mark.skipif(
    bool(REASON), reason=f"SKIPPED, no test under a real PID 1: {REASON}"
)


def eventually(condition: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
    """Wait until the condition holds."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not in {within_s:g} s: {what}"
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the pilot installed as an operator would."""
    machine = Machine(tmp_path_factory.mktemp("pid1"))
    try:
        script = ROOT / "etc" / "systemd" / "install.sh"
        subprocess.run(["sh", str(script), str(PYTHON), str(machine.root), "/usr"], check=True)
        assert (machine.root / "usr/share/man/man1/espilot.1").is_file()
        assert [path.name for path in (machine.root / "usr/lib").glob("espilot*")] == ["espilot"]
        drop_in = machine.root / "etc/systemd/system/espilot@.service.d/test.conf"
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text(DROP_IN)
        (machine.root / "srv" / "esp").mkdir(parents=True)
        # Of the machine that runs the tests nothing may go on here.
        for name in ("espilot-work", "espilot"):
            assert not (machine.root / "etc" / name).exists()
        machine.boot()
        machine.run("systemd-sysusers")
        machine.run("systemd-tmpfiles", "--create", "espilot.conf")
        yield machine
    finally:
        machine.close()


class Node:
    """The machine with a fresh server, storage and settings."""

    def __init__(self, machine: Machine, events: int) -> None:
        self.machine = machine
        self.srv = machine.root / "srv" / "esp"
        self.events = events

    def prepare(self) -> None:
        self.machine.run("install", "-d", "-o", "espilot", "/srv/esp/storage")
        (self.srv / "task.toml").write_text(TASK.format(events=self.events))
        self.settings(SETTINGS)
        self.machine.run(
            "systemd-run", "--unit=espserver", "--collect", "/usr/bin/espilot", "server",
            "--db", "/srv/esp/server.sqlite", "--task", "/srv/esp/task.toml", "--port", str(PORT),
        )  # fmt: skip
        eventually(lambda: self.booked() is not None, "the server has its database")

    def settings(self, text: str) -> None:
        (self.machine.root / "etc/espilot/espilot.toml").write_text(text)

    @property
    def database(self) -> Path:
        return self.srv / "server.sqlite"

    def booked(self) -> int | None:
        return run_oracle.booked(self.database) if self.database.exists() else None

    def wait_booked(self, n: int) -> None:
        eventually(lambda: (self.booked() or 0) >= n, f"{n} ranges booked; {self.journal()}")

    def ctl(self, *argv: str, check: bool = True) -> str:
        return self.machine.run("systemctl", *argv, check=check)

    def show(self, name: str, slot: str = "1") -> str:
        return self.machine.show(f"espilot@{slot}", name)

    def journal(self) -> str:
        return self.machine.run("journalctl", "-u", "espilot@*", "-n", "60", "--no-pager")

    def account(self) -> run_oracle.Account:
        """What became of each range; none may be lost or doubled."""
        return run_oracle.take_account(self.database, self.srv / "storage")

    def clean(self) -> None:
        self.ctl("stop", "espilot.target", "espilot@1", "espilot@2", check=False)
        self.ctl("kill", "--signal=KILL", "espilot@1", "espilot@2", check=False)
        self.ctl("stop", "espserver", check=False)
        self.ctl("reset-failed", check=False)
        for path in (*self.srv.iterdir(), *(self.machine.root / "var/lib/espilot").iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def node(booted: Machine, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A fresh server with a task of 300 ranges, or as many as the test says."""
    each = Node(booted, getattr(request, "param", 300))
    each.prepare()
    yield each
    each.clean()


def test_start_work_stop(node: Node) -> None:
    """Start means ready; the job runs; a stop drains within its time, and nothing is lost."""
    node.ctl("start", "espilot@1")
    assert node.show("ActiveState") == "active"
    node.wait_booked(40)
    status = eventually(
        lambda: "reported" in node.show("StatusText") and node.show("StatusText"), ""
    )
    assert "job " in status and "running" in status
    job = next(word for word in status.split() if word.isdecimal())
    lines = node.machine.run("journalctl", f"ESPILOT_JOB={job}", "--no-pager", "-o", "cat")
    for role in ("event-server[", "stageout[", "supervisor["):
        assert role in lines, role
    prom = node.machine.root / "var/lib/espilot-metrics/espilot_1.prom"
    eventually(prom.exists, "metrics")
    node.ctl("stop", "espilot@1")
    assert (node.show("Result"), node.show("ExecMainStatus")) == ("success", "0")
    account = node.account()
    assert 40 <= len(account.with_fate("finished")) < node.events
    run_oracle.require_contents(account, lfns=("output",))
    assert node.machine.run("systemctl", "list-units", "--failed", "--no-legend").strip() == ""


def test_kill_restart_recovery(node: Node) -> None:
    """A killed pilot is started again and takes up what it left; every range is finished once."""
    node.ctl("start", "espilot@1")
    for n in (30, 90):
        node.wait_booked(n)
        pid = node.show("MainPID")
        node.machine.run("kill", "-KILL", pid)
        eventually(lambda pid=pid: node.show("MainPID") not in ("0", pid), "started again")
    node.wait_booked(node.events)
    assert int(node.show("NRestarts")) == 2
    node.ctl("stop", "espilot@1")
    account = node.account()
    assert len(account.with_fate("finished")) == node.events
    run_oracle.require_contents(account, lfns=("output",))


def test_watchdog_fires_on_a_stopped_loop(node: Node) -> None:
    """A pilot whose loop stands still is ended by the watchdog, and its successor goes on."""
    node.ctl("start", "espilot@1")
    node.wait_booked(20)
    pid = node.show("MainPID")
    node.machine.run("kill", "-STOP", pid)
    eventually(lambda: node.show("MainPID") not in ("0", pid), "the watchdog fires")
    assert "watchdog timeout" in node.machine.log().lower()
    assert "Fatal Python error: Aborted" in node.journal(), "the stacks are in the journal"
    node.wait_booked(node.events)
    node.ctl("stop", "espilot@1")
    assert len(node.account().with_fate("finished")) == node.events


def test_two_slots_beside_each_other(node: Node) -> None:
    """Two instances share the task; the target starts and stops both."""
    node.ctl("enable", "espilot@1", "espilot@2")
    node.ctl("start", "espilot.target")
    eventually(lambda: node.show("ActiveState", "2") == "active", "both run")
    assert node.show("ActiveState", "1") == "active"
    node.wait_booked(60)
    node.ctl("stop", "espilot.target")
    for slot in "12":
        eventually(lambda slot=slot: node.show("ActiveState", slot) == "inactive", "both end")
        assert node.show("Result", slot) == "success"
    node.ctl("disable", "espilot@1", "espilot@2")
    run_oracle.require_contents(node.account(), lfns=("output",))


def test_reload_does_not_touch_work(node: Node) -> None:
    """New settings come into force without a restart, of pilot or payload; what cannot is told."""
    node.ctl("start", "espilot@1")
    node.wait_booked(20)
    before = node.show("MainPID")
    changed = SETTINGS.replace("max_ranges = 20", "max_ranges = 7")
    node.settings(changed.replace("cores = 2", "cores = 3"))
    node.ctl("reload", "espilot@1")
    log = node.machine.root / "var/lib/espilot/1/logs/pilot.log"
    eventually(lambda: "settings read again" in log.read_text(), "the reload")
    assert "changed=packing.max_ranges" in log.read_text()
    assert "name=payload.cores" in log.read_text()
    node.wait_booked(node.events)
    assert node.show("MainPID") == before
    assert node.show("NRestarts") == "0"
    node.ctl("stop", "espilot@1")
    account = node.account()
    assert len(account.with_fate("finished")) == node.events
    assert (node.machine.root / "var/lib/espilot/1/payload-1").is_dir()
    assert not (node.machine.root / "var/lib/espilot/1/payload-2").exists()


def test_wrong_settings_are_not_tried_again(node: Node) -> None:
    """A setting that nothing mends by itself ends with 64, and systemd does not restart it."""
    node.settings(SETTINGS + "[payload2]\n")
    node.ctl("start", "espilot@1", check=False)
    eventually(lambda: node.show("ActiveState") == "failed", "it fails")
    time_of_failure = node.show("NRestarts")
    assert "unknown setting payload2" in node.journal()
    assert time_of_failure == "0"


def groups_of_payloads(node: Node) -> list[str]:
    found = node.machine.run("find", "/sys/fs/cgroup", "-name", "espilot-payload-*", check=False)
    # Version 1, where the machine has it too, has no groups of ours.
    return [line for line in found.split() if "/espilot@1.service/" in line]


def test_each_payload_has_a_control_group(node: Node) -> None:
    """The pilot moves aside in its delegated group; each payload has its own, while it lives."""
    node.ctl("start", "espilot@1")
    node.wait_booked(20)
    pid = node.show("MainPID")
    (line,) = [
        each for each in node.machine.run("cat", f"/proc/{pid}/cgroup").splitlines()
        if each.startswith("0::")
    ]  # fmt: skip
    assert line.endswith("/espilot@1.service/supervisor")
    (group,) = groups_of_payloads(node)
    assert "fake-payload" in node.machine.run(
        "sh", "-c", f"for pid in $(cat {group}/cgroup.procs); do cat /proc/$pid/cmdline; done"
    )
    node.machine.run("kill", "-KILL", pid)
    eventually(lambda: groups_of_payloads(node) not in ([], [group]), "another group, and only one")
    node.wait_booked(60)
    (second,) = groups_of_payloads(node)
    assert second != group
    node.ctl("stop", "espilot@1")
    assert (node.show("Result"), groups_of_payloads(node)) == ("success", [])
    log = (node.machine.root / "var/lib/espilot/1/logs/pilot.log").read_text()
    assert "group=none" not in log


def test_status_from_outside(node: Node) -> None:
    """The commands for people work on a service."""
    node.ctl("start", "espilot@1")
    node.wait_booked(20)
    text = node.machine.run(
        "setpriv", "--reuid=espilot", "--regid=espilot", "--clear-groups",
        "/usr/bin/espilot", "status", "/var/lib/espilot/1", "--json",
    )  # fmt: skip
    status = json.loads(text)
    assert status["running"] is True
    assert status["note"] == ""
    node.ctl("stop", "espilot@1")
