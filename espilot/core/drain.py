"""The plan of a drain, made backwards from the deadline.

Rules:
* Stage first, wait later: what is done goes out at once, beside the running ranges.
* Running ranges get what time is left when stop, pack, upload, report and the final update have
  theirs. Ranges that do not end by then go back.
* Without a deadline they get as long as 95 of 100 ranges took.
* The stop of the payload gets at most a fifth of the time left; when all budgets together are
  longer than that time, each is cut in the same proportion and no range is waited for.
* The plan is made again at each look with the figures of that moment, so an estimate that was wrong
  corrects itself. Estimates are taken `CAUTION` times as long as measured.
"""

from __future__ import annotations

from dataclasses import dataclass

CAUTION = 1.5
STOP_SHARE = 0.2
EXIT_S = 2.0
"""For the end of our own processes."""
PACK_S, UPLOAD_S = 0.1, 0.1
"""For one archive, whatever its size."""
UNKNOWN_RANGE_S = 60.0
"""Without a deadline, before the first range has ended."""
FINAL_UPDATE = "final update"
IDLE_S = 5.0
"""So long a payload with nothing in hand may take to end by itself."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Measured figures; durations are None until a range has ended. Rates are bytes per second."""

    range_s: float | None = None
    range_p95_s: float | None = None
    output_bytes: float = 0.0
    pack_rate: float = 100e6
    upload_rate: float = 10e6
    report_s: float = 0.5
    update_s: float = 0.5
    term_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Stock:
    """What is on the node: ranges by state, and the bytes that wait."""

    running: int = 0
    ready: int = 0
    done: int = 0
    packed: int = 0
    staged: int = 0
    done_bytes: float = 0.0
    packed_bytes: float = 0.0
    payload_alive: bool = True
    storage_ok: bool = True
    spared: bool = False
    """Whether there is a recovery directory."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: when it begins, seconds from now, and how long it may take."""

    name: str
    begin_s: float
    budget_s: float
    what: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in order, and what becomes of the ranges.

    `run_s`: so long running ranges are waited for; `stop_s`: for the payload's end; `tail_s`: from
    then to our own end, of which `exit_s` is for that end, copies to the recovery directory
    included. `left_s` is None when no deadline is known.
    `safe` will be on the storage and reported, `back` goes back to the server, `kept` is made and
    sealed but cannot be shipped in time, `lost` is made and cannot even be sealed.
    """

    left_s: float | None
    run_s: float
    stop_s: float
    tail_s: float
    exit_s: float
    steps: tuple[Step, ...]
    safe: int
    back: int
    kept: int
    lost: int

    @property
    def total_s(self) -> float:
        """From now to the end."""
        return self.run_s + self.stop_s + self.tail_s

    @property
    def final_in_s(self) -> float | None:
        """So long the final update may wait for what is not planned; None without a deadline.

        It keeps twice its budget for itself.
        """
        if self.left_s is None:
            return None
        update_s = sum(step.budget_s for step in self.steps if step.name == FINAL_UPDATE)
        return max(0.0, self.left_s - self.exit_s - 2 * update_s)


@dataclass(frozen=True, slots=True)
class _Tail:
    """Budgets after the payload's end."""

    pack_s: float
    upload_s: float
    report_s: float
    update_s: float
    exit_s: float

    @property
    def total_s(self) -> float:
        return self.pack_s + self.upload_s + self.report_s + self.update_s + self.exit_s

    def scaled(self, by: float) -> _Tail:
        parts = (self.pack_s, self.upload_s, self.report_s, self.update_s, self.exit_s)
        return _Tail(*(part * by for part in parts))


def make_plan(stock: Stock, pace: Pace, *, left_s: float | None) -> Plan:
    """The plan of a drain that begins now, with so much time to the earliest deadline."""
    if left_s is None:
        run_s = _longest_wait_s(stock, pace)
        return _describe(stock, pace, None, run_s, _stop_s(stock, pace, None), _tail(stock, pace))
    left_s = max(0.0, left_s)
    stop_s = _stop_s(stock, pace, left_s)
    tail = _tail(stock, pace)
    wanted_s = stop_s + tail.total_s
    if wanted_s > left_s:
        by = left_s / wanted_s
        return _describe(stock, pace, left_s, 0.0, stop_s * by, tail.scaled(by))
    # What is shipped while ranges still run need not be shipped afterwards.
    tail = _tail(stock, pace, shipping_s=left_s - wanted_s)
    run_s = left_s - stop_s - tail.total_s
    if not stock.running:
        run_s = min(run_s, _longest_wait_s(stock, pace))
    return _describe(stock, pace, left_s, run_s, stop_s, tail)


def lead_s(stock: Stock, pace: Pace) -> float:
    """How long before a deadline the drain begins: a range handed out later could not be saved."""
    rest_s = (pace.range_p95_s or 0.0) + _tail(stock, pace).total_s
    # The stop gets its share of the whole, so the whole is the rest and that share.
    return min(rest_s + pace.term_s, rest_s / (1.0 - STOP_SHARE)) if stock.payload_alive else rest_s


def _longest_wait_s(stock: Stock, pace: Pace) -> float:
    if not stock.payload_alive:
        return 0.0
    if not stock.running:
        return IDLE_S
    return UNKNOWN_RANGE_S if pace.range_p95_s is None else max(pace.range_p95_s, 1.0)


def _stop_s(stock: Stock, pace: Pace, left_s: float | None) -> float:
    if not stock.payload_alive:
        return 0.0
    return pace.term_s if left_s is None else min(pace.term_s, STOP_SHARE * left_s)


def _tail(stock: Stock, pace: Pace, *, shipping_s: float = 0.0) -> _Tail:
    """The budgets for what is there when the payload has ended; `shipping_s` went before."""
    shipped_bytes = shipping_s * pace.upload_rate if stock.storage_ok else 0.0
    waiting_bytes = max(0.0, stock.packed_bytes + stock.done_bytes - shipped_bytes)
    new_bytes = stock.running * pace.output_bytes
    unpacked_bytes = new_bytes + (0.0 if shipping_s else stock.done_bytes)
    made = stock.running + stock.done + stock.packed
    copy_s = (waiting_bytes + new_bytes) / pace.pack_rate if stock.spared else 0.0
    return _Tail(
        pack_s=CAUTION * (PACK_S + unpacked_bytes / pace.pack_rate) if made else 0.0,
        upload_s=CAUTION * (UPLOAD_S + (waiting_bytes + new_bytes) / pace.upload_rate)
        if made
        else 0.0,
        report_s=CAUTION * pace.report_s if made + stock.staged else 0.0,
        update_s=CAUTION * pace.update_s,
        exit_s=EXIT_S + CAUTION * copy_s,
    )


def _ending_in(run_s: float, stock: Stock, pace: Pace) -> int:
    """How many of the running ranges end within a time, when they began evenly spread."""
    if pace.range_s is None or pace.range_p95_s is None:
        return 0
    if run_s >= pace.range_p95_s:
        return stock.running
    return int(stock.running * min(1.0, run_s / max(pace.range_s, 1e-9)))


def _describe(
    stock: Stock, pace: Pace, left_s: float | None, run_s: float, stop_s: float, tail: _Tail
) -> Plan:
    ending = _ending_in(run_s, stock, pace)
    made = stock.done + stock.packed + ending
    shipped, sealed = _fitting(stock, pace, ending, run_s + stop_s, tail)
    safe = stock.staged + (shipped if stock.storage_ok else 0)
    kept = max(0, sealed - (shipped if stock.storage_ok else 0))
    lost = made - (safe - stock.staged) - kept
    back = stock.ready + stock.running - ending
    steps = _steps(stock, run_s, stop_s, tail)
    return Plan(
        left_s, run_s, stop_s, tail.total_s, tail.exit_s, steps, safe, back, kept, max(0, lost)
    )


def _fitting(
    stock: Stock, pace: Pace, ending: int, before_s: float, tail: _Tail
) -> tuple[int, int]:
    """How many of the ranges that are made get shipped, and how many get sealed, in their time."""
    made = stock.done + stock.packed + ending
    unsealed_bytes = stock.done_bytes + ending * pace.output_bytes
    all_bytes = stock.packed_bytes + unsealed_bytes
    shipped = _share(made, all_bytes, (before_s + tail.upload_s) * pace.upload_rate)
    sealed = _share(stock.done + ending, unsealed_bytes, (before_s + tail.pack_s) * pace.pack_rate)
    return shipped, max(shipped, sealed + stock.packed)


def _share(ranges: int, size_bytes: float, room_bytes: float) -> int:
    return ranges if size_bytes <= room_bytes else int(ranges * room_bytes / size_bytes)


def _steps(stock: Stock, run_s: float, stop_s: float, tail: _Tail) -> tuple[Step, ...]:
    """The steps one after the other; what is done goes out beside the first ones."""
    going_out = stock.done + stock.packed
    rows = [
        ("last hand-out", 0.0, f"no range is handed out; {stock.ready} were not yet"),
        ("run", run_s, f"{stock.running} ranges may end, {going_out} done ones go out at once"),
        ("stop payload", stop_s, "TERM, then KILL"),
        ("pack", tail.pack_s, "the last outputs into archives"),
        ("upload", tail.upload_s, "to the storage" if stock.storage_ok else "the storage is sick"),
        ("report", tail.report_s, "what is safe"),
        ("give back", 0.0, "what did not end is the server's again with the final update"),
        (FINAL_UPDATE, tail.update_s, "the job ends"),
        ("exit", tail.exit_s, "archives left over are spared" if stock.spared else "all ends"),
    ]
    steps, begin_s = [], 0.0
    for name, budget_s, what in rows:
        steps.append(Step(name, begin_s, budget_s, what))
        begin_s += budget_s
    return tuple(steps)
