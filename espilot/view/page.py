"""The page itself: one file of HTML with its style and script in it, which asks nobody else.

With a document inside it is frozen: a report. Nothing from outside becomes markup: the document is
escaped JSON, and the script writes it as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from espilot.view.cells import REPORTED, Cells

MOST_ROWS = 5000
"""Ranges of which a report knows everything; those that are not simply reported come first."""
ROWS_AT_ONCE = 200


@cache
def asset(name: str) -> str:
    """One of the files that the page is made of."""
    return (files("espilot.view") / "assets" / name).read_text(encoding="utf-8")


def digest(text: str) -> str:
    """How a policy names a script or style that it allows."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


@cache
def policy() -> str:
    """The content security policy: our own script and style, our own server, nothing else."""
    return (
        f"default-src 'none'; script-src {digest(asset('page.js'))}; "
        f"style-src {digest(asset('page.css'))}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def render(frozen: Mapping[str, Any] | None = None) -> str:
    """The page, live or with a frozen document."""
    data = "" if frozen is None else embed(frozen)
    pieces = {
        "{{policy}}": policy(),
        "{{style}}": asset("page.css"),
        "{{script}}": asset("page.js"),
        "{{data}}": data,
    }
    text = asset("page.html")
    for name, piece in pieces.items():
        before, _, after = text.partition(name)
        text = before + piece + after
    return text


def embed(frozen: Mapping[str, Any]) -> str:
    """A document as text that cannot end its script element or begin another."""
    text = json.dumps(frozen, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def rows(cells: Cells, start: int, letter: str = "", most: int = ROWS_AT_ONCE) -> list[Any]:
    """Rows of the map from a cell on; with a letter only those in its state."""
    found = []
    for cell in range(max(0, start), len(cells)):
        if not letter or chr(cells.letters[cell]).lower() == letter:
            found.append(cells.row(cell))
            if len(found) >= most:
                break
    return found


def number(text: str | None) -> int:
    """A number of a query; 0 when it is none."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else 0


def frozen_rows(cells: Cells) -> list[Any]:
    """Rows for a report: all, or as many as it takes, the doubtful ones first."""
    if len(cells) <= MOST_ROWS:
        return [cells.row(cell) for cell in range(len(cells))]
    doubtful = [cell for cell in range(len(cells)) if cells.letters[cell] != REPORTED]
    others = (cell for cell in range(len(cells)) if cells.letters[cell] == REPORTED)
    chosen = sorted([*doubtful[:MOST_ROWS], *list(others)[: max(0, MOST_ROWS - len(doubtful))]])
    return [cells.row(cell) for cell in chosen]
