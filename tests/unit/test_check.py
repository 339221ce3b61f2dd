"""The kit's account and its table, from messages alone."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from espilot.check import report
from espilot.check.campaign import Verdict, chosen_cases
from espilot.check.cases import (
    CASES,
    IMAGINED,
    PLAIN,
    Input,
    odd_ranges,
    plain_ranges,
    untellable,
)
from espilot.check.findings import BLOCKING, KINDS, PAGE, Findings
from espilot.check.ledger import Ledger
from espilot.check.wishes import Result, Wishes
from espilot.errors import UsageError
from espilot.model import EventRange, Output
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text

ROOT = Path(__file__).resolve().parents[2]
ME = b"\0me"


def look(path: str) -> tuple[Output | None, str, str]:
    """Every file is in order, but those that say otherwise."""
    if "missing" in path:
        return None, "missing-file", path
    return Output(path, 1, hash(path), 10, 1), "", ""


def ledger(*, tolerant: bool = False) -> Ledger:
    """An account with one range in hand of a text client."""
    made = Ledger(Findings(), look, tolerant=tolerant)
    peer, _ = made.hear(ME, text.READY, 7)
    made.give(peer, next(plain_ranges([IMAGINED])))
    return made


FIRST = "90-100-110-1-1"


@pytest.mark.parametrize(
    ("messages", "codes"),
    [
        ([text.finished(["/w/a"], FIRST, 1, 1)], set()),
        ([text.finished(["/w/a"], FIRST, 1, 1)] * 2, {"report-twice"}),
        ([text.finished(["/w/a"], "1-1-1-1-1", 1, 1)], {"report-unknown"}),
        ([text.finished(["/w/a", "/w/missing"], FIRST, 1, 1)], {"missing-file"}),
        ([text.process_error(FIRST, "broken")], {"range-failed"}),
        ([text.process_error(FIRST, "")], {"range-failed", "failure-without-reason"}),
        ([text.parse_error(b"[{}]", "?")], {"report-unknown"}),
        ([b"hello?"], {"unknown-message"}),
        ([b"\xff\xfe"], {"garbage"}),
        ([b"x" * (2**20 + 1)], {"oversize"}),
        ([text.READY] * 63, set()),
        ([text.READY] * 64, {"request-flood"}),
    ],
)
def test_account_of_a_text_client(messages: list[bytes], codes: set[str]) -> None:
    """Each message is held against the range in hand."""
    made = ledger()
    for message in messages:
        made.hear(ME, message, None)
    assert made.findings.codes() == codes


def test_tolerant_account_notes_failures() -> None:
    """A failure with a reason is a note there, one without still is a finding."""
    made = ledger(tolerant=True)
    made.hear(ME, text.process_error(FIRST, "no such event"), None)
    assert made.findings.codes() == set() and len(made.findings.notes) == 1
    made = ledger(tolerant=True)
    made.hear(ME, text.process_error(FIRST, ""), None)
    assert made.findings.codes() == {"failure-without-reason"}


def test_who_reports_does_not_matter() -> None:
    """Another client may report a range; it leaves the hand of whoever held it."""
    made = ledger()
    made.hear(b"\0you", text.finished(["/w/a"], FIRST, 1, 1), 8)
    assert (made.findings.codes(), made.finished, made.holders) == (set(), 1, {})


def test_ended_client_loses_what_it_held() -> None:
    """Its range counts as unreported, and only its own."""
    made = ledger()
    made.left(8)
    assert made.findings.codes() == set()
    made.left(7)
    assert made.findings.codes() == {"range-unreported"}
    made.close()
    assert made.findings.all()[0].count == 1


@pytest.mark.parametrize("noticed", [True, False])
def test_replaced_client_loses_what_it_held(noticed: bool) -> None:
    """A process that takes a name over does not cover what the one before had in hand."""
    made = ledger()
    made.hear(ME, text.READY, 8)
    assert made.findings.codes() == set()
    if noticed:
        made.left(7)
        assert made.findings.codes() == {"range-unreported"}
    made.close()
    assert [(each.code, each.count) for each in made.findings.all()] == [("range-unreported", 1)]


def test_replaced_client_may_be_spoken_for() -> None:
    """Its successor may report the range, as any client may."""
    made = ledger()
    made.hear(ME, text.finished(["/w/a"], FIRST, 1, 1), 8)
    made.left(7)
    made.close()
    assert (made.findings.codes(), made.finished) == (set(), 1)


def test_refusal_is_known_after_a_replacement() -> None:
    """Who heard that there are no more has heard it, whoever has its name now."""
    made = ledger()
    peer, _ = made.hear(ME, text.finished(["/w/a"], FIRST, 1, 1), None)
    made.refuse(peer)
    made.hear(ME, text.READY, 8)
    assert made.refused and made.dialects == {"text"}


def test_native_account() -> None:
    """Hello gives the slots, and a request beyond them is a flood."""
    made = Ledger(Findings(), look, tolerant=False)
    made.hear(ME, native.hello(7, 2, "", ""), 7)
    peer, _ = made.hear(ME, native.ready(2), None)
    assert made.findings.codes() == set() and peer.asked == 2
    made.hear(ME, native.ready(1), None)
    assert made.findings.codes() == {"request-flood"}


def test_requests_after_no_more() -> None:
    """Many of them are a flood while ranges are in hand, else an endless loop."""
    for outcomes, code in ((0, "request-flood"), (1, "asks-after-no-more")):
        made = ledger()
        for message in [text.finished(["/w/a"], FIRST, 1, 1)] * outcomes + [text.READY]:
            peer, _ = made.hear(ME, message, None)
        made.refuse(peer)
        for _ in range(64):
            made.hear(ME, text.READY, None)
        assert made.findings.codes() == set()
        made.hear(ME, text.READY, None)
        assert made.findings.codes() == {code}


def test_ranges_can_be_said_in_both_dialects() -> None:
    """Every range of every case can be written, read back, and has an id of its own."""
    source = [IMAGINED, Input("/data/real.root", 3)]
    made: list[EventRange] = [*islice(plain_ranges(source), 20), *odd_ranges(source)]
    for each in made:
        assert text.parse_reply(text.range_reply(each))["eventRangeID"] == each.id
        assert native.parse_pilot(native.ranges([each])).ranges == (each,)  # type: ignore[union-attr]
    odd = list(odd_ranges([IMAGINED]))
    assert len({each.id for each in odd}) == len(odd)
    case = next(case for case in CASES if case.odd)
    assert case.least == case.most == len(odd)


@pytest.mark.parametrize(
    ("path", "events", "why"),
    [
        ("/data/real file.root", 2**63 - 1, ""),
        ("/data/a,b.root", 1, "LFN"),
        ("/da{ta/a.root", 1, "PFN"),
        ("/data/a\nb.root", 1, "LFN"),
        ("/data/a.root", 2**63, "Event"),
        ("/data/a.root", 2**64, "range"),
    ],
)
def test_input_that_cannot_be_told_has_a_reason(path: str, events: int, why: str) -> None:
    """What one of the dialects could not carry is known before anything is started."""
    found = untellable(Input(path, events))
    assert why in found and bool(why) == bool(found)


def test_plain_ranges_stay_within_real_files() -> None:
    """With real files only their events are asked for, one file after the other."""
    made = list(islice(plain_ranges([Input("/d/a", 2), Input("/d/b", 1)]), 4))
    assert [(r.lfn, r.pfn, r.start_event) for r in made] == [
        ("a", "/d/a", 1), ("a", "/d/a", 2), ("b", "/d/b", 1), ("a", "/d/a", 1),
    ]  # fmt: skip


def test_every_kind_has_its_section() -> None:
    """Each finding refers to a section that is there, and blocking ones are kinds."""
    page = (ROOT / PAGE).read_text()
    missing = {kind.section for kind in KINDS.values() if f'<a id="{kind.section}">' not in page}
    assert missing == set()
    assert set(KINDS) >= BLOCKING


def test_unknown_case_names_the_known() -> None:
    """A case that is not there is refused with those that are."""
    with pytest.raises(UsageError, match="plain, fast"):
        chosen_cases(["nothing"])
    assert chosen_cases([]) == list(CASES)


def test_reports_hold_hostile_text() -> None:
    """Control characters of a payload harm neither XML nor terminal."""
    result = Result(PLAIN)
    result.findings.add("crash", "bad \x1b[31m <&> \x00 bytes")
    verdict = Verdict(Wishes(("pay\x01load",)), (result, Result(CASES[1], skipped="x")), 1.0)
    xml = report.junit(verdict).decode()
    assert "\x1b" not in xml and "\x00" not in xml and "&lt;&amp;&gt;" in xml
    assert 'skipped="1"' in xml and 'failures="1"' in xml
    assert report.document(verdict)["sound"] is False
    assert "crash: the payload crashes" in report.describe(verdict)
    assert "\x1b" not in report.line_of(result)
