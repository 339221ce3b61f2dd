"""The words after `--`: the command of a payload, as a person types it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from espilot.errors import UsageError
from espilot.payload.template import OUTPUT, PLACEHOLDERS

_RUNNER = "espilot.payload.exec_runner"


def split_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command; one word alone is split as a shell would split it."""
    if len(words) != 1:
        return tuple(words)
    try:
        return tuple(shlex.split(words[0]))
    except ValueError as error:
        raise UsageError(f"the command {words[0]!r:.80}: {error}") from None


def absolute_words(words: Sequence[str]) -> tuple[str, ...]:
    """Files of the current directory by their full paths: the payload starts in another one."""
    return tuple(_absolute(word, first=not n) for n, word in enumerate(words))


def is_template(words: Sequence[str]) -> bool:
    """Whether it is run once for each range; else it speaks the protocol of the channel."""
    marks = [f"{{{name}" for name in (OUTPUT, *PLACEHOLDERS)]
    return _RUNNER not in words and any(mark in word for word in words for mark in marks)


def require_program(words: Sequence[str]) -> None:
    """`UsageError` when there is no such program, or it cannot be run."""
    program = words[0] if words else ""
    if program.startswith("{") or shutil.which(program):
        return
    if Path(program).is_file():
        raise UsageError(f"{program} is not executable; chmod +x {shlex.quote(program)}")
    where = "" if "/" in program else " on the PATH; a program of this directory is ./NAME"
    raise UsageError(f"there is no program {program!r:.120}{where}")


def _absolute(word: str, *, first: bool) -> str:
    named = "/" in word if first else "/" in word or "." in word
    if named and not word.startswith("/") and Path(word).is_file():
        return str(Path(word).absolute())
    return word
