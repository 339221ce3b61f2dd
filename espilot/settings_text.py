"""The settings as a commented TOML file, made from the dataclasses in `config.py`.

`python -m espilot.settings_text > etc/espilot.toml`; a test compares the two.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields, is_dataclass
from typing import Any

from espilot.config import Settings

HEAD = """\
# Every setting of espilot with its default. A job file uses the same sections and names;
# leave out what you do not want to change.
"""


def render_settings() -> str:
    """The whole file."""
    settings = Settings()
    lines = [HEAD]
    sections = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            sections.append((field.name, value, ""))
        elif "kind" in field.metadata:
            # As comments, since nobody has such a section unless he names it.
            sections.append((f"{field.name}.NAME", field.metadata["kind"](), "# "))
        else:
            lines += [f"# {field.metadata['doc']}", f"{field.name} = {toml_value(value)}", ""]
    for name, section, mark in sections:
        lines.append(f"{mark}[{name}]")
        for field in fields(section):
            value = toml_value(getattr(section, field.name))
            lines += [f"# {field.metadata['doc']}", f"{mark}{field.name} = {value}"]
        lines.append("")
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


if __name__ == "__main__":
    sys.stdout.write(render_settings())
