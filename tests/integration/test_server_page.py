"""The live page of the built-in server: all its tasks and jobs, read beside the server."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from browser import browsing, find_browser
from page_samples import EVIL

from espilot.cli.server_watch import ServerWatch
from espilot.errors import LocalError
from espilot.server.options import ServerOptions
from espilot.server.overview import read_overview, read_range_rows
from espilot.server.store import Store
from espilot.server.tasks import read_new_task
from espilot.supervisor.page import serving

ROOT = Path(__file__).resolve().parents[2]
NOW = time.time()


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Two tasks; a job of the first one holds three of its ranges."""
    path = tmp_path / "es.db"
    store = Store(path, ServerOptions(), now=NOW)
    for name, events in (("first", 100), ("second", 40)):
        table = {"name": name, "events": events, "events_per_range": 10, "outputs": ["o"]}
        store.create_task(read_new_task(table), NOW)
    (job,) = store.acquire_jobs({"site_name": "S", "node": EVIL}, NOW)
    wanted = {"job_id": int(job["PandaID"]), "jobset_id": int(job["jobsetID"]), "n_ranges": 3}
    assert len(store.acquire_ranges(wanted)) == 3
    store.close()
    return path


def test_overview(db: Path) -> None:
    """Tasks, jobs, and a letter for each range in the order of the input."""
    overview = read_overview(db, most=1000)
    assert [task["total"] for task in overview.tasks] == [10, 4]
    assert overview.letters == "sss" + "w" * 11
    assert [bool(job["active"]) for job in overview.jobs] == [True, True]
    assert read_overview(db, most=5).letters == "sssww"
    rows = read_range_rows(db, 1, 50, "s")
    assert [row["n"] for row in rows] == [1, 2] and rows[0]["start_event"] == 11


def test_nothing_is_changed(db: Path) -> None:
    """Looking writes nothing, and a database that is not there is not made."""
    before = db.read_bytes()
    read_overview(db, most=10)
    assert db.read_bytes() == before
    with pytest.raises(LocalError, match="cannot be opened"):
        read_overview(db.with_name("none.db"), most=10)
    assert not db.with_name("none.db").exists()


def test_document(db: Path) -> None:
    """Figures of all tasks, tables of tasks and jobs; a silent job is told with its remedy."""
    watch = ServerWatch(db, lost_after_s=7200.0)
    shown = watch.look()
    assert shown["map"]["total"] == 14 and shown["map"]["counts"]["s"] == 3
    assert shown["state"]["text"].endswith("1 job at work")
    tasks, jobs = shown["tables"]
    assert [row[2:4] for row in tasks["rows"]] == [["running", "10"], ["running", "4"]]
    assert len(jobs["rows"]) == 2
    o = read_overview(db, most=1000)
    late = watch.page.document(o.tasks, o.jobs, o.storages, o.letters,
                               now=NOW + 5000, lost_after_s=7200.0)  # fmt: skip
    assert "is silent for 1 h 23 min" in late["health"][0]["text"]
    assert "espilot status" in late["health"][0]["remedy"]
    empty = watch.page.document([], [], [], "", now=NOW, lost_after_s=1.0)
    assert empty["health"][0]["text"] == "There is no task."


@pytest.mark.skipif(find_browser() is None, reason="NO BROWSER: install Debian's chromium")
def test_in_a_browser(db: Path, tmp_path: Path) -> None:
    """Map and tables are there at both widths, hostile names are text, and ranges are described."""

    async def main() -> None:
        profile = tmp_path / "profile"
        profile.mkdir()
        async with browsing(str(find_browser()), profile) as page:
            for width in (1280, 400):
                await page.open(url, width=width)
                await page.wait("document.documentElement.dataset.ready")
                assert await page.value("document.querySelectorAll('#tables table').length") == 2
                assert EVIL in await page.value("document.getElementById('tables').innerText")
                assert await page.value("document.getElementById('lanes').checkVisibility()")
                key = await page.value("document.getElementById('lanes-key').innerText")
                assert key.startswith("Each lane is one job")
                wide = "document.documentElement.scrollWidth - window.innerWidth"
                assert await page.value(wide) <= 0
                for hidden in ("resources-section", "log-section"):
                    assert await page.value(f"document.getElementById('{hidden}').hidden")
            for _ in range(4):
                await page.press("Tab")
                if await page.value("document.activeElement.id") == "map":
                    break
            await page.wait(
                "document.getElementById('cell-text').innerText.includes('events 1 to')"
            )
            assert await page.value("window.hacked") is None
            assert page.errors == []

    with serving(ServerWatch(db, lost_after_s=7200.0)) as url:
        asyncio.run(main())


def test_command(db: Path) -> None:
    """`espilot server --page 0` serves both and tells both addresses; both end with it."""
    argv = [sys.executable, str(ROOT / "bin" / "espilot"), "server", "--db", str(db)]
    argv += ["--port", "0", "--page", "0", "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    try:
        told = json.loads(process.stdout.readline())
        shown = ask(told["page"], "/state.json")
        assert shown["facts"] == [["address", told["url"]]] and shown["map"]["total"] == 14
        process.terminate()
        assert process.wait(20) == 0, process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def ask(url: str, path: str) -> Any:
    """The object at a path."""
    connection = http.client.HTTPConnection(url[7:].rstrip("/"), timeout=30)
    connection.request("GET", path)
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found
