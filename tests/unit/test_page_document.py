"""The page's object: forecast, health, changes; and nothing from outside becomes markup."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from espilot.model import AtRisk
from espilot.view.chronicle import Chronicle
from espilot.view.forecast import forecast
from espilot.view.health import examine
from espilot.view.page import MOST_ROWS, embed, frozen_rows, policy, render, rows
from espilot.view.page_document import changes, document
from espilot.view.snapshot import (
    NO_COUNTS,
    DeadlineView,
    Places,
    Resource,
    Snapshot,
    StageoutView,
    StorageHealthView,
)

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\u2028\x1b[31m"


def snapshot(**changed: Any) -> Snapshot:
    """A pilot at work, with what is said otherwise."""
    usual = Snapshot(
        taken_at=1000.0, running=True, pid=7, run_state="running", task="t", total=1000,
        places=Places("/w", "/w/state", "/s", "/w/logs/pilot.log"),
        counts=replace(NO_COUNTS, sent=4, done=2, finished=500, moves=1),
        at_risk=AtRisk(6, 120.0, 3.0), rates={"ranges_per_s": 1.0, "window_s": 60.0},
    )  # fmt: skip
    return replace(usual, **changed)


def told(*lines: Mapping[str, Any]) -> Chronicle:
    """A chronicle of these lines."""
    chronicle = Chronicle()
    chronicle.take(lines)
    return chronicle


def many(n: int, failed: tuple[int, ...] = ()) -> Chronicle:
    """A chronicle of n ranges, all reported but some failed."""
    chronicle = Chronicle()
    ids = [f"r{at}" for at in range(n)]
    each = {"events": [[at, at] for at in range(n)], "lfn": ["f"] * n}
    base = {"role": "r", "pid": 1}
    chronicle.take(
        [
            {**base, "t": 1, "what": "fetched", "ranges": ids, "each": each},
            {**base, "t": 2, "what": "reported", "ranges": ids, "status": "finished"},
        ]
    )
    for at in failed:
        chronicle.take([{**base, "t": 3, "what": "failed", "ranges": [f"r{at}"], "diag": "d"}])
    return chronicle


@pytest.mark.parametrize(
    ("finished", "rate", "deadline", "said", "good"),
    [
        (500, 1.0, 317.0, "Will finish 812 of 1,000 before the deadline", False),
        (500, 1.0, 3600.0, "Will finish 1,000 of 1,000 before the deadline", True),
        (500, 2.0, None, "Will finish 1,000 of 1,000 in about 4 min 10 s", True),
        (500, 0.0, 60.0, "no pace is known yet", None),
        (1000, 5.0, 60.0, "All of 1,000 ranges have ended", True),
        (500, 1.0, -5.0, "Will finish 500 of 1,000", False),
        (500, 1e-300, None, "Will finish 1,000", True),
    ],
)
def test_forecast(
    finished: int, rate: float, deadline: float | None, said: str, good: bool | None
) -> None:
    """How far the run comes by its pace, before the deadline where there is one."""
    f = forecast(total=1000, finished=finished, lost=0, rate=rate, now=1e9, deadline_in_s=deadline)
    assert said in f.text and f.good is good


HEALTH = [
    ({}, "Nothing is wrong.", "ok", ""),
    ({"running": False, "next_step": "espilot recover /w"}, "No pilot runs", "bad",
     "espilot recover /w"),
    ({"note": "the pilot does not answer", "next_step": "espilot dump /w"}, "Not all is known",
     "warn", "espilot dump"),
    ({"storage": StorageHealthView("trouble", "quota")}, "does not take outputs: quota", "warn",
     "credentials"),
    ({"storage": StorageHealthView("given-up", "quota")}, "does not take", "bad", "kept"),
    ({"stageout": StageoutView(400.0, 1, 1)}, "waits for the storage since 6 min", "warn",
     "parallel"),
    ({"resources": (Resource("peak PSS", 90.0, 100.0, "bytes"),)}, "Peak PSS is at 90%", "warn",
     "[limits]"),
    ({"resources": (Resource("peak PSS", 101.0, 100.0, "bytes"),)}, "101% of its limit", "bad",
     "[limits]"),
    ({"roles": {"event-server": {"last_success_at": -3000.0}}}, "has not answered for 1 h", "bad",
     "address"),
    ({"deadline": DeadlineView(9.0, "drain", "a signal", "ship")}, "The pilot drains (a signal",
     "note", "recover"),
    ({"verdicts": ({"t": 1, "rule": "memory", "text": "9 of 8 GB", "action": "end-payload"},)},
     "rule memory: 9 of 8 GB", "warn", "started again"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "said", "level", "remedy"), HEALTH)
def test_health(changed: dict[str, Any], said: str, level: str, remedy: str) -> None:
    """Each trouble is a sentence with its remedy, the worst first."""
    found = examine(snapshot(**changed), Chronicle())
    match = [each for each in found if said in each.text]
    assert match and match[0].level == level and remedy in match[0].remedy, found
    order = [("bad", "warn", "note", "ok").index(each.level) for each in found]
    assert order == sorted(order)


def test_health_from_the_story() -> None:
    """Failures are told with reason and example, restarts, and a payload that is silent."""
    base = {"role": "r", "pid": 1}
    chronicle = told(
        {**base, "t": 1.0, "what": "fetched", "ranges": ["r1", "r2"], "each": {}},
        {**base, "t": 1.0, "what": "payload-started", "ranges": [], "epoch": 1},
        {**base, "t": 2.0, "what": "payload-ended", "ranges": [], "epoch": 1, "how": "signal 11"},
        {**base, "t": 3.0, "what": "payload-started", "ranges": [], "epoch": 2},
        {**base, "t": 4.0, "what": "sent", "ranges": ["r1", "r2"], "each": {"client": [5, 5]}},
        {**base, "t": 6.0, "what": "failed", "ranges": ["r1"], "code": 1305, "diag": "boom"},
        {**base, "t": 7.0, "what": "done", "ranges": ["r2"]},
    )
    text = "\n".join(f"{each.text} {each.remedy}" for each in examine(snapshot(), chronicle))
    assert "1 range failed: boom (code 1305)" in text and "espilot explain r1 /w/state" in text
    assert "started 2 times" in text and "signal 11" in text
    assert "No outcome from the payload for 16 min" in text and "espilot dump" in text


def test_document_is_json_and_bounded() -> None:
    """Everything is JSON; of 100,000 ranges a picture has a letter for each, and little else."""
    shown = document(snapshot(total=100_000), many(100_000))
    text = json.dumps(shown)
    assert len(text) < 130_000 and shown["map"]["counts"]["f"] == 100_000
    assert shown["state"]["text"] == "running, process 7"


def test_changes_are_small_and_complete() -> None:
    """Whoever has the old document and takes the changes has the new one."""
    random_ = random.Random(1)
    chronicle = many(5000)
    old = document(snapshot(), chronicle)
    for at in range(30):
        base = {"t": 10.0 + at, "role": "r", "pid": 1, "code": 1, "diag": "d"}
        chosen = [f"r{random_.randrange(5000)}" for _ in range(3)]
        chronicle.take([{**base, "what": "failed", "ranges": chosen}])
        new = document(snapshot(taken_at=1000.0 + at), chronicle)
        news = json.loads(json.dumps(changes(old, new)))
        merged = json.loads(json.dumps(old)) | {k: v for k, v in news.items() if k != "patch"}
        for start, piece in news.get("patch", []):
            cells = merged["cells"]
            merged["cells"] = cells[:start] + piece + cells[start + len(piece) :]
        assert merged == json.loads(json.dumps(new))
        assert len(json.dumps(news.get("patch", []))) < 1000
        old = new
    assert changes(old, dict(old)) == {}


def test_growing_map_is_patched() -> None:
    """New cells come as pieces too."""
    news = changes({"cells": "f" * 1234}, {"cells": "f" * 1300})
    cells = "f" * 1234
    for start, piece in news["patch"]:
        cells = cells[:start] + piece + cells[start + len(piece) :]
    assert cells == "f" * 1300


def test_nothing_from_outside_is_markup() -> None:
    """Hostile ids, file names, diagnoses and log lines stay within the JSON of the report."""
    base = {"role": "r", "pid": 1}
    chronicle = told(
        {**base, "t": 1, "what": "fetched", "ranges": [EVIL], "each": {"lfn": [EVIL],
         "events": [[1, 2]]}},
        {**base, "t": 2, "what": "failed", "ranges": [EVIL], "diag": EVIL, "code": EVIL},
        {**base, "t": 3, "what": "verdict", "ranges": [], "rule": EVIL, "text": EVIL},
    )  # fmt: skip
    shown = document(snapshot(task=EVIL, note=EVIL), chronicle, log=[EVIL])
    page = render({"document": shown, "rows": frozen_rows(chronicle.cells)})
    plain = render()
    assert page.count("<script") == plain.count("<script") == 2
    assert "<img" not in page and "\x1b" not in page
    data = re.search(r'<script type="application/json" id="frozen">(.*?)</script>', page, re.S)
    assert data and json.loads(data[1])["rows"][0]["id"] == EVIL
    assert "<" not in embed({EVIL: EVIL})


def test_page_asks_nobody() -> None:
    """One file below 100 kB; no address of anybody else; the policy allows its own parts only."""
    page = render()
    assert len(page) < 100_000
    assert not re.search(r"(https?:)?//[a-z]", page.replace("</", ""))
    assert "default-src 'none'" in policy() and policy() in page
    assert "unsafe" not in policy() and "style=" not in page


def test_rows_of_the_map() -> None:
    """Rows from a number on, of one state; a report has the doubtful ones of a large map."""
    cells = many(20_000, failed=(3, 19_000)).cells
    assert [row["n"] for row in rows(cells, 19_998)] == [19_998, 19_999]
    assert [row["n"] for row in rows(cells, 0, "x")] == [3, 19_000]
    frozen = [row["n"] for row in frozen_rows(cells)]
    assert len(frozen) == MOST_ROWS and 19_000 in frozen and frozen == sorted(frozen)
    assert len(frozen_rows(many(100).cells)) == 100


def test_failed_tries_are_no_failed_ranges() -> None:
    """A range that failed twice and worked at last is not failed; its tries are told beside."""
    chronicle = many(10, failed=(3,))
    counts = replace(NO_COUNTS, finished=9, failed_total=3, moves=1)
    shown = document(snapshot(total=10, counts=counts), chronicle)
    failed = next(each for each in shown["tiles"] if each["label"] == "Failed")
    assert failed["value"] == "1" and failed["note"].startswith(
        "2 more failed and were tried again"
    )
    assert shown["forecast"]["text"] == "All of 10 ranges have ended."
    assert shown["forecast"]["rate"] == 1.0


def test_what_is_in_work_has_its_time() -> None:
    """The number on the map and since when, beside the median of the latest ranges."""
    chronicle = many(3)
    base = {"role": "r", "pid": 1, "each": {"client": [7]}}
    chronicle.take([{**base, "t": 10.0, "what": "sent", "ranges": ["r0"]}])
    chronicle.take([{**base, "t": 14.0, "what": "done", "ranges": ["r0"]}])
    chronicle.take([{**base, "t": 15.0, "what": "sent", "ranges": ["r1"]}])
    assert document(snapshot(), chronicle)["work"] == {"median_s": 4.0, "cells": [[1, 15.0]]}
    assert document(snapshot(running=False), chronicle)["work"]["cells"] == []
