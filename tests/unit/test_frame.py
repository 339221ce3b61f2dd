"""The frame of `espilot top`: fits, says what matters first, tells nothing by colour alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from espilot.view.cells import STATES
from espilot.view.frame import ASCII, glyph_of, make_frame, plain_text
from espilot.view.top import STYLES, show_once, styled


def shown(total: int, cells: str, **changed: Any) -> dict[str, Any]:
    """A page's object with what a frame needs."""
    counts = {s.letter: cells.lower().count(s.letter) for s in STATES}
    counts["w"] += total - len(cells)
    lane = {"ended": 12, "failed": 1, "busy_s": 50.0, "now": 3.0, "boxes": []}
    usual = {
        "title": "task ttbar", "state": {"text": "running, process 7", "level": "warn"},
        "forecast": {"text": "Will finish 812 of 1,000 before the deadline.", "good": False},
        "tiles": [{"label": label, "value": "1,234", "note": "n", "level": "note"}
                  for label in ("Safe", "At risk", "In work", "Failed", "Pace", "Lag", "Deadline")],
        "health": [{"level": "bad", "text": f"trouble {n}", "remedy": f"do {n}"}
                   for n in range(6)],
        "map": {"total": total, "beyond": 0, "counts": counts}, "cells": cells,
        "lanes": {"from": 0.0, "lanes": [{"name": f"process {n}", **lane} for n in range(40)]
                  + [{"name": "stage-out", **lane}]},
        "stageout": [["oldest waits for", "14 s"], ["storage", "ok"], ["outputs to pack", "3"]],
        "resources": [{"name": f"peak {n}", "value": "1 GB", "limit": "2 GB", "share": n / 5}
                      for n in range(6)],
        "taken_at": 100.0, "ended_at": None,
    }  # fmt: skip
    return usual | changed


SIZES = [(80, 24), (132, 50), (400, 120), (40, 12), (20, 5), (1, 1), (80, 1)]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("total", [0, 7, 1000, 250_000])
def test_fits(width: int, height: int, total: int) -> None:
    """Never more lines or columns than there are."""
    frame = make_frame(shown(total, "fSdx" * (total // 5)), width, height)
    assert len(frame) <= height
    assert max(len("".join(text for text, _ in line).rstrip()) for line in frame) <= max(20, width)


def test_everything_at_80_by_24() -> None:
    """At 80x24 each part is there with its most important lines, and the whole map."""
    text = plain_text(make_frame(shown(100_000, "f" * 60_000 + "d" * 9000), 80, 24))
    for part in (
        "running, process 7",
        "Will finish 812",
        "Safe 1,234",
        "Deadline 1,234",
        "trouble 0",
        "do 0",
        "Health",
        "Ranges",
        "Workers",
        "Stage-out",
        "Resources",
        "reported 60,000",
        "waiting 31,000",
        "oldest waits for: 14 s",
        "100% of 2 GB",
    ):
        assert part in text, part  # fmt: skip
    cells = [line for line in text.splitlines() if set(line) <= set("●◐·") and line]
    glyphs = "".join(cells)
    assert glyphs == glyphs.rstrip("·") + "·" * glyphs.count("·")
    assert glyphs.count("●") / len(glyphs) == pytest.approx(0.6, abs=0.02)
    assert glyphs.count("◐") / len(glyphs) == pytest.approx(0.09, abs=0.02)


def test_each_state_has_its_glyph() -> None:
    """States differ by glyph, in Unicode and in ASCII; each tone has a style."""
    assert len({state.glyph for state in STATES}) == len(set(ASCII.values())) == len(STATES)
    assert {state.tone for state in STATES} <= set(STYLES)
    text = plain_text(make_frame(shown(10, "rsdptfxzb"), 200, 100))
    assert "○▸◐◧◆●✗▼↩·" in text


def test_one_glyph_for_many() -> None:
    """It is what most of them are; failure shows when it is more than a few."""
    assert glyph_of("f" * 60 + "s" * 40, 0, 100) == "f"
    assert glyph_of("f" * 99 + "x", 0, 100) == "f"
    assert glyph_of("F" * 90 + "xXz" * 3, 0, 100) == "x"
    assert glyph_of("f" * 40, 0, 100) == "w"
    assert glyph_of("", 100, 200) == "w"


def test_plain_frame_in_ascii(tmp_path: Path) -> None:
    """Where only ASCII can be written the frame is ASCII; no escape sequence is in it."""
    doc = shown(100, "fd", title="tâche", stageout=[["oldest waits for", "–"]])
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        show_once(doc, out)
    text = (tmp_path / "out").read_text(encoding="ascii")
    assert "t?che" in text and "#d...." in text and "\x1b" not in text


@pytest.mark.parametrize("coloured", [True, False])
def test_colours(coloured: bool) -> None:
    """With colours each tone has its code; without the text is the same; markup is only text."""
    doc = shown(10, "fx", title="[bold red]task[/]")
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard",
                      no_color=not coloured, width=80, height=24, markup=True)  # fmt: skip
    console.print(styled(make_frame(doc, 80, 24)), markup=False)
    text = out.getvalue()
    assert ("\x1b[32m" in text) is coloured
    assert "[bold red]task[/]" in text
