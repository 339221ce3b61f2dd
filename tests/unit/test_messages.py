"""What the pilot warns of is explained to operators."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("supervisor", "workers", "executors")
"""Where warnings of a pilot are logged."""


def warnings_of(path: Path) -> Iterator[str]:
    """The constant messages of warnings and errors: `log.warning(action, message, ...)`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in ("warning", "error") or len(node.args) != 2:
            continue
        message = node.args[1]
        if isinstance(message, ast.Constant) and isinstance(message.value, str):
            yield message.value


def test_each_warning_is_explained() -> None:
    """docs/operations.md says of every warning and error what it means, and what to do."""
    page = (ROOT / "docs" / "operations.md").read_text()
    found = {
        message: path.name
        for folder in FOLDERS
        for path in (ROOT / "espilot" / folder).rglob("*.py")
        for message in warnings_of(path)
    }
    assert len(found) > 40
    missing = {message: name for message, name in found.items() if f"`{message}" not in page}
    assert missing == {}, "explain it in docs/operations.md, section What messages mean"
