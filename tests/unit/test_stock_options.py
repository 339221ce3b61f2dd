"""The command line of a stock pilot, as wrappers, factories and people write it."""

from __future__ import annotations

import pytest

from espilot.cli.stock_options import BY_NAME, OPTIONS, Kind, Use, describe, read_stock
from espilot.errors import UsageError

WRAPPER = (
    "-q QUEUE -i PR -j managed -t -w generic --pilot-user generic --url https://panda:25443 -d "
    "--harvester-submit-mode PULL --allow-same-user=False --resource-type MCORE"
)
HARVESTER = (
    "-w generic --pilot-user=ATLAS --url=https://pandaserver.cern.ch -d "
    "--harvester-submit-mode=PUSH --allow-same-user=False -a /dir --resource-type SCORE "
    "-j unified -i PR --job-type unified"
)
RAYTHENA = (
    "-i PR -j managed --pilot-user=atlas -t -u --es-executor-type=raythena -v 1 -d --cleanup=False "
    "-w generic --use-https False --allow-same-user=False --resource-type MCORE --hpc-resource X"
)
STARTER = (
    "-s SITE -r RES -q QUEUE -j managed -i PR -t --pythonversion 3 -w generic --pilot-user generic "
    "--url https://x -d --harvester-submit-mode PULL --allow-same-user=False --resource-type MCORE "
    "--piloturl local --localpy --container --mute --cvmfsbase /cvmfs --alma9 --harvester H "
    "--harvester_workflow W --pilotversion 3 -S"
)


@pytest.mark.parametrize("line", [WRAPPER, HARVESTER, RAYTHENA, STARTER])
def test_lines_of_factories(line: str) -> None:
    """The lines that wrapper, Harvester, Raythena and the wrapper's caller write have no
    stranger."""
    assert read_stock(line.split()).warnings == []


def test_values_of_the_wrapper() -> None:
    """Values, flags and booleans arrive under the long names."""
    values = read_stock(WRAPPER.split()).values
    assert values["queue"] == "QUEUE" and values["joblabel"] == "managed"
    assert values["debug"] is True and values["allow-same-user"] is False
    assert values["url"] == "https://panda:25443" and values["resource-type"] == "MCORE"


VALUES = {Kind.TEXT: "text", Kind.INT: "7", Kind.FLOAT: "2.5", Kind.BOOL: "no", Kind.FLAG: ""}
READ = {Kind.TEXT: "text", Kind.INT: 7, Kind.FLOAT: 2.5, Kind.BOOL: False, Kind.FLAG: True}


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"-w", "--workflow"}))
def test_every_option_both_ways(name: str) -> None:
    """Each spelling of each option of the table is read, as `--opt V` and as `--opt=V`."""
    option = BY_NAME[name]
    value = VALUES[option.kind]
    for words in ([name, value], [f"{name}={value}"]):
        command = read_stock([word for word in words if word] if value else [name])
        assert command.values == {option.name: READ[option.kind]}, words
        assert bool(command.warnings) is (option.use is Use.UNSUPPORTED)


def test_no_two_options_share_a_name() -> None:
    """A spelling means one option."""
    names = [name for option in OPTIONS for name in option.names]
    assert len(names) == len(set(names)) and len({o.name for o in OPTIONS}) == len(OPTIONS)


@pytest.mark.parametrize("word", ["True", "yes", "1", "False", "no", "0"])
def test_booleans_are_words(word: str) -> None:
    """Booleans come as words, also with =; bare they mean true."""
    wanted = word in ("True", "yes", "1")
    assert read_stock(["--cleanup", word]).get("cleanup") is wanted
    assert read_stock([f"--cleanup={word}"]).get("cleanup") is wanted
    assert read_stock(["--cleanup", "-d"]).values == {"cleanup": True, "debug": True}


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        ("--new-option 5 -d", "unknown option --new-option with its value, ignored"),
        ("--new-option=5 -d", "unknown option --new-option with its value, ignored"),
        ("--new-flag -d", "unknown option --new-flag, ignored"),
        ("-Z -d", "unknown option -Z, ignored"),
        ("stray -d", "'stray' belongs to no option, ignored"),
        ("--url -d", "--url has no value, ignored"),
        ("-d --queue", "--queue has no value, ignored"),
        ("-d --input-dir /x", "--input-dir is not supported"),
    ],
)
def test_lesson_52_unknown_is_named_and_ignored(words: str, warning: str) -> None:
    """What is unknown, without value, or unsupported is named once, and the rest counts."""
    command = read_stock(words.split())
    assert command.get("debug") is True
    assert len(command.warnings) == 1 and warning in command.warnings[0]


def test_short_options_written_together() -> None:
    """`-qNAME`, `-dt` and negative numbers are read as a stock pilot reads them."""
    assert read_stock(["-qNAME"]).values == {"queue": "NAME"}
    assert read_stock(["-dtv3"]).values == {
        "debug": True,
        "noproxyverification": True,
        "getjobrequests": 3,
    }
    assert read_stock(["-v", "-1"]).values == {"getjobrequests": -1}


def test_the_last_of_repeated_options_counts() -> None:
    """A factory may append what shall win."""
    assert read_stock(["-q", "A", "-q", "B"]).get("queue") == "B"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("-w analysis", "workflow 'analysis' is not supported"),
        ("-w nonsense", "workflow 'nonsense' is unknown"),
        ("-p port", "-p: 'port' is no int"),
        ("--cleanup=perhaps", "--cleanup: 'perhaps' is neither"),
        ("--strict --new 5", "unknown option --new "),
        (
            "-s S -h Q -p 25443 -w https://server -u user -f false -C 0",
            "say `-q Q --url https://server -j user`",
        ),
    ],
)
def test_misunderstandings_are_refused(words: str, text: str) -> None:
    """What cannot be meant is refused in one line that names it."""
    with pytest.raises(UsageError) as refused:
        read_stock(words.split())
    assert text in str(refused.value) and "\n" not in str(refused.value)


def test_help_names_every_option() -> None:
    """All spellings are in the help text."""
    text = describe()
    assert all(name in text for name in BY_NAME)
