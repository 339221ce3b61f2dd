"""The page on storage says what the program does: its examples are accepted, its errors exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from espilot.adapters.storage import Endpoint, open_endpoint
from espilot.config import ACTIVITIES, Settings, read_settings
from espilot.workers.storages import open_storages

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "storage.md").read_text()
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.M | re.S)
ERRORS = PAGE.partition("| the log says |")[2].partition("\n\n")[0]


def blanked(text: str) -> str:
    """Without what splits a sentence over lines of code."""
    return re.sub(r'"\s*\n\s*f?"', "", text)


SOURCES = "".join(
    blanked(path.read_text())
    for path in sorted((ROOT / "espilot" / "adapters" / "storage").glob("*.py"))
)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_is_accepted(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example is a valid configuration, and its storages can be opened."""
    monkeypatch.setattr("shutil.which", lambda name, *_: f"/usr/bin/{name}")
    settings = settings_of(EXAMPLES[number])
    storages = open_storages(settings, settings.storage, tmp_path)
    assert storages
    for storage in storages.values():
        storage.close()


def settings_of(text: str) -> Settings:
    return read_settings(tomllib.loads(text), "docs/storage.md")


def test_there_are_examples() -> None:
    """A test that finds no examples would prove nothing."""
    assert len(EXAMPLES) >= 3 and len(ERRORS.splitlines()) > 15


@pytest.mark.parametrize("text", re.findall(r"^\| `([^`]*)` \|", ERRORS, flags=re.M))
def test_error_exists(text: str) -> None:
    """What the page explains is what the program says."""
    assert text in SOURCES


def test_activities_are_known() -> None:
    """The table has the activities for outputs, inputs and logs; the program knows them all."""
    table = PAGE.partition("| activity | for |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `([a-z_]+)` \|", table, flags=re.M))
    assert named <= set(ACTIVITIES) and len(named) >= 6


def test_schemes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address of the first table is one that a storage is made for."""
    monkeypatch.setattr("shutil.which", lambda name, *_: f"/usr/bin/{name}")
    table = PAGE.partition("| address | what it is |")[2].partition("\n\n")[0]
    addresses = [
        text for cell in re.findall(r"^\| ([^|]*) \|", table, flags=re.M)
        for text in re.findall(r"`([^`]*)`", cell)
    ]  # fmt: skip
    assert len(addresses) >= 6
    for address in addresses:
        open_endpoint(Endpoint(address.replace("BUCKET", "bucket"))).close()
