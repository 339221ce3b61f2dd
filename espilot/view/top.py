"""The frame on a terminal, drawn anew where it stands; one plain frame where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from espilot.view.frame import Line, make_frame, plain_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES = {
    "title": "bold", "idle": "bright_black", "work": "blue", "risk": "yellow", "safe": "green",
    "lost": "bold red", "back": "magenta", "ok": "green", "note": "cyan", "warn": "yellow",
    "bad": "bold red", "": "",
}  # fmt: skip
PLAIN_HEIGHT = 1000


def show_once(doc: Mapping[str, Any], out: TextIO) -> None:
    """One frame without colour, as wide as COLUMNS says, all of it."""
    width = shutil.get_terminal_size().columns
    out.write(plain_text(make_frame(doc, width, PLAIN_HEIGHT, ascii_only=not speaks_utf8(out))))
    out.flush()


def show_live(
    look: Callable[[], Mapping[str, Any]], out: TextIO, wait: Callable[[float], bool]
) -> None:
    """Frames until `wait`, which waits so many seconds, says that it is enough."""
    from rich.console import Console
    from rich.live import Live

    console = Console(file=out, highlight=False, markup=False, emoji=False)
    ascii_only = not speaks_utf8(out)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(render(look(), console, ascii_only=ascii_only), refresh=True)
            if wait(1.0):
                return


def render(doc: Mapping[str, Any], console: Console, *, ascii_only: bool) -> Text:
    """A frame as large as the terminal is now."""
    size = console.size
    return styled(make_frame(doc, size.width, size.height, ascii_only=ascii_only))


def styled(lines: list[Line]) -> Text:
    """The lines with colours; their text is no markup."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop", end="")
    for at, line in enumerate(lines):
        text.append("\n" if at else "")
        for piece, tone in line:
            text.append(piece, STYLES[tone])
    return text


def is_screen(out: TextIO) -> bool:
    """Whether it can be drawn on."""
    return out.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def speaks_utf8(out: TextIO) -> bool:
    """Whether it takes glyphs beyond ASCII."""
    return (out.encoding or "").lower().replace("-", "") == "utf8"
