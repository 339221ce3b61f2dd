"""The page in a real browser: live and frozen, with 100 and 100,000 ranges, wide and narrow, by
keyboard, with hostile names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from browser import Page, browsing, find_browser
from page_samples import EVIL, Played

from espilot.supervisor.page import serving

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="NO BROWSER: the page is untested; install Debian's chromium"
)
READY = "document.documentElement.dataset.ready"
LEVELS = ["Safe", "At risk", "In work", "Failed", "Pace", "Stage-out lag", "Deadline"]


def drive(directory: Path, script: Callable[[Page], Awaitable[Any]]) -> None:
    """Run a script with a browser; afterwards the page has made no error."""

    async def main() -> None:
        async with browsing(str(BROWSER), directory) as page:
            await script(page)
            assert page.errors == []

    asyncio.run(main())


async def text(page: Page, selector: str) -> str:
    """The text that a person sees there."""
    return str(await page.value(f"document.querySelector({selector!r}).innerText"))


async def require_whole(page: Page) -> None:
    """All parts are there and nothing is wider than the window."""
    for name in ("map", "lanes", "burn", "pace", "stageout", "resources", "facts"):
        assert await page.value(f"document.getElementById('{name}').checkVisibility()"), name
    labels = await page.value("[...document.querySelectorAll('#tiles dt')].map(e => e.innerText)")
    assert labels == LEVELS
    width = await page.value("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0
    spilled = await page.value(
        "[...document.querySelectorAll('#tiles *, section > *')]"
        ".filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1"
        " && getComputedStyle(e).overflowX === 'visible').map(e => e.outerHTML.slice(0, 90))"
    )
    assert spilled == []


@pytest.mark.parametrize("n", [100, 100_000])
def test_live_page(tmp_path: Path, n: int) -> None:
    """At 1280 and 400 pixels, light and dark: every part, no overflow, figures and forecast; it
    asks nobody but its own server; what happens next comes by itself."""
    source = Played(n)

    async def script(page: Page) -> None:
        for width, dark in ((1280, False), (400, True)):
            await page.open(url, width=width, dark=dark)
            await page.wait(READY)
            await require_whole(page)
            paper = await page.value("getComputedStyle(document.body).backgroundColor")
            levels = [int(part) for part in re.findall(r"\d+", paper)[:3]]
            assert (sum(levels) < 200) is dark
            await require_drawn(page)
        assert f"of {n:,} before the deadline" in await text(page, "#forecast")
        assert "running, process 4711" in await text(page, "#state")
        with source.lock:
            base = {"role": "r", "pid": 1, "t": source.chronicle.last_t + 1}
            ids = [source.chronicle.cells.ids[0]]
            lines = [{**base, "what": "fatal", "ranges": ids, "diag": "gone"}]
            source.chronicle.take(lines)
            source.changed = {"running": False, "run_state": "unknown", "next_step": "do recover"}
        await page.wait("document.getElementById('legend').innerText.includes('fatal 1')")
        findings = await text(page, "#findings")
        assert "No pilot runs" in findings and "do recover" in findings
        assert "No pilot runs" in await text(page, "#spoken")
        assert all(each.startswith((url, "data:")) for each in page.requested), page.requested

    with serving(source) as url:
        drive(tmp_path, script)


async def require_drawn(page: Page) -> None:
    """The map has many colours on it, so it is not empty."""
    colours = await page.value(
        "(() => { const c = document.getElementById('map');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " const seen = new Set();"
        " for (let i = 0; i < d.length; i += 4) if (d[i + 3]) seen.add(d[i] + ',' + d[i + 1]);"
        " return seen.size; })()"
    )
    assert colours >= 4


def test_keyboard(tmp_path: Path) -> None:
    """By keyboard alone: the map is reached, walked, a block opened and closed, failures found,
    each said in words; the tables tell the same."""
    source = Played(20_000)

    async def script(page: Page) -> None:
        await page.open(url)
        await page.wait(READY)
        for _ in range(8):
            await page.press("Tab")
            if await page.value("document.activeElement.id") == "map":
                break
        assert await page.value("document.activeElement.id") == "map"
        cell = "document.getElementById('cell-text').textContent"
        await page.wait(f"{cell}.startsWith('0 to ')")
        await page.press("ArrowRight")
        await page.wait(f"/^[0-9]+ to /.test({cell}) && !{cell}.startsWith('0 to')")
        await page.press("e")
        await page.wait(f"{cell}.includes('1 failed')")
        await page.press("Enter")
        await page.wait(f"{cell}.includes('1-1795320398-7-')")
        assert "Escape goes back" in await text(page, "#map-scale")
        await page.press("e")
        await page.wait(f"{cell}.includes('no magnetic field map')")
        await page.press("Escape")
        await page.wait("document.getElementById('map-scale').innerText.includes('Each block')")
        await page.value("document.getElementById('table-details').open = true")
        await page.wait("document.querySelectorAll('#table tbody tr').length === 50")
        await page.value(
            "(s => { s.value = 'x'; s.dispatchEvent(new Event('change')); })"
            "(document.getElementById('table-state'))"
        )
        await page.wait(
            "[...document.querySelectorAll('#table tbody tr')]"
            ".every(r => r.cells[3].innerText.startsWith('failed'))"
        )

    with serving(source) as url:
        drive(tmp_path, script)


def test_for_screen_readers(tmp_path: Path) -> None:
    """Landmarks, one heading of the first level, names for what is drawn, polite live regions."""
    report = tmp_path / "report.html"
    report.write_text(Played(100).report())

    async def script(page: Page) -> None:
        await page.open(report.as_uri())
        await page.wait(READY)
        nodes = (await page.call("Accessibility.getFullAXTree"))["nodes"]
        named = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored")
        ]
        roles = [role for role, _ in named]
        assert {"banner", "main", "contentinfo", "status"} <= set(roles)
        headings = await page.value("[...document.querySelectorAll('h1')].length")
        assert headings == 1
        regions = {name for role, name in named if role == "region"}
        assert {"Health", "Ranges", "Timeline", "Throughput", "Stage-out", "Resources"} <= regions
        assert any(role == "application" and "1 failed" in name for role, name in named)
        for beginning in ("Timeline:", "Throughput:"):
            assert any(role in ("image", "img") and name.startswith(beginning)
                       for role, name in named), beginning  # fmt: skip
        controls = ("button", "combobox", "spinbutton", "region")
        assert [role for role, name in named if role in controls and not name] == []

    drive(tmp_path, script)


@pytest.mark.parametrize("dark", [False, True])
def test_readable_colours(tmp_path: Path, dark: bool) -> None:
    """All text has a contrast of 4.5 to 1 at least with what is behind it."""
    report = tmp_path / "report.html"
    report.write_text(Played(100).report())

    async def script(page: Page) -> None:
        await page.open(report.as_uri(), dark=dark)
        await page.wait(READY)
        assert await page.value(CONTRAST) == []

    drive(tmp_path, script)


CONTRAST = """(() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
  const bad = [];
  for (const e of document.querySelectorAll('body *')) {
    if (!e.checkVisibility() || e.className === 'unseen' || e.tagName === 'SCRIPT') continue;
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const pair = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const [a, b] = pair.sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) bad.push(e.outerHTML.slice(0, 100));
  }
  return bad;
})()"""


def test_hostile_names(tmp_path: Path) -> None:
    """Ids and texts of payloads and servers are shown as they are, and never run."""
    source = Played(100)
    base = {"role": "r", "pid": 1, "t": source.chronicle.last_t + 1}
    each = {"events": [[1, 2]], "lfn": [EVIL]}
    source.chronicle.take([{**base, "what": "fetched", "ranges": [EVIL], "each": each},
                           {**base, "what": "verdict", "ranges": [], "text": EVIL}])  # fmt: skip
    source.changed = {"task": EVIL, "note": EVIL}
    report = tmp_path / "report.html"
    report.write_text(source.report())

    async def script(page: Page) -> None:
        for address in (url, report.as_uri()):
            await page.open(address)
            await page.wait(READY)
            assert EVIL in await text(page, "#title")
            assert EVIL in await text(page, "#findings")
            await page.value("document.getElementById('table-details').open = true")
            await page.value("document.getElementById('table-from').value = 95")
            await page.value("document.getElementById('table-show').click()")
            await page.wait("document.getElementById('table').innerText.includes('onerror')")
            assert await page.value("window.hacked") is None
            assert await page.value("document.images.length") == 0

    with serving(source) as url:
        drive(tmp_path, script)


def test_server_gone(tmp_path: Path) -> None:
    """A page whose server has ended says that its figures are old."""
    source = Played(100)

    async def script(page: Page) -> None:
        with serving(source) as url:
            await page.open(url)
            await page.wait(READY)
        await page.wait("document.getElementById('state').innerText.includes('figures are old')")
        page.errors.clear()  # the browser itself tells of the refused connection

    drive(tmp_path, script)
