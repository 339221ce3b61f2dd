"""The command line that a job definition asks for: an argument vector, no shell is involved."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import Any

from espilot.errors import MessageError
from espilot.wire.jobfiles import replace_names
from espilot.wire.queue_overrides import split_overrides
from espilot.workers.context import Context


def command_of(context: Context, definition: Mapping[str, Any]) -> list[str]:
    """Set-up and transformation; a program beside the job file comes before those of the PATH.

    Errors: `MessageError` names what cannot be used.
    """
    transformation = _words(context, str(definition.get("transformation") or ""), "transformation")
    if not transformation or "://" in transformation[0]:
        raise MessageError(f"job definition: cannot run the transformation {transformation!r:.100}")
    beside = context.jobdir / transformation[0]
    if "/" not in transformation[0] and beside.is_file():
        transformation[0] = str(beside)
    setup = _words(context, context.settings.payload.setup, "payload.setup")
    return [*setup, *transformation]


def parameters_of(context: Context, definition: Mapping[str, Any]) -> list[str]:
    """The job's parameters as arguments, without what is meant for the pilot."""
    text = definition.get("jobPars")
    plain, _ = split_overrides(text) if isinstance(text, str) and text != "NULL" else ("", {})
    return _words(context, plain, "jobPars")


def event_command(
    context: Context, definition: Mapping[str, Any], inputs: Mapping[str, str]
) -> list[str]:
    """The command of an event job; `inputs` has the place of each input by its LFN."""
    arguments = replace_names(parameters_of(context, definition), inputs)
    return [*command_of(context, definition), *arguments]


def _words(context: Context, text: str, what: str) -> list[str]:
    values = {
        "{python}": sys.executable,
        "{jobdir}": str(context.jobdir),
        "{workdir}": str(context.workdir),
        "{cores}": str(context.settings.payload.cores),
    }
    try:
        return [replace_all(word, values) for word in shlex.split(text)]
    except ValueError as error:
        raise MessageError(f"{what} {text!r:.100}: {error}") from None


def replace_all(word: str, values: Mapping[str, str]) -> str:
    """One argument with the pilot's placeholders replaced; others stay."""
    for name, value in values.items():
        word = word.replace(name, value)
    return word
