"""The launcher's command line, read by hand: argparse would cost it too much memory."""

from __future__ import annotations

import os

from espilot.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RUN_ID_VARIABLE = "ESPILOT_RUN_ID"
_RUN_ID_MIN_CHARS = 8
_LEFTOVER_GRACE_S = 2.0


class Options:
    """The command line. Paths are absolute; times in seconds."""

    __slots__ = (
        "command",
        "core_bytes",
        "death_fd",
        "directory",
        "grace_s",
        "group",
        "leftover_s",
        "remove",
        "result",
        "run_id",
    )

    def __init__(self, argv: Sequence[str], run_id: str) -> None:
        """Parse; UsageError names the option that is missing or wrong."""
        values, self.remove, self.command = _split(argv)
        self.directory = _absolute(values, "--dir")
        self.result = _absolute(values, "--result")
        self.group = _absolute(values, "--group") if "--group" in values else ""
        self.death_fd = int(_number(values, "--death-fd", None))
        self.grace_s = _number(values, "--grace-s", 30.0)
        self.leftover_s = _number(values, "--leftover-s", _LEFTOVER_GRACE_S)
        self.core_bytes = int(_number(values, "--core-bytes", 0.0))
        self.run_id = run_id
        if len(run_id) < _RUN_ID_MIN_CHARS:
            raise UsageError(f"{RUN_ID_VARIABLE} must have {_RUN_ID_MIN_CHARS} characters or more")


_ONE_VALUE = (
    "--dir", "--result", "--death-fd", "--grace-s", "--leftover-s", "--core-bytes", "--group",
)  # fmt: skip


def _split(argv: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Options by name, the paths to remove, the payload's command (argparse costs too much)."""
    if "--" not in argv or argv[-1] == "--":
        raise UsageError("the payload's command is missing: end the options with -- COMMAND")
    end = argv.index("--")
    values: dict[str, str] = {}
    remove: list[str] = []
    for at in range(0, end, 2):
        name = argv[at]
        if name not in (*_ONE_VALUE, "--remove"):
            raise UsageError(f"unknown option {name}")
        if at + 1 >= end:
            raise UsageError(f"option {name} needs a value")
        if name == "--remove":
            remove.append(argv[at + 1])
        values[name] = argv[at + 1]
    return values, remove, list(argv[end + 1 :])


def _absolute(values: dict[str, str], name: str) -> str:
    path = values.get(name, "")
    if not os.path.isabs(path):
        raise UsageError(f"option {name} needs an absolute path, not {path!r}")
    return path


def _number(values: dict[str, str], name: str, default: float | None) -> float:
    text = values.get(name)
    try:
        number = float(text) if text is not None else default
    except ValueError:
        number = -1.0
    if number is None or not 0 <= number < 1e9:
        raise UsageError(f"option {name} needs a number from 0 on, not {text!r}")
    return number
