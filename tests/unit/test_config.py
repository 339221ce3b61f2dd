"""Settings: each bad one is refused in one line that names the file, the key and the remedy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espilot.config import Settings, dump_settings, read_file, read_settings
from espilot.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = [
    (section.name, key.name)
    for section in dataclasses.fields(Settings)
    if dataclasses.is_dataclass(section.default_factory)
    for key in dataclasses.fields(section.default_factory)  # type: ignore[arg-type]
    if key.type in ("int", "float")
]


def refusal(table: dict[str, Any]) -> str:
    """The text of the refusal."""
    with pytest.raises(ConfigError) as caught:
        read_settings(table, "job.toml")
    text = str(caught.value)
    assert "\n" not in text and len(text) < 200
    assert text.startswith("job.toml: ")
    return text


def test_defaults() -> None:
    """An empty file is all defaults, and they keep their own bounds."""
    assert read_settings({}, "x") == Settings()


def test_values() -> None:
    """Values land in their sections; whole numbers do for seconds; lists become tuples."""
    settings = read_settings(
        {
            "task": {"events": 10, "outputs": ["a", "b"]},
            "payload": {"hang_s": 5, "command": "./x"},
            "storage": "/out",
        },
        "x",
    )
    assert (settings.task.events, settings.task.outputs) == (10, ("a", "b"))
    assert settings.payload.hang_s == 5.0
    assert isinstance(settings.payload.hang_s, float)
    assert settings.storage == "/out"


def test_round_trip_as_workers_get_it() -> None:
    """Settings survive the way to a worker, through JSON."""
    settings = read_settings({"task": {"inputs": ["a.root:5"]}, "limits": {"wall_s": 1.5}}, "x")
    assert read_settings(json.loads(json.dumps(dump_settings(settings))), "x") == settings


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"taks": {}}, "unknown setting taks, did you mean task?"),
        ({"task": {"event": 1}}, "unknown setting task.event, did you mean task.events?"),
        ({"payload": {"xyzzy": 1}}, "unknown setting payload.xyzzy"),
        ({"task": 5}, "[task] is a section"),
        ({"task": {"events": "ten"}}, "task.events must be of type int"),
        ({"task": {"events": 1.5}}, "task.events must be of type int"),
        ({"task": {"events": True}}, "task.events must be of type int"),
        ({"task": {"name": 5}}, "task.name must be of type str"),
        ({"task": {"outputs": "one"}}, "task.outputs must be a list of strings"),
        ({"task": {"outputs": [1]}}, "task.outputs must be a list of strings"),
        ({"payload": {"hang_s": "long"}}, "payload.hang_s must be of type float"),
        ({"payload": {"hang_s": 10**400}}, "payload.hang_s must be of type float"),
        ({"payload": {"cores": 0}}, "payload.cores is 0, it must be at least 1"),
        ({"limits": {"live_ranges": 2**70}}, "it must be at most"),
        ({"payload": {"hang_s": float("nan")}}, "payload.hang_s is nan, it must be at least 0"),
        ({"payload": {"hang_s": float("inf")}}, "payload.hang_s is inf, it must be at most"),
        ({"storage": 5}, "storage must be of type str"),
        ({"task": {"events": "x" * 10_000}}, "task.events must be of type int"),
    ],
)
def test_refusals(table: dict[str, Any], words: str) -> None:
    """The line says what is wrong and what would be right."""
    assert words in refusal(table)


@pytest.mark.parametrize(("section", "key"), NUMBERS)
def test_no_number_is_negative(section: str, key: str) -> None:
    """Every number has a lower bound."""
    assert f"{section}.{key} is -1" in refusal({section: {key: -1}})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"events = ", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        (b"a = " + b"1" * 5000, "is not valid TOML"),
        (b"a = " + b"[" * 20_000, "is not valid TOML"),
        (b"[task]\nevents = 1\nevents = 2", "is not valid TOML"),
        (b"[task]\nevnts = 1", "did you mean task.events?"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, words: str) -> None:
    """A file that cannot be read as settings is named."""
    path = tmp_path / "job.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_file(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    """A missing file and a directory are named with the reason."""
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot read"):
            read_file(path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "etc" / "jobs").glob("*.toml")), ids=lambda p: p.name
)
def test_jobs_that_we_ship(path: Path) -> None:
    """Every job file of ours is valid."""
    assert read_file(path).task.events > 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    section=st.sampled_from([f.name for f in dataclasses.fields(Settings)]),
    key=st.sampled_from(sorted({key for _, key in NUMBERS} | {"outputs", "inputs", "command"})),
    value=VALUES,
)
def test_any_value(section: str, key: str, value: Any) -> None:
    """Any value of any type is taken or refused, and what is taken survives a round trip."""
    table = {section: {key: value} if section != "storage" else value}
    try:
        settings = read_settings(table, "x")
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert read_settings(dump_settings(settings), "x") == settings


def test_endpoints() -> None:
    """Each endpoint is a section with a name of its author, and survives the way to a worker."""
    table = {"endpoints": {"here": {"url": "/data", "id": 7, "activities": ["es_events"]}}}
    settings = read_settings(table, "x")
    assert settings.endpoints["here"].id == 7
    assert read_settings(json.loads(json.dumps(dump_settings(settings))), "y") == settings


@pytest.mark.parametrize(
    ("endpoints", "named"),
    [
        ({"a": {"activities": ["es_evnts"]}}, "endpoints.a.activities: unknown 'es_evnts'"),
        ({"a": {"urls": ""}}, "unknown setting endpoints.a.urls, did you mean endpoints.a.url?"),
        ({"a": {"id": -1}}, "endpoints.a.id is -1"),
        ({"a": 1}, "endpoints holds sections: [endpoints.NAME]"),
        ("here", "endpoints holds sections"),
        ({"a": {"id": "7"}}, "endpoints.a.id must be of type int"),
    ],
)
def test_bad_endpoints(endpoints: Any, named: str) -> None:
    """A bad endpoint is refused by its name and key."""
    assert named in refusal({"endpoints": endpoints})
