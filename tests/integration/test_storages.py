"""The storage elements of a run, from its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from espilot.adapters.storage.s3 import S3Storage
from espilot.config import read_settings
from espilot.errors import ConfigError
from espilot.workers.storages import location_of, open_storages

FIRST = {"url": "s3://first/x", "id": 1, "activities": ["es_events"]}
SECOND = {"url": "/second", "id": 2, "activities": ["es_failover"]}


def order(endpoints: dict[str, Any], url: str = "") -> list[tuple[str, str, int]]:
    """Name, location and id of the storages in the order of their use."""
    settings = read_settings({"endpoints": endpoints}, "x")
    opened = open_storages(settings, url, Path("/jobs"))
    return [(name, location_of(each), each.storage_id) for name, each in opened.items()]


def test_a_directory() -> None:
    """Without endpoints the URL is all there is."""
    assert order({}, "/out") == [("storage", "/out", 1)]


def test_by_activity() -> None:
    """Without a URL the activities tell, and what is for something else is not used."""
    endpoints = {"b": SECOND, "a": FIRST, "logs": {"url": "/logs", "activities": ["pl"]}}
    assert order(endpoints) == [("a", "s3://first/x", 1), ("b", "/second", 2)]


def test_url_of_an_endpoint() -> None:
    """A URL that an endpoint has means this endpoint: its id is reported, its keys are used."""
    endpoints = {"a": FIRST, "b": SECOND}
    assert order(endpoints, "s3://first/x")[0] == ("a", "s3://first/x", 1)


def test_url_with_settings() -> None:
    """The endpoint named storage tells what belongs to the URL; the fail-over stays."""
    endpoints = {"a": FIRST, "b": SECOND, "storage": {"id": 9}}
    assert order(endpoints, "s3://third") == [("storage", "s3://third", 9), ("b", "/second", 2)]


def test_files_count_from_the_job_file(tmp_path: Path) -> None:
    """A relative file of credentials lies beside the job file."""
    settings = read_settings({"endpoints": {"a": {**FIRST, "credentials": "keys"}}}, "x")
    storage = open_storages(settings, "", tmp_path)["a"]
    assert isinstance(storage, S3Storage)
    assert storage._endpoint.credentials == str(tmp_path / "keys")


@pytest.mark.parametrize(
    ("endpoints", "named"),
    [
        ({"a": {"url": "nonsense://x", "activities": ["pl"]}}, "endpoints.a: .*unknown kind"),
        ({"a": {}}, "endpoints.a: .*no usable directory"),
        ({"a": {**FIRST, "endpoint_url": "ftp://x"}}, "endpoint_url: write http"),
        ({"a": {**FIRST, "credentials": "env:ONE"}}, "env:ACCESS,SECRET"),
    ],
)
def test_refused_before_the_start(endpoints: dict[str, Any], named: str) -> None:
    """Settings that can never work are refused with the endpoint's name, used or not."""
    with pytest.raises(ConfigError, match=named):
        order(endpoints)
