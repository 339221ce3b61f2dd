"""Colours of words in a terminal, as NO_COLOR and FORCE_COLOR want it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CODES: Mapping[str, str] = MappingProxyType(
    {
        "finished": "32", "ok": "32",
        "drained": "33", "skipped": "2",
        "failed": "31", "bad": "31",
    }
)  # fmt: skip
"""Words that tell how something stands; they are told apart without colours too."""


def wants_colour(environ: Mapping[str, str], *, terminal: bool) -> bool:
    """Whether text may be coloured: never with NO_COLOR, always with FORCE_COLOR."""
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or (terminal and environ.get("TERM") != "dumb")


def painted(word: str, text: str, *, colour: bool) -> str:
    """The text, in the colour of the word if colours are wanted and it has one."""
    code = CODES.get(word)
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text
