"""What a person at a terminal reads of a run: news in words, and a last picture that is true."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest

from espilot.cli.news import News
from espilot.cli.progress import Progress
from espilot.cli.summary import describe
from espilot.config import Settings, TaskConfig
from espilot.logs import Log
from espilot.supervisor.outcome import Snapshot
from espilot.supervisor.resume import remove_run, set_aside_outputs
from espilot.supervisor.watch import read_warnings
from espilot.view.snapshot import NO_COUNTS
from espilot.workers.context import Context


@pytest.fixture
def said() -> tuple[Log, list[str]]:
    """A log that tells the news, and what was said."""
    lines: list[str] = []
    logger = logging.Logger("news")
    logger.addHandler(News(lines.append))
    return Log("supervisor", logger), lines


def test_signal_and_drain_are_one_sentence(said: tuple[Log, list[str]]) -> None:
    """Ctrl-C is answered with what happens now and how to end at once."""
    log, lines = said
    log.warning("signal", "signal received", signal="SIGINT (2)")
    log.warning("drain", "draining", reason="SIGINT (2)", left_s=150.0, run_s=116.9, lost=0)
    (line,) = lines
    assert line.startswith("ending early (SIGINT (2)): nothing more is handed out")
    assert "Ctrl-C twice more" in line


def test_warning_is_said_without_stamps(said: tuple[Log, list[str]]) -> None:
    """The level, what happened, and its data; nothing that is no warning, no control characters."""
    log, lines = said
    log.job = 99
    log.info("job", "job started")
    log.warning("storage", "storage is sick", reason="no space\x1b[2J left", n=2)
    assert lines == ["warning: storage is sick (reason no space?[2J left, n 2)"]


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """It says so."""
        return True


def test_last_picture_is_that_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar that stays is full when all is safe; a drain shows no time that is left."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Screen()
    progress = Progress(TaskConfig(name="sim", events=100), out)
    assert progress.renews_itself
    seen = Snapshot(NO_COUNTS, 1, "running", "running", 1, "ok", {"draining": "SIGINT (2)"})
    progress.show(seen)
    progress.say("news")
    progress.end(100)
    picture = out.getvalue()
    assert "news" in picture and " left" not in picture
    assert "100/100" in picture.splitlines()[-1] or "100/100" in picture.splitlines()[-2]


def test_summary_counts_in_words(tmp_path: Path) -> None:
    """One archive is no `archives`, and its size has a unit that shows it."""
    summary = {
        "schema": "espilot.summary/1", "state": "finished", "events": 10, "wall_s": 1.0, "jobs": 1,
        "ranges": {"total": 1, "finished": 1, "failed": 0, "fatal": 0, "released": 0},
        "archives": 1, "bytes": 10240, "storage": "/s/my place", "workdir": str(tmp_path),
    }  # fmt: skip
    assert "outputs: 1 archive, 10.2 kB, in" in describe(summary, "")
    assert "tar -tf $(ls '/s/my place'/*.tar" in describe(summary, "")
    (tmp_path / "outputs").mkdir()
    assert f"espilot report {tmp_path} > report.html" in describe(summary, "")


def test_outputs_of_a_former_task_are_moved_aside(tmp_path: Path) -> None:
    """What a person has unpacked is neither mixed with what comes nor removed."""
    directory = tmp_path / "outputs"
    set_aside_outputs(directory)
    for n in ("1", "2"):
        directory.mkdir()
        set_aside_outputs(directory)
        (directory / n).touch()
        set_aside_outputs(directory)
    assert sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("[12]")) == [
        "outputs.1/1",
        "outputs.2/2",
    ]


def test_warnings_of_a_former_run_are_not_shown(tmp_path: Path) -> None:
    """The log goes on over runs, the page shows the present one."""
    log = tmp_path / "pilot.log"
    lines = [f"2026-11-22T10:00:0{n}.000Z warning supervisor[1] action=x said" for n in (1, 5)]
    log.write_text("\n".join(lines) + "\n")
    assert read_warnings(log) == lines
    assert read_warnings(log, 1795341603.0) == lines[1:]


@pytest.mark.parametrize("foreign", [False, True])
def test_story_of_a_former_task_goes_with_it(tmp_path: Path, foreign: bool) -> None:
    """A new local run begins a new story; that of a pilot for others' tasks goes on."""
    state = tmp_path / "state"
    state.mkdir()
    pages = [state / "events.jsonl", state / "events.jsonl.1"]
    for page in pages:
        page.write_text("{}\n")
    context = Context(
        workdir=tmp_path, state=state, runtime=tmp_path / "r", storage="", settings=Settings(),
        jobdir=tmp_path, server_url="https://server.example" if foreign else "",
    )  # fmt: skip
    remove_run(context)
    assert [page.exists() for page in pages] == [foreign, foreign]
