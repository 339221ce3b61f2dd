"""The output report of a job that says it is finished."""

from __future__ import annotations

import json
from typing import Any

import pytest

from espilot.server.output_report import fault_of

NORMAL = {"inFiles": "in.1", "outFiles": "out.1,log.tgz", "logFile": "log.tgz"}
EVENT = {**NORMAL, "eventService": "True"}
MERGE = {**NORMAL, "eventServiceMerge": "True"}
WHOLE = {"guid": "G", "fsize": 5, "adler32": "00000001"}
BOTH = {"out.1": WHOLE, "log.tgz": WHOLE}


@pytest.mark.parametrize(
    ("definition", "report", "fault"),
    [
        (NORMAL, BOTH, ""),
        (NORMAL, {**BOTH, "in.1": {}}, ""),
        (NORMAL, {"log.tgz": WHOLE}, "lacks out.1"),
        (NORMAL, {"out.1": WHOLE}, "lacks log.tgz"),
        ({**NORMAL, "allowNoOutput": ["out.1"]}, {"log.tgz": WHOLE}, ""),
        (NORMAL, {**BOTH, "a.tar": WHOLE}, "unknown file: 'a.tar'"),
        (NORMAL, {**BOTH, "out.1": {**WHOLE, "guid": ""}}, "of out.1"),
        (NORMAL, {**BOTH, "out.1": {**WHOLE, "fsize": "5"}}, "of out.1"),
        (NORMAL, {**BOTH, "out.1": {"guid": "G", "fsize": 5, "md5sum": "0" * 32}}, ""),
        (NORMAL, {**BOTH, "out.1": {"guid": "G", "fsize": 5, "md5sum": "0" * 31}}, "of out.1"),
        (NORMAL, {**BOTH, "out.1": None}, "of out.1"),
        (EVENT, {}, ""),
        (EVENT, {"log.tgz": WHOLE}, ""),
        (EVENT, {"log.tgz": {"guid": "G"}}, "of log.tgz"),
        (EVENT, {"EventService_premerge.tar": WHOLE}, "unknown file"),
        (MERGE, {"out.1": {"guid": "G"}, "log.tgz": {"guid": "G"}}, ""),
        (MERGE, {"out.1": {"guid": "G"}}, "lacks log.tgz"),
        (NORMAL, [], "no object"),
    ],
)
def test_rules(definition: dict[str, Any], report: Any, fault: str) -> None:
    """What real servers take, and what makes them fail the job."""
    found = fault_of(json.dumps(report), definition)
    assert fault in found and bool(found) == bool(fault)


@pytest.mark.parametrize("text", ["", None, "x", "[" * 100_000])
def test_no_report(text: str | None) -> None:
    """A text that is no JSON is no report, not even an empty one."""
    assert "no JSON" in fault_of(text, EVENT)
