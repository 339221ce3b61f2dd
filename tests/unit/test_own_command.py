"""`espilot run --local -- COMMAND`: what is made of the words of the command line."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest

from espilot.cli import own_command
from espilot.cli.command_words import absolute_words, is_template
from espilot.cli.main import make_parser
from espilot.cli.progress import Lines, Pace
from espilot.errors import UsageError
from espilot.model import Counts

WORDS = ["./sim", "--first", "{startEvent}", "--out", "{output}"]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An executable `sim` in the current directory."""
    path = tmp_path / "sim"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return path


def parse(*argv: str) -> argparse.Namespace:
    return make_parser().parse_args(own_command.mark_no_file(["run", *argv]))


@pytest.mark.parametrize("order", [["--local", "--events", "20"], ["--events", "20", "--local"]])
def test_a_command_becomes_settings(program: Path, order: list[str]) -> None:
    """Wherever --local stands, the words after -- are the command, run once for each range."""
    settings = own_command.take(parse(*order, "--per-range", "7", "--cores", "3", "--", *WORDS))
    assert settings is not None
    assert (settings.task.events, settings.task.events_per_range) == (20, 7)
    assert (settings.task.name, settings.task.outputs) == ("sim", ("output",))
    assert settings.payload.exec == f"{program} --first '{{startEvent}}' --out '{{output}}'"
    assert (settings.payload.command, settings.payload.cores) == ("", 3)


def test_a_command_in_one_word(program: Path) -> None:
    """A whole command in quotes is the same as its words."""
    one = own_command.take(parse("--local", "--events", "5", "--", " ".join(WORDS)))
    assert one == own_command.take(parse("--local", "--events", "5", "--", *WORDS))


def test_a_command_without_placeholders_speaks_the_protocol(program: Path) -> None:
    """Without placeholders it is started once and asks for its ranges."""
    settings = own_command.take(parse("--events", "5", "--", "./sim", "--threads", "2"))
    assert settings is not None
    assert settings.payload.command == f"{program} --threads 2"
    assert not settings.payload.exec


def test_a_command_that_reads_files_of_ranges(program: Path) -> None:
    """`{ranges}` in the words says so; its outputs are noticed by their names."""
    settings = own_command.take(parse("--local", "--events", "5", "--", "./sim", "{ranges}"))
    assert settings is not None and settings.payload.command == f"{program} '{{ranges}}'"
    assert (settings.payload.ranges, settings.payload.outputs) == ("file", "renamed")


def test_each_output_of_the_template_has_a_name(program: Path) -> None:
    """A template with {output3} makes three output streams."""
    settings = own_command.take(parse("--events", "5", "--", "./sim", "{output}", "{output3}"))
    assert settings is not None
    assert settings.task.outputs == ("output", "output2", "output3")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--local"], "job file, or a command"),
        (["--local", "--", "./sim"], "--events"),
        (["--local", "job.toml", "--events", "5", "--", "./sim"], "give one of them"),
        (["--events", "5", "--", "./other"], "./other"),
        (["--events", "5", "--", "./data"], "chmod"),
        (["--events", "5", "--", "./sim", "{startEvent}"], "{output}"),
        (["--events", "5", "--", "./sim", "{first}", "{output}"], "{first}"),
    ],
)
def test_what_cannot_work_is_named(program: Path, argv: list[str], named: str) -> None:
    """A wrong command is refused before anything starts, in words that name the remedy."""
    program.with_name("data").write_text("")
    with pytest.raises(UsageError, match=named):
        own_command.take(parse(*argv))


@pytest.mark.parametrize("number", ["0", "-1", "1e3", "x", "9" * 20])
def test_numbers_that_are_none(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A number of events that is none ends with exit 64 and names the option."""
    with pytest.raises(SystemExit) as ended:
        parse("--local", "--events", number, "--", "./sim")
    assert ended.value.code == 64
    assert "--events" in capsys.readouterr().err


def test_files_of_the_current_directory_get_full_paths(program: Path) -> None:
    """A script is found though the payload starts elsewhere; other words stay as they are."""
    program.with_name("sim.py").write_text("")
    words = absolute_words(["python3", "sim.py", "sim", "--config=sim.py", "none.py"])
    assert words == ("python3", f"{program}.py", "sim", "--config=sim.py", "none.py")
    assert is_template(["a", "x={output2}"]) and not is_template(["a", "{cores}"])


def counts(**numbers: int) -> Counts:
    names = Counts.__dataclass_fields__
    return Counts(**{name: numbers.get(name, 0) for name in names})


def test_pace_counts_what_is_made() -> None:
    """Rate and rest come from outputs made, whether packed or not; at first nothing is said."""
    pace = Pace(10)
    assert pace.note(counts(), 0.0) == 0.0
    assert pace.left_text(100) == ""
    assert pace.note(counts(done=10, finished=10), 10.0) == pytest.approx(20.0)
    assert pace.left_text(100) == "50 s left"
    assert pace.note(counts(done=10, finished=10), 100.0) == 0.0


def test_plain_lines_have_no_control_characters() -> None:
    """In a log progress is whole lines, the first at once, and none twice in a row."""
    out = io.StringIO()
    lines = Lines("sim", 10, out)
    texts = {"state": "2 in work", "rate": "1.0 events/s", "eta": ""}
    lines.show(5, texts)
    lines.show(6, texts)
    assert out.getvalue().startswith("sim [##########..........] 5/10 ranges safe, 2 in work, 1.0")
    assert out.getvalue().count("\n") == 1 and "\x1b" not in out.getvalue()
