"""The settings file that is shipped."""

from __future__ import annotations

import tomllib
from pathlib import Path

from espilot.config import Settings, read_settings
from espilot.settings_text import render_settings

SHIPPED = Path(__file__).parent.parent.parent / "etc" / "espilot.toml"


def test_shipped_file_is_the_rendered_one() -> None:
    """etc/espilot.toml names every setting, its default and its sentence, as the code has them."""
    assert SHIPPED.read_text() == render_settings()


def test_shipped_file_changes_nothing() -> None:
    """Read back, the shipped file gives exactly the defaults."""
    assert read_settings(tomllib.loads(SHIPPED.read_text()), "etc") == Settings()
