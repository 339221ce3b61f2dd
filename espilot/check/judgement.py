"""The account of a case: what its silence, its end and what it leaves behind say."""

from __future__ import annotations

from espilot.check.ledger import Ledger
from espilot.check.places import describe_change, last_words, log_bytes, stray_bytes
from espilot.check.wishes import Result, Wishes
from espilot.supervisor.payload import PayloadProcess

PING_SEQ = 20_001
_BLAMED_ALREADY = frozenset({"hang", "no-request", "stops-asking", "lives-on"})
"""With these the payload was ended by us, so its end says nothing."""


def judge_silence(result: Result, wishes: Wishes, ledger: Ledger, payload: PayloadProcess) -> None:
    """It was silent, and idle, for too long."""
    found, words = result.findings, f"nothing for {wishes.timeout_s:g} s"
    if not ledger.requests:
        said = "its hello was heard, no request" if ledger.messages else "no message came"
        found.add("no-request", f"{words}: {said}{_last_words(payload)}")
    elif ledger.holders:
        held = ", ".join(sorted(ledger.holders)[:3])
        found.add("hang", f"{words}, range in hand: {held}{_last_words(payload)}")
    elif ledger.refused:
        found.add("lives-on", f"{words} after the last range was reported")
    else:
        found.add("stops-asking", f"{words}, no range in hand and no open request")


def judge_exit(
    result: Result,
    wishes: Wishes,
    ledger: Ledger,
    payload: PayloadProcess,
    end: tuple[int, float | None],
) -> None:
    """How it ended: `end` is the launcher's exit code and, after our SIGTERM, how long it took."""
    launcher_code, took_s = end
    told = payload.result()
    left = told.get("leftovers_killed")
    if isinstance(left, int) and left:
        result.findings.add("processes-left", f"{left} processes had to be ended")
    if took_s is None:
        _judge_own_end(
            result, ledger, told, payload.describe_end(launcher_code) + _last_words(payload)
        )
    elif took_s >= wishes.timeout_s and not result.findings.codes() & _BLAMED_ALREADY:
        result.findings.add("ignores-term", f"it took {took_s:.1f} s and a SIGKILL")


def _judge_own_end(result: Result, ledger: Ledger, told: dict[str, object], how: str) -> None:
    """It ended by itself, as the launcher has told."""
    found = result.findings
    code = told.get("exit_code")
    if told.get("error"):
        found.add("cannot-start", how)
        return
    if not isinstance(code, int) or code >= 128:
        found.add("crash", how)
    elif code:
        found.add("exit-code", how)
    elif not ledger.refused:
        found.add("exit-early", f"exit code 0 after {ledger.outcomes} ranges")
    if not ledger.requests:
        found.add("no-request", "it ended without having asked")


def judge_outputs(result: Result, ledger: Ledger) -> None:
    """Whether the outputs still are what they were when they were reported."""
    for output in ledger.outputs.values():
        change = describe_change(output)
        if change:
            result.findings.add("change-after-report", change)


def judge_resources(
    result: Result, wishes: Wishes, ledger: Ledger, payload: PayloadProcess, growth_bytes: int
) -> None:
    """What it has taken of logs, memory and disk."""
    found, logged = result.findings, log_bytes(payload.logs())
    if logged >= wishes.log_limit_bytes:
        found.add("log-flood", f"{logged} bytes in this case")
    if growth_bytes >= wishes.memory_growth_bytes:
        found.add("memory-growth", f"a process grew by {growth_bytes / 1e6:.0f} MB")
    stray, largest = stray_bytes(payload.directory, set(ledger.outputs))
    if stray >= wishes.stray_limit_bytes:
        found.add("stray-files", f"{stray} bytes, the largest in {largest}")


def judge_dialect(result: Result, wishes: Wishes, ledger: Ledger, *, pinged: bool) -> None:
    """Whether it speaks as wished, and has answered our ping."""
    result.dialects = ledger.dialects
    other = ledger.dialects - {wishes.dialect}
    if wishes.dialect != "auto" and other:
        result.findings.add("wrong-dialect", f"a client speaks the {other.pop()} dialect")
    if pinged and not any(PING_SEQ in peer.pongs for peer in ledger.everyone):
        result.findings.add("no-pong", f"no pong for ping {PING_SEQ}")


def _last_words(payload: PayloadProcess) -> str:
    words = last_words(payload.logs()[1])
    return f"; last line of stderr: {words}" if words else ""
