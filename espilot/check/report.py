"""The verdict in words, as JSON (`espilot.check/1`) and as JUnit XML."""

from __future__ import annotations

import shlex
import textwrap
from typing import Any
from xml.etree import ElementTree

from espilot.check.campaign import Verdict
from espilot.check.findings import Finding
from espilot.check.wishes import Result

SCHEMA = "espilot.check/1"
_WIDTH = 96


def state_of(result: Result) -> str:
    """One word for a case."""
    if result.skipped:
        return "skipped"
    return "findings" if result.findings.all() else "sound"


def line_of(result: Result) -> str:
    """One case in one line, and its findings below."""
    marks = {"sound": "ok  ", "findings": "FAIL", "skipped": "skip"}
    head = f"{marks[state_of(result)]} {result.case.name:15} {result.case.about}"
    if result.skipped:
        return f"{head} - not run: {result.skipped}"
    lines = [f"{head} ({result.ranges} ranges, {result.wall_s:.1f} s)"]
    for each in result.findings.all():
        times = f" ({each.count} times)" if each.count > 1 else ""
        lines.append(f"       {each.code}: {each.text}{times}")
    lines += [f"       note: {note}" for note in result.findings.notes]
    return "\n".join(lines)


def describe(verdict: Verdict) -> str:
    """What was found, each kind once with its explanation, and the verdict."""
    lines: list[str] = []
    explained: set[str] = set()
    for each in _all(verdict):
        if each.code not in explained:
            explained.add(each.code)
            lines.append(f"\n{each.code}: the payload {each.kind.title}")
            lines += textwrap.wrap(
                each.kind.why, _WIDTH, initial_indent="  ", subsequent_indent="  "
            )
            lines.append(f"  see {each.kind.reference}")
    spoken = " and ".join(verdict.dialects) or "no"
    summary = "sound" if verdict.sound else f"{len(explained)} kinds of findings"
    lines.append(f"\n{summary}: {spoken} dialect, {verdict.wall_s:.1f} s")
    return "\n".join(lines) + "\n"


def document(verdict: Verdict) -> dict[str, Any]:
    """The verdict as one object."""
    return {
        "schema": SCHEMA,
        "sound": verdict.sound,
        "command": list(verdict.wishes.words),
        "dialects": verdict.dialects,
        "wall_s": round(verdict.wall_s, 3),
        "cases": [_case(result) for result in verdict.results],
    }


def _case(result: Result) -> dict[str, Any]:
    return {
        "name": result.case.name,
        "about": result.case.about,
        "state": state_of(result),
        "skipped": result.skipped,
        "wall_s": round(result.wall_s, 3),
        "ranges": result.ranges,
        "finished": result.finished,
        "failed": result.failed,
        "messages": result.messages,
        "findings": [_finding(each) for each in result.findings.all()],
        "notes": result.findings.notes,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    kind = finding.kind
    return {
        "code": finding.code,
        "title": kind.title,
        "text": finding.text,
        "count": finding.count,
        "explanation": kind.why,
        "reference": kind.reference,
    }


def junit(verdict: Verdict) -> bytes:
    """The verdict as JUnit XML: a test for each case, a failure for each finding."""
    states = [state_of(result) for result in verdict.results]
    suite = ElementTree.Element(
        "testsuite",
        name="espilot check-payload",
        tests=str(len(states)),
        failures=str(states.count("findings")),
        errors="0",
        skipped=str(states.count("skipped")),
        time=f"{verdict.wall_s:.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    command = _clean(shlex.join(verdict.wishes.words))
    ElementTree.SubElement(properties, "property", name="command", value=command)
    for result in verdict.results:
        test = ElementTree.SubElement(
            suite,
            "testcase",
            classname="check-payload",
            name=result.case.name,
            time=f"{result.wall_s:.3f}",
        )
        if result.skipped:
            ElementTree.SubElement(test, "skipped", message=result.skipped)
        for each in result.findings.all():
            message = _clean(f"{each.code}: {each.text}")
            failure = ElementTree.SubElement(test, "failure", type=each.code, message=message)
            failure.text = f"{each.kind.why}\nsee {each.kind.reference}"
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def _clean(text: str) -> str:
    """Foreign text without characters that XML cannot hold."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _all(verdict: Verdict) -> list[Finding]:
    return [each for result in verdict.results for each in result.findings.all()]
