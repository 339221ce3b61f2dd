"""The monitor with a real process and real files; the payload's launcher is left out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from patience import eventually

from espilot.config import LimitsConfig, PayloadConfig, Settings
from espilot.logs import open_log
from espilot.model import Counts, Verdict
from espilot.supervisor.monitor import VERDICTS_KEPT, Monitor
from espilot.supervisor.survey import DiskView
from espilot.workers.context import Context

MB = 10**6
NO_COUNTS = Counts(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class Scene:
    """A work directory with a process in it, and a monitor that looks at both."""

    def __init__(self, root: Path) -> None:
        self.workdir = root / "w"
        self.directory = self.workdir / "payload-1"
        self.directory.mkdir(parents=True)
        (self.workdir / "logs").mkdir()
        self.monitors: list[Monitor] = []
        self.process: subprocess.Popen[str] | None = None
        self.skipped_s = 0.0

    def start(self, code: str) -> None:
        """Run Python in the payload's directory; returns when it said `up`."""
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", code + "\nprint('up', flush=True)\ninput()"],
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"

    def monitor(self, limits: LimitsConfig, payload: PayloadConfig | None = None) -> Monitor:
        settings = Settings(limits=limits, payload=payload or PayloadConfig())
        context = Context(self.workdir, self.workdir / "state", self.workdir / "run", "", settings)
        monitor = Monitor(context, open_log("monitor-test", context.log_file))
        monitor.payload_started()
        self.monitors.append(monitor)
        return monitor

    def look(self, monitor: Monitor, counts: Counts = NO_COUNTS) -> Verdict | None:
        """One look, as if `skipped_s` more had passed."""
        payload: Any = None
        if self.process is not None:
            payload = SimpleNamespace(
                directory=self.directory,
                logs=lambda: [self.directory / "payload.stdout"],
                child=SimpleNamespace(pid=self.process.pid),
            )
        now = time.monotonic() + self.skipped_s
        return monitor.look(cast(Any, payload), counts, last_message_mono=now, now=now)

    def verdict(self, monitor: Monitor) -> Verdict:
        """Look until there is one."""
        found: list[Verdict] = []

        def looked() -> bool:
            self.skipped_s += 5.0
            verdict = self.look(monitor)
            found.extend([verdict] if verdict else [])
            return bool(found)

        eventually(looked, "a verdict", within_s=20.0)
        return found[0]

    def log(self) -> str:
        return (self.workdir / "logs" / "pilot.log").read_text()

    def close(self) -> None:
        for monitor in self.monitors:
            monitor.close()
        if self.process is not None:
            self.process.communicate("end\n", timeout=20)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def test_lesson_46_deleted_but_open_files_count(scene: Scene) -> None:
    """A payload that deletes what it goes on writing is over the limit all the same."""
    scene.start("import os\nf = open('f', 'wb')\nf.write(bytes(30 * 10**6))\nf.flush()\n"
                "os.unlink('f')")  # fmt: skip
    verdict = scene.verdict(scene.monitor(LimitsConfig(workdir_bytes=20 * MB)))
    assert (verdict.rule, verdict.code, verdict.limit) == ("work-dir", 1104, 24 * MB)
    assert 30 * MB <= verdict.value < 35 * MB


def test_lesson_46_holes_and_links_do_not_count(scene: Scene) -> None:
    """Sparse files take what is written, hard-linked ones count once: no verdict."""
    scene.start(
        "import os\nopen('sparse', 'wb').truncate(10**12)\n"
        "open('a', 'wb').write(bytes(15 * 10**6))\n"
        "for n in range(20): os.link('a', f'b{n}')"
    )
    monitor = scene.monitor(
        LimitsConfig(workdir_bytes=20 * MB), PayloadConfig(output_limit_bytes=2 * 10**12)
    )
    eventually(
        lambda: scene.look(monitor) is None and monitor.usage.totals.max_workdir_bytes,
        "a complete look",
    )
    assert 15 * MB <= monitor.usage.totals.max_workdir_bytes < 18 * MB


@pytest.mark.parametrize(
    ("key", "limit", "rule"),
    [("max_rss_bytes", 50 * MB, "memory"), ("scratch_limit_bytes", 20 * MB, "work-dir")],
)
def test_lesson_47_limits_of_the_slot(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, key: str, limit: int, rule: str
) -> None:
    """The limits in the job features count where they are smaller than ours, without a grace."""
    features = scene.workdir.parent / "features"
    features.mkdir()
    (features / key).write_text(f"{limit}\n")
    monkeypatch.setenv("JOBFEATURES", str(features))
    scene.start("taken = bytearray(b'x') * (80 * 10**6)\n"
                "f = open('f', 'wb')\nf.write(bytes(22 * 10**6))\nf.flush()")  # fmt: skip
    verdict = scene.verdict(scene.monitor(LimitsConfig(memory_bytes=500 * MB)))
    assert (verdict.rule, verdict.limit) == (rule, limit)


def test_memory_and_figures(scene: Scene) -> None:
    """A process over its memory has a verdict by its PSS, and the figures are kept."""
    scene.start("import time\ntaken = bytearray(b'x') * (80 * 10**6)\n"
                "while time.process_time() < 0.1: pass")  # fmt: skip
    monitor = scene.monitor(LimitsConfig(memory_bytes=50 * MB))
    verdict = scene.verdict(monitor)
    assert (verdict.rule, verdict.code, verdict.action) == ("memory", 1235, "end-job")
    assert "(PSS)" in verdict.text
    figures = monitor.resources()
    assert 80 * MB < figures["max_pss_bytes"] <= figures["max_rss_bytes"] < 200 * MB
    assert figures["max_processes"] == 1
    assert figures["cpu_s"] >= 0.05  # told in hundredths


def test_hanging_measurement_holds_nobody_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer is told, and looks go on without it."""
    gate = threading.Event()
    monitor = scene.monitor(LimitsConfig())

    def hang(*_: object) -> DiskView:
        gate.wait(30)
        return DiskView()

    monkeypatch.setattr(monitor._disk_survey, "look", hang)
    try:
        assert scene.look(monitor) is None
        scene.skipped_s = 61.0
        for _ in range(3):
            assert scene.look(monitor) is None
        assert scene.log().count("disk not measured") == 1
    finally:
        gate.set()


def test_missing_work_directory_is_told(scene: Scene) -> None:
    """A measurement that fails is reported by name, never ignored."""
    monitor = scene.monitor(LimitsConfig())
    away = scene.workdir.with_name("away")
    scene.workdir.rename(away)
    try:
        told: Callable[[], bool] = lambda: (  # noqa: E731
            scene.look(monitor) is None
            and "cannot measure" in (away / "logs" / "pilot.log").read_text()
        )
        eventually(told, "the complaint")
    finally:
        away.rename(scene.workdir)


def test_verdicts_are_kept_and_bounded(scene: Scene) -> None:
    """The last verdicts are there for status, with their time; older ones are forgotten."""
    monitor = scene.monitor(LimitsConfig())
    for number in range(50):
        monitor.record(Verdict("work-dir", number, 1, "end-job", 1104, f"verdict {number}"))
    assert len(monitor.verdicts) == VERDICTS_KEPT
    at, verdict = monitor.verdicts[-1]
    assert abs(at - time.time()) < 60
    assert verdict.text == "verdict 49"
    assert "verdict 49 rule=work-dir value=49 limit=1 do=end-job code=1104" in scene.log()


def test_low_space_closes_the_gate(scene: Scene) -> None:
    """With less free space than wanted the gate closes and the reason is in the log."""
    free = os.statvfs(scene.workdir)
    free_bytes = free.f_bavail * free.f_frsize
    monitor = scene.monitor(LimitsConfig(free_bytes=free_bytes + free_bytes // 2))
    eventually(lambda: scene.look(monitor) is None and not monitor.gate.is_open, "closed gate")
    assert "no ranges are handed out" in scene.log()
