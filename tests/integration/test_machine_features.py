"""Small files by which a site tells an end, and what becomes of them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from espilot.adapters.machine_features import MOST_BYTES, read_features, read_small_file
from espilot.config import DrainConfig, Settings
from espilot.logs import open_log
from espilot.supervisor.deadlines import DeadlineWatch
from espilot.wire.messages import Alive
from espilot.workers.context import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A run that has nothing but a work directory."""
    return Context(tmp_path, tmp_path / "state", tmp_path / "runtime", "", Settings())


def watch_of(context: Context) -> DeadlineWatch:
    """The deadlines of a run."""
    context.logs.mkdir(exist_ok=True)
    return DeadlineWatch(context, open_log("supervisor", context.log_file))


def test_feature_directory(tmp_path: Path) -> None:
    """Each known key of a directory is read; unknown files, directories and FIFOs are not."""
    (tmp_path / "shutdowntime").write_text("1800000000\n")
    (tmp_path / "secret").write_text("x")
    (tmp_path / "wall_limit_secs").mkdir()
    os.mkfifo(tmp_path / "grace_secs")
    assert read_features(str(tmp_path)) == {"shutdowntime": "1800000000\n"}


@pytest.mark.parametrize("place", ["", "http://127.0.0.1/features", "relative", "/nowhere/at/all"])
def test_no_feature_directory(place: str) -> None:
    """Nothing, a URL and what does not exist are no features and no error."""
    assert read_features(place) == {}


def test_huge_file_is_not_read(tmp_path: Path) -> None:
    """Of a file that is far too large only the beginning is read."""
    path = tmp_path / "drain"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    text = read_small_file(path)
    assert text is not None
    assert len(text) == MOST_BYTES


@pytest.mark.parametrize(("text", "left_s"), [("30s", 30.0), ("a time", 1e6), ("", None)])
def test_our_drain_file(context: Context, text: str, left_s: float | None) -> None:
    """WORKDIR/drain drains once, by the deadline in it, and is removed for the next run."""
    if text == "a time":
        text = f"{time.time() + 1e6:.0f}"
    watch = watch_of(context)
    assert watch.look(time.monotonic()) == ""
    (context.workdir / "drain").write_text(text)
    now = time.monotonic()
    assert "drain file" in watch.look(now)
    assert not (context.workdir / "drain").exists()
    earliest = watch.earliest()
    if left_s is None:
        assert earliest is None
    else:
        assert earliest is not None
        assert earliest.at_mono - now == pytest.approx(left_s, abs=5.0)
    assert watch.look(time.monotonic()) == ""


def test_drain_file_of_the_site(context: Context, tmp_path: Path) -> None:
    """A drain file elsewhere stays; nonsense in it is a warning, and drains without a deadline."""
    path = tmp_path / "site_drain"
    path.write_text("when you like\x00")
    settings = replace(context.settings, drain=DrainConfig(file=str(path)))
    context = replace(context, settings=settings)
    watch = watch_of(context)
    assert str(path) in watch.look(time.monotonic())
    assert watch.look(time.monotonic()) == ""
    assert watch.earliest() is None
    assert path.exists()
    assert "is no deadline" in context.log_file.read_text()


def test_features_are_followed(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shutdown that is announced becomes the deadline, and goes when it is called off."""
    features = tmp_path / "machine"
    features.mkdir()
    monkeypatch.setenv("MACHINEFEATURES", str(features))
    monkeypatch.delenv("JOBFEATURES", raising=False)
    watch = watch_of(context)
    now = time.monotonic()
    watch.look(now)
    assert watch.earliest() is None
    (features / "shutdowntime").write_text(f"{time.time() + 500:.0f}")
    watch.look(now + 61.0)
    earliest = watch.earliest()
    assert earliest is not None
    assert earliest.source == "shutdowntime"
    (features / "shutdowntime").unlink()
    watch.look(now + 122.0)
    assert watch.earliest() is None


def test_credential_that_expires(context: Context) -> None:
    """The expiry of a credential is a deadline as any other; one that never expires is none."""
    watch = watch_of(context)
    watch.heard(Alive("event-server", 1, {"credential_ends": time.time() + 100.0}))
    watch.heard(Alive("stageout", 1, {}))
    earliest = watch.earliest()
    assert earliest is not None
    assert earliest.at_mono - time.monotonic() == pytest.approx(100.0, abs=5.0)
    watch.heard(Alive("event-server", 2, {"credential_ends": None}))
    assert watch.earliest() is None


def test_lesson_47_cpu_time_is_followed(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the CPU time is a deadline that comes nearer as it is used."""
    features = tmp_path / "job"
    features.mkdir()
    (features / "cpu_limit_secs").write_text("1000")
    monkeypatch.setenv("JOBFEATURES", str(features))
    used = [0.0]
    context.logs.mkdir()
    watch = DeadlineWatch(context, open_log("supervisor", context.log_file), lambda: used[0])
    for used_s, left_s in ((0.0, 1000.0), (700.0, 300.0), (2000.0, 0.0)):
        used[0] = used_s
        assert watch.look(50.0) == ""
        earliest = watch.earliest()
        assert earliest is not None
        assert (earliest.source, earliest.at_mono) == ("cpu_limit_secs", 50.0 + left_s)
