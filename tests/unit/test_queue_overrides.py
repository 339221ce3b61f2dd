"""Queue data among the parameters of a job."""

from __future__ import annotations

from typing import Any

import pytest

from espilot.wire.queue_overrides import direct_access, split_overrides


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--overwriteQueueData={'maxwdir': 10}", {"maxwdir": 10}),
        ('--overwriteQueueData={"catchall":"a,b"}', {"catchall": "a,b"}),
        ("--overwriteQueueData={maxwdir: 10, timefloor:0}", {"maxwdir": 10, "timefloor": 0}),
        ("--overwriteQueuedata '{\"direct_access_lan\": false}'", {"direct_access_lan": False}),
        ("--overwriteQueueData={}", {}),
        ("--overwriteQueueData={__import__('os').system('x')}", {}),
        ("--overwriteQueueData={(((", None),
    ],
)
def test_option_is_taken_out_and_read(option: str, wanted: dict[str, Any] | None) -> None:
    """Whoever wrote it: JSON, Python, or without quotes; what cannot be read says nothing."""
    rest, overrides = split_overrides(f"--in=a {option} --out=b")
    if wanted is None:
        assert (rest, overrides) == (f"--in=a {option} --out=b", {})
    else:
        assert (rest, overrides) == ("--in=a --out=b", wanted)


def test_parameters_without_it_stay_as_they_are() -> None:
    """Also when a value only looks like it."""
    for text in ("--a={'b': 1}  --c", "x--overwriteQueueData={}", ""):
        assert split_overrides(text) == (text, {})


def test_direct_access() -> None:
    """The job's own word goes before the queue's; without one there is none."""
    assert direct_access({}) is None
    assert direct_access({"direct_access_lan": "False"}) is False
    assert direct_access({"direct_access_lan": True}) is True
    assert direct_access({"catchall": "x,allow_remote_inputs"}) is True
