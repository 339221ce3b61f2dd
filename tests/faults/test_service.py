"""The pilot as a service at a server, with a service manager played by the test."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import run_oracle
from pilot_run import ESPILOT, FAKE, end_processes_of, eventually, job_text

EVENTS = 200


class Manager:
    """Hears what the pilot says, with the time and the pid of the sender."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[tuple[float, int, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            data, ancillary, _, _ = self._socket.recvmsg(4096, 64)
            if data == b"end":
                return
            pid = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
            self.heard.append((time.monotonic(), pid, data.decode()))

    def lines(self) -> list[str]:
        return [line for _, _, text in self.heard for line in text.split("\n")]

    def count(self, line: str) -> int:
        return self.lines().count(line)

    def last_status(self) -> str:
        found = [line for line in self.lines() if line.startswith("STATUS=")]
        return found[-1].removeprefix("STATUS=") if found else ""

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"end", str(self.path))
        self._thread.join()
        self._socket.close()


@dataclass
class Service:
    """The pilot as systemd would start it, at a server of ours."""

    base: Path
    manager: Manager
    server: subprocess.Popen[bytes]
    url: str
    runtime: Path
    pilots: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.base / "server.sqlite"

    @property
    def log(self) -> str:
        path = self.base / "w" / "logs" / "pilot.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def stderr(self) -> str:
        return (self.base / "stderr").read_text()

    def settings(self, extra: str = "", **sections: dict[str, object]) -> None:
        """Write the configuration."""
        defaults: dict[str, dict[str, object]] = {
            "server": {"url": self.url, "retry_min_s": 0.1, "retry_max_s": 0.5},
            "jobs": {"pause_min_s": 0.1, "pause_max_s": 0.3},
        }
        merged = {
            n: {**defaults.get(n, {}), **sections.get(n, {})} for n in {**defaults, **sections}
        }
        command = f"{FAKE} --clients 2 --delay-ms 20"
        text = job_text(command, extra=f'storage = "{self.base}/storage"\n{extra}', **merged)
        (self.base / "espilot.toml").write_text(text)

    def start(self, watchdog_s: float = 3.0) -> subprocess.Popen[bytes]:
        argv = [
            *ESPILOT, "run", "--instance", "one", "--config", str(self.base / "espilot.toml"),
            "--workdir", str(self.base / "w"), "--state-dir", str(self.base / "w"),
            "--runtime-dir", str(self.runtime), "--json",
        ]  # fmt: skip
        env = {
            **os.environ,
            "NOTIFY_SOCKET": str(self.manager.path),
            "WATCHDOG_USEC": str(int(watchdog_s * 1e6)),
        }
        with (self.base / "stdout").open("wb") as out, (self.base / "stderr").open("ab") as err:
            pilot = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env,
                start_new_session=True,
            )  # fmt: skip
        self.pilots.append(pilot)
        return pilot

    def wait_booked(self, n: int) -> None:
        eventually(
            lambda: run_oracle.booked(self.database) >= n, what=f"{n} ranges; {self.log[-3000:]}"
        )

    def account(self) -> run_oracle.Account:
        return run_oracle.take_account(self.database, self.base / "storage")


@contextmanager
def service_in(base: Path, events: int = EVENTS) -> Iterator[Service]:
    task = base / "task.toml"
    task.write_text(f'[task]\nname = "svc"\nevents = {events}\noutputs = ["output"]\n')
    argv = [*ESPILOT, "server", "--db", str(base / "server.sqlite"), "--task", str(task)]
    server = subprocess.Popen([*argv, "--port", "0", "--json"], stdout=subprocess.PIPE)
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["url"]
    manager = Manager(base / "notify")
    # Socket paths are short, those of tests are not.
    runtime = Path(tempfile.mkdtemp(prefix="esprt-"))
    service = Service(base, manager, server, url, runtime)
    try:
        service.settings()
        yield service
    finally:
        for pilot in service.pilots:
            if pilot.poll() is None:
                pilot.kill()
                pilot.wait()
        end_processes_of(base / "w")
        server.terminate()
        server.wait()
        server.stdout.close()
        manager.close()
        shutil.rmtree(runtime)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with service_in(tmp_path) as each:
        yield each


def test_ready_work_drain(service: Service) -> None:
    """Ready is said once and by the pilot itself; a stop drains, asks for time, and ends with 0."""
    pilot = service.start()
    eventually(lambda: service.manager.count("READY=1"), what=f"ready; {service.log}")
    service.wait_booked(40)
    eventually(lambda: "job " in service.manager.last_status(), what="a status")
    pilot.send_signal(signal.SIGTERM)
    assert pilot.wait(60) == 0
    manager = service.manager
    assert manager.count("READY=1") == 1
    assert manager.count("STOPPING=1") == 1
    lines = manager.lines()
    assert any(
        line.startswith("EXTEND_TIMEOUT_USEC=") for line in lines[lines.index("STOPPING=1") :]
    )
    assert manager.last_status().startswith("drained")
    assert {pid for _, pid, _ in manager.heard} == {pilot.pid}
    assert manager.count("WATCHDOG=1") >= 2
    account = service.account()
    assert len(account.with_fate("finished")) >= 40
    run_oracle.require_contents(account, lfns=("output",))


def test_job_after_job_until_all_is_done(service: Service) -> None:
    """When the task is done the pilot waits for further jobs; it does not end."""
    pilot = service.start()
    service.wait_booked(EVENTS)
    eventually(lambda: "waiting for a job" in service.manager.last_status(), what="idle")
    assert pilot.poll() is None
    pilot.send_signal(signal.SIGTERM)
    assert pilot.wait(30) == 0
    assert len(service.account().with_fate("finished")) == EVENTS


def test_not_ready_before_the_server_was_tried(service: Service) -> None:
    """With a server that is away the pilot becomes ready once it was tried."""
    service.settings(server={"url": "http://127.0.0.1:9"})
    service.start()
    eventually(lambda: service.manager.count("READY=1"), what="ready")
    assert "call failed" in service.log
    assert "waiting for a job" in service.manager.last_status() or not service.manager.last_status()


@pytest.mark.parametrize("role", ["dispatcher", "event-server", "stageout"])
def test_stopped_role_starves_the_watchdog(service: Service, role: str) -> None:
    """While one essential loop stands still the watchdog is not fed, though the others turn."""
    service.settings(limits={"silent_s": 60.0})
    pilot = service.start(watchdog_s=0.9)
    service.wait_booked(5)
    children = run_oracle.children_of(pilot.pid)
    pid = next(pid for pid, command in children.items() if f"espilot.workers {role}" in command)
    os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    # One feed may follow, for a sign of life from before.
    eventually(lambda: time.monotonic() > stopped + 6.0, what="six seconds")
    late = [
        at for at, _, text in service.manager.heard if "WATCHDOG=1" in text and at > stopped + 3
    ]
    assert late == []
    os.kill(pid, signal.SIGCONT)
    now = time.monotonic()
    eventually(
        lambda: [1 for at, _, text in service.manager.heard if "WATCHDOG=1" in text and at > now],
        what="fed again",
    )


def test_lesson_60_reload(service: Service) -> None:
    """Settings are read again, what may not change is named, nothing is restarted."""
    pilot = service.start()
    service.wait_booked(20)
    service.settings(packing={"max_ranges": 3}, payload={"cores": 5, "hang_s": 77.0})
    pilot.send_signal(signal.SIGHUP)
    eventually(lambda: "settings read again" in service.log, what="reload")
    telling = "RELOADING=1\nMONOTONIC_USEC="
    eventually(lambda: any(telling in text for _, _, text in service.manager.heard), what=telling)
    eventually(lambda: service.manager.count("READY=1") == 2, what="ready again")
    assert "name=payload.cores" in service.log
    (service.base / "espilot.toml").write_text("[[")
    pilot.send_signal(signal.SIGHUP)
    eventually(lambda: service.manager.count("READY=1") == 3, what="ready again")
    assert "the former stay" in service.log
    service.wait_booked(EVENTS)
    assert "payload starts again" not in service.log
    assert pilot.poll() is None
    assert len(service.account().with_fate("finished")) == EVENTS


def test_killed_and_started_again(service: Service) -> None:
    """What a killed service left is taken up by the next one."""
    pilot = service.start()
    for n in (30, 90):
        service.wait_booked(n)
        pilot.kill()
        pilot.wait()
        pilot = service.start()
    service.wait_booked(EVENTS)
    pilot.send_signal(signal.SIGTERM)
    assert pilot.wait(30) == 0
    account = service.account()
    assert len(account.with_fate("finished")) == EVENTS
    run_oracle.require_contents(account, lfns=("output",))


def test_jobs_that_were_wanted(service: Service) -> None:
    """With a number of jobs the pilot ends by itself when they are done."""
    service.settings(jobs={"at_most": 1})
    pilot = service.start()
    assert pilot.wait(60) == 0
    assert json.loads((service.base / "stdout").read_text())["state"] == "finished"


def test_former_payloads_do_not_fill_the_disk(service: Service) -> None:
    """A pilot that takes job after job keeps the directory of the last payload only."""
    service.settings(payload={"command": f"{FAKE} --clients 1 --crash-after 30"})
    service.start()
    service.wait_booked(EVENTS)
    eventually(lambda: "waiting for a job" in service.manager.last_status(), what="idle")
    assert service.log.count("payload started") > 1
    eventually(lambda: len(list((service.base / "w").glob("payload-*"))) == 1, what="removed")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nurl = 'http://127.0.0.1:9'\n", "storage is missing"),
        ("storage = '/tmp'\n", "server.url is missing"),
        ("foo = 1\n", "unknown setting foo"),
    ],
)
def test_settings_that_no_pilot_can_use(service: Service, text: str, words: str) -> None:
    """They end with 64, which systemd does not try again, and one line that names the key."""
    (service.base / "espilot.toml").write_text(text)
    assert service.start().wait(30) == 64
    assert words in service.stderr
    assert service.manager.count("READY=1") == 0
    check = [*ESPILOT, "config", "check", "--config", str(service.base / "espilot.toml")]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert words in done.stderr


def samples_of(path: Path) -> dict[tuple[str, str], float]:
    """Each sample of a text file by its name and its one label besides the slot."""
    text = path.read_text() if path.exists() else ""
    rows = re.findall(r'^espilot_(\w+)\{(?:\w+="([^"]*)",)?slot="one"\} (\S+)$', text, re.MULTILINE)
    return {(name, label): float(value) for name, label, value in rows}


def test_lesson_51_metrics_count_truly(service: Service) -> None:
    """At the end of a job the figures are those of the server; work that came back is counted."""
    path = service.base / "one.prom"
    service.settings(metrics={"textfile": str(path), "every_s": 1})
    pilot = service.start()
    service.wait_booked(30)
    launcher = next(
        pid for pid, words in run_oracle.children_of(pilot.pid).items() if "launcher" in words
    )
    for pid in run_oracle.children_of(launcher):
        os.kill(pid, signal.SIGKILL)
    service.wait_booked(EVENTS)
    eventually(
        lambda: (
            samples_of(path).get(("event_ranges_total", "finished")) == EVENTS
            and samples_of(path)["event_range_duration_seconds_count", ""] >= EVENTS
        ),
        what="figures of all ranges",
    )
    found = samples_of(path)
    assert found["event_range_duration_seconds_count", ""] == EVENTS
    back = sum(n for (name, _), n in found.items() if name == "event_ranges_redispatched_total")
    assert back >= 1
    assert found["range_buffer_wait_seconds_count", ""] == EVENTS + back
    assert found["events_processed_total", ""] == EVENTS
    assert not [key for key in found if key[0] == "events_lost_total"]
    shipped = sum(each.stat().st_size for each in (service.base / "storage").rglob("*.tar"))
    eventually(lambda: samples_of(path)["stageout_backlog_bytes", ""] == 0)
    assert f'result="ok",slot="one",storage="storage"}} {float(shipped)}' in path.read_text()
    assert found["range_requests_total", "ranges"] >= 1
    pilot.terminate()
    assert pilot.wait(30) == 0
