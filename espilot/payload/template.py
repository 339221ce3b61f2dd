"""The command template of payloads that speak no protocol: one command per range.

The template is split into arguments once; placeholders are replaced inside each argument after
that, so no value is ever split again or seen by a shell. `{{` and `}}` stand for literal braces.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

from espilot.errors import UsageError

PLACEHOLDERS = (
    "startEvent",
    "lastEvent",
    "events",
    "eventRangeID",
    "LFN",
    "GUID",
    "scope",
    "PFN",
    "input",
)
OUTPUT = "output"

Piece = tuple[str, str]
"""Literal text, and the placeholder after it (empty at the end)."""


@dataclass(frozen=True, slots=True)
class Template:
    """A command template; `streams` are the output streams it names, counted from 0."""

    arguments: tuple[tuple[Piece, ...], ...]
    streams: tuple[int, ...]

    def fill(self, values: Mapping[str, str], outputs: Mapping[int, str]) -> list[str]:
        """Return the command for one range; `outputs` are paths by stream."""
        return [
            "".join(literal + _value(name, values, outputs) for literal, name in pieces)
            for pieces in self.arguments
        ]


def parse_template(words: Sequence[str]) -> Template:
    """Return the template; one word alone is split as a shell would split it.

    `UsageError` names the placeholder or argument that cannot be used.
    """
    arguments = tuple(_parse_argument(word) for word in _split(words))
    if not arguments:
        raise UsageError("the command template is empty")
    names = {name for pieces in arguments for _, name in pieces if name.startswith(OUTPUT)}
    if not names:
        raise UsageError("the command template names no {output}, so nothing could be collected")
    return Template(arguments, tuple(sorted({_stream(name) for name in names})))


def _split(words: Sequence[str]) -> Sequence[str]:
    if len(words) != 1:
        return words
    try:
        return shlex.split(words[0])
    except ValueError as error:
        raise UsageError(f"command template {words[0]!r}: {error}") from None


def _parse_argument(word: str) -> tuple[Piece, ...]:
    try:
        parsed = list(Formatter().parse(word))
    except ValueError as error:
        raise UsageError(f"command template, argument {word!r}: {error}") from None
    for _, name, spec, conversion in parsed:
        if name is not None and (spec or conversion or not _is_known(name)):
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            known = " ".join(f"{{{p}}}" for p in (*PLACEHOLDERS, OUTPUT, "output2"))
            raise UsageError(
                f"unknown placeholder {{{shown}}} in the command template; known are {known} ..."
            )
    return tuple((literal, name or "") for literal, name, _, _ in parsed)


def _is_known(name: str) -> bool:
    number = name.removeprefix(OUTPUT)
    is_output = name.startswith(OUTPUT) and (not number or _is_stream_number(number))
    return is_output or name in PLACEHOLDERS


def _is_stream_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 3 and text[0] != "0"


def _stream(name: str) -> int:
    return int(name.removeprefix(OUTPUT) or "1") - 1


def _value(name: str, values: Mapping[str, str], outputs: Mapping[int, str]) -> str:
    if not name:
        return ""
    return outputs[_stream(name)] if name.startswith(OUTPUT) else values[name]
