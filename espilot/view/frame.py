"""The live page's object as lines of a terminal: what `espilot top` shows.

A line is a list of pieces, each with a tone that may become a colour; nothing is told by colour
alone. The most important parts get their lines first, the others what is left of the height.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espilot.view.cells import BY_LETTER, STATES
from espilot.view.wording import printable

Piece = tuple[str, str]
Line = list[Piece]
Document = Mapping[str, Any]

ASCII = {
    "w": ".", "r": "o", "s": ">", "d": "d", "p": "p", "t": "t", "f": "#", "x": "X", "z": "Z",
    "b": "<",
}  # fmt: skip
"""Glyphs for terminals that have no others."""
SIGNS = {"ok": "ok", "note": "i ", "warn": "! ", "bad": "!!"}
MOST_MAP_ROWS = 16
SOME_FAILED = 0.05
"""A glyph for many ranges is that of failure from this share on."""
BAR_WIDTH = 12
LEAST_WIDTH = 20


@dataclass(frozen=True, slots=True)
class Part:
    """Some lines under a title; it gets `least` of them (if it has so many) before others more."""

    title: str
    lines: Sequence[Line]
    least: int


def make_frame(doc: Document, width: int, height: int, *, ascii_only: bool = False) -> list[Line]:
    """At most `height` lines of at most `width` columns."""
    width = max(LEAST_WIDTH, width)
    head = [
        [(f"{doc['title']}  ", "title"), (str(doc["state"]["text"]), str(doc["state"]["level"]))],
        [(str(doc["forecast"]["text"]), "title")],
        *figure_lines(doc, width),
    ]
    rest = max(0, height - len(head))
    rows = min(MOST_MAP_ROWS, max(2, rest // 4))
    cells = map_lines(doc, width, rows, ascii_only=ascii_only)
    parts = [
        Part("Health", health_lines(doc), 3),
        Part("Ranges", cells, len(cells)),  # a part of the map would say something else
        Part("Workers: ranges ended, share of time busy", lane_lines(doc, width), 2),
        Part("Stage-out", stageout_lines(doc, width), 1),
        Part("Resources", resource_lines(doc, ascii_only=ascii_only), 2),
    ]
    lines = [*head, *arrange([part for part in parts if part.lines], rest)]
    return [cut(spell(line) if ascii_only else line, width) for line in lines[:height]]


def arrange(parts: Sequence[Part], height: int) -> list[Line]:
    """The parts with their titles, each with as many of its lines as there is room for."""
    shown = [0] * len(parts)
    left = height
    for at, part in enumerate(parts):
        wanted = min(part.least, len(part.lines))
        if left > wanted:
            shown[at] = wanted
            left -= wanted + 1
    for at, part in enumerate(parts):
        more = min(left, len(part.lines) - shown[at]) if shown[at] else 0
        shown[at] += more
        left -= more
    lines: list[Line] = []
    for n, part in zip(shown, parts, strict=True):
        hidden = len(part.lines) - n
        note = f" ({hidden} more)" if hidden else ""
        if n:
            lines += [[(part.title, "title"), (note, "idle")], *part.lines[:n]]
    return lines


def cut(line: Line, width: int) -> Line:
    """The line without what is beyond the width."""
    kept: Line = []
    for text, tone in line:
        room = width - sum(len(each) for each, _ in kept)
        if room <= 0:
            break
        kept.append((text if len(text.rstrip()) <= room else text[: room - 1] + "~", tone))
    return kept


def spell(line: Line) -> Line:
    """The line for a terminal that takes only ASCII."""
    return [(text.encode("ascii", "replace").decode(), tone) for text, tone in line]


def flow(pieces: Sequence[Piece], width: int) -> list[Line]:
    """Pieces in as many lines as they take, two blanks between them."""
    lines: list[Line] = [[]]
    used = 0
    for text, tone in pieces:
        if lines[-1] and used + 2 + len(text) > width:
            lines.append([])
            used = 0
        if lines[-1]:
            lines[-1].append(("  ", ""))
            used += 2
        lines[-1].append((text, tone))
        used += len(text)
    return lines


def figure_lines(doc: Document, width: int) -> list[Line]:
    """The key figures."""
    return flow(
        [(f"{each['label']} {each['value']}", each["level"]) for each in doc["tiles"]], width
    )


def health_lines(doc: Document) -> list[Line]:
    """Each sentence, and its remedy below it."""
    lines: list[Line] = []
    for each in doc["health"]:
        lines.append([(f"{SIGNS[each['level']]} {each['text']}", each["level"])])
        if each["remedy"] and each["level"] in ("bad", "warn"):
            lines.append([(f"   {each['remedy']}", "")])
    return lines


def map_lines(doc: Document, width: int, rows: int, *, ascii_only: bool) -> list[Line]:
    """The legend, then the map: one glyph for a range, or for as many as it takes."""
    total, cells = int(doc["map"]["total"]), str(doc["cells"])
    if not total:
        return []
    per = max(1, -(-total // (width * rows)))
    glyphs = [glyph_of(cells, first, min(total, first + per)) for first in range(0, total, per)]
    counts = doc["map"]["counts"]
    legend = [
        (f"{look(state.letter, ascii_only=ascii_only)} {state.name} {counts[state.letter]:,}",
         state.tone)
        for state in STATES
        if counts[state.letter]
    ]  # fmt: skip
    if per > 1:
        legend.append((f"(each {per:,} ranges)", "idle"))
    lines = flow(legend, width)
    for first in range(0, len(glyphs), width):
        lines.append(join(glyphs[first : first + width], ascii_only=ascii_only))
    return lines


def glyph_of(cells: str, first: int, last: int) -> str:
    """The letter for some cells: failed if not a few have, else what most of them are."""
    some = cells[first:last].lower()
    if some.count("x") + some.count("z") > SOME_FAILED * (last - first):
        return max("xz", key=some.count)
    waiting = last - first - len(some)
    most = max(set(some), key=some.count, default="w")
    return "w" if waiting > some.count(most) else most


def join(letters: Sequence[str], *, ascii_only: bool) -> Line:
    """Glyphs as few pieces."""
    line: Line = []
    for letter in letters:
        glyph, tone = look(letter, ascii_only=ascii_only), BY_LETTER[letter].tone
        if line and line[-1][1] == tone:
            line[-1] = (line[-1][0] + glyph, tone)
        else:
            line.append((glyph, tone))
    return line


def look(letter: str, *, ascii_only: bool) -> str:
    """The glyph of a state."""
    return ASCII[letter] if ascii_only else BY_LETTER[letter].glyph


def lane_lines(doc: Document, width: int) -> list[Line]:
    """Workers side by side: those at work first."""
    lanes = [lane for lane in doc["lanes"]["lanes"] if lane["name"] != "stage-out"]
    lanes.sort(key=lambda lane: (lane["now"] is None, lane["name"]))
    since_s = max(1.0, (doc["ended_at"] or doc["taken_at"]) - doc["lanes"]["from"])
    pieces = [lane_piece(lane, since_s) for lane in lanes]
    widest = max((len(text) for text, _ in pieces), default=0) + 2
    padded = [(text.ljust(widest), tone) for text, tone in pieces]
    columns = max(1, (width + 2) // max(1, widest))
    return [padded[at : at + columns] for at in range(0, len(padded), columns)]


def lane_piece(lane: Mapping[str, Any], since_s: float) -> Piece:
    """One worker."""
    busy = min(1.0, lane["busy_s"] / since_s)
    failed = f", {lane['failed']} failed" if lane["failed"] else ""
    text = f"{'>' if lane['now'] is not None else ' '} {lane['name']}: {lane['ended']}{failed}"
    return f"{text} ({busy:.0%})", ""


def stageout_lines(doc: Document, width: int) -> list[Line]:
    """What waits, and what is shipped where."""
    return flow([(f"{label}: {text}", "") for label, text in doc["stageout"]], width)


def resource_lines(doc: Document, *, ascii_only: bool) -> list[Line]:
    """Each against its limit; those that have one first."""
    lines: list[Line] = []
    rows = sorted(doc["resources"], key=lambda each: -(each["share"] or 0.0))
    for each in rows:
        line: Line = [(f"{printable(each['name']):<16}{each['value']:>12}", "")]
        if each["share"] is not None:
            tone = "lost" if each["share"] >= 1 else "risk" if each["share"] >= 0.8 else "work"
            full = min(BAR_WIDTH, round(each["share"] * BAR_WIDTH))
            filled, empty = ("#", "-") if ascii_only else ("█", "░")
            bar = filled * full + empty * (BAR_WIDTH - full)
            line += [(f"  {bar}", tone), (f" {each['share']:.0%} of {each['limit']}", "")]
        lines.append(line)
    return lines


def plain_text(lines: Sequence[Line]) -> str:
    """The lines without colour."""
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines)
