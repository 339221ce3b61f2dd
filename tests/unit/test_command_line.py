"""The command line as a whole: suggestions, and the data that completion and manual are made of."""

from __future__ import annotations

import pytest

from espilot.cli.command_tree import commands_of
from espilot.cli.completion import SHELLS
from espilot.cli.main import main, make_parser


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["stauts"], "did you mean status?"),
        (["recovr", "dir"], "did you mean recover?"),
        (["run", "--local", "--evnts", "5", "--", "./sim"], "did you mean --events?"),
        (["run", "--wrkdir=/tmp"], "did you mean --workdir?"),
        (["status", "--jsn"], "did you mean --json?"),
        (["config", "show", "--orign"], "did you mean --origin?"),
        (["status", "--xyzzy"], "status has no --xyzzy\n"),
        (["xyzzy"], "there is no command 'xyzzy'\n"),
    ],
)
def test_did_you_mean(argv: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command or option ends with 64 and the one that was probably meant."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 64
    assert meant in capsys.readouterr().err


def test_a_hostile_word_is_shown_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    """What a terminal would obey is not repeated."""
    for argv in (["\x1b[2J"], ["status", "--\x1b[2J"]):
        with pytest.raises(SystemExit):
            main(argv)
    assert "\x1b" not in capsys.readouterr().err


def test_every_command_tells_about_itself() -> None:
    """Each command and option has a sentence of help."""
    for command in commands_of(make_parser()):
        assert command.help and command.description, command.name
        assert all(option.help or option.choices for option in command.options), command.name


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_all(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command and every long option is in the script of each shell."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in commands_of(make_parser()):
        assert command.name.split()[0] in script
        if " " not in command.name:
            assert all(flag.removeprefix("--") in script for flag in command.flags)
