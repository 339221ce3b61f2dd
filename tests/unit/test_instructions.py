"""Commands of the server."""

from __future__ import annotations

import pytest

from espilot.core.instructions import Orders, read_orders


@pytest.mark.parametrize(
    ("command", "orders"),
    [
        ("", Orders()),
        ("NULL", Orders()),
        ("alreadydone", Orders()),
        ("tobekilled", Orders(kill=True)),
        ("softkill", Orders(soft_kill=True)),
        ("debug,tobekilled", Orders(kill=True, debug=True)),
        (" debugoff , softkill ", Orders(soft_kill=True, debug=False)),
        ("nocleanup", Orders(keep_workdir=True)),
        ("tail -n 5 x.out", Orders(debug=True, inquiry=("tail", "-n", "5", "x.out"))),
        ("ls ../..", Orders(debug=True, inquiry=("ls", "../.."))),
        ("ps", Orders(debug=True, inquiry=("ps",))),
        ("gdb 1", Orders(unknown=("gdb 1",))),
        ("debugged", Orders(unknown=("debugged",))),
        ("not tobekilled", Orders(unknown=("not tobekilled",))),
        ("softkill tobekilled", Orders(unknown=("softkill tobekilled",))),
    ],
)  # fmt: skip
def test_lesson_13_commands_are_whole_words(command: str, orders: Orders) -> None:
    """A command is split at commas and read as whole words; what only contains one is unknown."""
    assert read_orders(command) == orders
