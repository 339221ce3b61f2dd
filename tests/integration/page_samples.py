"""A pilot in the middle of its work, as large as wanted, to be looked at."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from espilot.model import AtRisk
from espilot.view.chronicle import Chronicle
from espilot.view.page import frozen_rows, policy, render, rows
from espilot.view.page_document import changes, document
from espilot.view.snapshot import (
    NO_COUNTS,
    DeadlineView,
    JobView,
    Places,
    Resource,
    Snapshot,
    StageoutView,
    StorageHealthView,
)

BEGIN = 1_795_320_000.0
EVIL = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'


def play(n: int, *, clients: int = 8, seed: int = 1) -> Chronicle:
    """Ranges in all states: the first nine in ten of n are over, some failed, some done again."""
    random_, chronicle = random.Random(seed), Chronicle()
    base = {"role": "r", "pid": 1}
    chronicle.take([{**base, "t": BEGIN, "what": "payload-started", "ranges": [], "epoch": 1}])
    free = [BEGIN + 1.0] * clients
    handed = n * 95 // 100
    for first in range(0, handed, 100):
        members = range(first, min(handed, first + 100))
        ids = {at: f"1-1795320398-7-{at + 1}-3" for at in members}
        each = {"events": [[at * 10 + 1, at * 10 + 10] for at in members],
                "lfn": [f"EVNT.{at // 5000:02d}.root" for at in members]}  # fmt: skip
        lines: list[dict[str, Any]] = [
            {**base, "t": min(free), "what": "fetched", "ranges": list(ids.values()), "each": each}
        ]
        good = []
        for at in members:
            lines += one(base, ids[at], at, n, free, random_)
            if lines[-1]["what"] == "done" and at < n * 9 // 10:
                good.append(ids[at])
        t, archive = max(free), f"premerge-{first:06d}.tar"
        facts = {"archive": archive, "size": 400_000 * len(good), "storage": "CERN_ES"}
        for late, what in enumerate(("packed", "staged", "reported")):
            if first < n * (9.0 - late / 30) / 10:
                lines.append({**base, "t": t + 1 + late, "what": what, "ranges": good,
                              "status": "finished", **facts})  # fmt: skip
        chronicle.take(lines)
    return chronicle


def one(
    base: dict[str, Any], range_id: str, at: int, n: int, free: list[float], random_: random.Random
) -> list[dict[str, Any]]:
    """A range on its way; those behind the nine tenths are still in work or wait."""
    if at >= n * 93 // 100:
        return [{**base, "t": free[0], "what": "undecided", "ranges": []}]
    client = min(range(len(free)), key=free.__getitem__)
    lines = [{**base, "t": free[client], "what": "sent", "ranges": [range_id],
              "each": {"client": [41_000 + client]}}]  # fmt: skip
    if at >= n * 92 // 100 and at % 3:
        return lines
    free[client] += random_.uniform(0.5, 4.0)
    if at % 97 == 5:
        diag = EVIL if at == 5 else "no magnetic field map"
        lines.append({**base, "t": free[client], "what": "failed", "ranges": [range_id],
                      "code": 1305, "diag": diag})  # fmt: skip
        return lines
    if at % 61 == 7:
        lines.append({**base, "t": free[client], "what": "returned", "ranges": [range_id]})
        lines.append({**base, "t": free[client] + 0.1, "what": "sent", "ranges": [range_id],
                      "each": {"client": [41_000 + client]}})  # fmt: skip
        free[client] += 2.0
    return [*lines, {**base, "t": free[client], "what": "done", "ranges": [range_id]}]


def stand(n: int, chronicle: Chronicle, **changed: Any) -> Snapshot:
    """How that pilot stands."""
    counts = replace(NO_COUNTS, ready=n // 50, sent=8, done=n // 100, packed=n // 100,
                     finished=n * 88 // 100, failed_total=n // 100, events=n * 9,
                     archives=n // 100, bytes=n * 400_000, moves=n)  # fmt: skip
    usual = Snapshot(
        taken_at=chronicle.last_t + 2.0, running=True, pid=4711, run_state="running",
        task="ttbar.simul", total=n,
        places=Places("/scratch/espilot-work", "/scratch/espilot-work/state", "s3://es/bucket",
                      "/scratch/espilot-work/logs/pilot.log"),
        counts=counts, at_risk=AtRisk(n // 50 + 8, n * 1.5, 14.0),
        job=JobView(1795320398, 1, "running", "running", 1, 1),
        stageout=StageoutView(14.0, 3, 120_000_000), storage=StorageHealthView("ok"),
        deadline=DeadlineView(20.0, "batch system limit"),
        rates={"ranges_per_s": n * 0.07 / 20.0, "window_s": 120.0},
        resources=(Resource("peak PSS", 14.1e9, 16e9, "bytes"),
                   Resource("peak work dir", 3.2e9, 17e9, "bytes"),
                   Resource("CPU time", 30_000, None, "s"), Resource("wall time", 4000, 7200, "s")),
        verdicts=({"t": BEGIN + 60, "rule": "memory", "action": "note",
                   "text": "memory grows by 20 MB a minute"},),
        pids={"event-server": 4713, "dispatcher": 4714, "stageout": 4715},
        roles={"event-server": {"last_success_at": chronicle.last_t - 3.0},
               "stageout": {"pack_rate": 210e6, "upload_rate": 38e6}},
    )  # fmt: skip
    return replace(usual, **changed)


class Played:
    """Serves such a pilot; `chronicle` may be taken further by the test."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.chronicle = play(n)
        self.lock = threading.Lock()
        self.changed: dict[str, Any] = {}

    def look(self) -> Mapping[str, Any]:
        with self.lock:
            return document(stand(self.n, self.chronicle, **self.changed), self.chronicle)

    def changes(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
        return changes(old, new)

    def rows(self, query: Mapping[str, str]) -> list[Any]:
        with self.lock:
            most = int(query.get("most", "50"))
            return rows(self.chronicle.cells, int(query["from"]), query.get("state", ""), most)

    def html(self) -> str:
        return render()

    def policy(self) -> str:
        return policy()

    def report(self) -> str:
        """The same, frozen."""
        return render({"document": self.look(), "rows": frozen_rows(self.chronicle.cells)})
