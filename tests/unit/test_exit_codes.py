"""The two tables of exit codes, and that everything which shows them is true to them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from espilot.cli import exit_codes, main, service
from espilot.core.exit_code import SIGNAL_CODES, TABLE, pilot_codes, shell_code
from espilot.supervisor.outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("pilot", "shell"),
    [
        (0, 0), (-1, 64), (1377, 64), (1008, 65), (1199, 66), (1103, 67), (1177, 68), (1163, 68),
        (1373, 68), (1098, 69), (1301, 70), (1112, 70), (1116, 71), (1117, 72), (1186, 73),
        (1330, 74), (1332, 75), (1342, 76), (1331, 77), (1359, 78), (1318, 79), (1382, 80),
        (1213, 81), (1385, 82), (1386, 83), (1200, 137), (1201, 143), (1202, 131), (1203, 139),
        (1204, 152), (1206, 135), (1207, 138), (1208, 130), (1104, 1), (1150, 1), (1235, 1),
        (1137, 1), (255, 1), (510, 1),
    ],
)  # fmt: skip
def test_lesson_48_the_stock_table(pilot: int, shell: int) -> None:
    """Each pilot error code has the exit code that its readers know; all others are 1."""
    assert shell_code(pilot) == shell


def test_lesson_52_never_two() -> None:
    """No code of ours and none of the table is 2, nor out of a byte's range."""
    codes = [row.shell for row in TABLE] + list(exit_codes.TABLE)
    assert 2 not in codes and all(0 <= code <= 255 for code in codes)
    assert len({row.shell for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("number", "code"), list(SIGNAL_CODES.items()))
def test_a_signal_tells_itself(number: int, code: int) -> None:
    """A clean end after a signal has the signal's code, 128 + its number."""
    assert shell_code(0, signal=number) == 128 + number == shell_code(code)


def test_lesson_62_a_clean_drain_may_be_success() -> None:
    """With a code for drains, a clean end after a signal has that one; an error keeps its own."""
    assert shell_code(0, signal=15, drained=0) == 0
    assert shell_code(1201, signal=15, drained=0) == 0
    assert shell_code(1098, signal=15, drained=0) == 69
    assert shell_code(0, signal=12) == 137
    assert shell_code(0, drained=5) == 0


def test_help_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """`espilot help exit-codes --json` has every row of both tables in the code, and no other."""
    assert main.main(["help", "exit-codes", "--json"]) == 0
    topic = json.loads(capsys.readouterr().out)
    assert {row["code"]: row["meaning"] for row in topic["native"]} == dict(exit_codes.TABLE)
    assert {row["code"]: row["meaning"] for row in topic["stock"]} == {
        row.shell: row.meaning for row in TABLE
    }
    assert all(tuple(row["pilot_codes"]) == pilot_codes(row["code"]) for row in topic["stock"])
    assert main.main(["help", "exit-codes"]) == 0
    text = capsys.readouterr().out
    assert all(meaning in text for meaning in exit_codes.TABLE.values())
    assert all(row.meaning in text for row in TABLE)


def test_an_unknown_topic_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """One line names the topic and those there are."""
    assert main.main(["help", "exit-code"]) == exit_codes.USAGE
    assert "'exit-code'; there are exit-codes" in capsys.readouterr().err


def test_the_readme_is_true() -> None:
    """The table in the README has codes of ours only, and all but that of an early Ctrl-C."""
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {int(row) for row in rows} == set(exit_codes.TABLE) - {exit_codes.INTERRUPTED}


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(state="finished"), exit_codes.FINISHED),
        (Outcome(state="failed", drained_by="credential"), exit_codes.FAILED),
        (Outcome(state="drained", drained_by="signal", signal=15), exit_codes.FINISHED),
        (Outcome(state="drained", drained_by="shutdowntime"), exit_codes.FINISHED),
        (Outcome(state="drained", drained_by="credential", signal=15), exit_codes.FINISHED),
        (Outcome(state="drained", drained_by="credential"), exit_codes.UNAVAILABLE),
    ],
)
def test_service_that_is_to_be_started_again(outcome: Outcome, code: int) -> None:
    """Its manager starts it again when its credential comes to an end, not when it was stopped."""
    assert service.exit_code(outcome) == code
