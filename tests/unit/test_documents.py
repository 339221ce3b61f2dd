"""The documents fit to the program: generated pages, links, names of commands."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from espilot.cli.command_tree import commands_of
from espilot.cli.main import make_parser
from espilot.view.colour import painted, wants_colour

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("documents", ROOT / "tools" / "documents.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["configuration.md", "man/espilot.1", "man/espilot.toml.5", "man/espilot-payload.7"]
)
def test_generated_document(name: str) -> None:
    """It is as the program's tables say; `python tools/documents.py` makes it anew."""
    assert (ROOT / "docs" / name).read_text() == load().documents()[name]


def test_every_setting_and_option_is_in_the_manual() -> None:
    """No command, option or setting is missing in what is generated."""
    texts = load().documents()
    for command in commands_of(make_parser()):
        for flag in command.flags:
            assert flag.replace("-", "\\-") in texts["man/espilot.1"]
    for name, _, rows in load().sections():
        assert name in texts["configuration.md"]
        assert all(f"| `{key}` |" in texts["configuration.md"] for key, _, _ in rows)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("# Head", [".SH Head"]),
        ("a `b-c` **d**", ["a \\fBb\\-c\\fR \\fBd\\fR"]),
        (".dot", ["\\&.dot"]),
        ("* x", [".IP \\(bu 2", "x"]),
        ("| a | b | c |", [".TP", "\\fBa\\fR", "b \\- c"]),
        ("```sh\n# no head\\n\n```\n", [".nf", ".RS 2", "# no head\\en", ".RE", ".fi", ".PP"]),
    ],
)
def test_markdown_becomes_roff(text: str, lines: list[str]) -> None:
    """What the pages use is understood, and nothing in them is taken for a request."""
    assert [line for line in load().markdown(text) if line] == lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link of a page names a file of the project, and a section that is there."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or f'id="{anchor}"' in found.read_text(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist(page: Path) -> None:
    """Wherever a page names a command of espilot in code, it is one, and so are its options."""
    known = {each.name: each for each in commands_of(make_parser()) if " " not in each.name}
    for text in re.findall(r"`(?:bin/)?espilot ([a-z][^`]*)`", page.read_text()):
        words = text.replace("|", " ").split()
        assert words[0] in known, text
        own = " ".join(words).partition(" -- ")[0]
        flags = re.findall(r"(?<=\s)--[a-z][a-z-]*", own)
        nested = [e for e in commands_of(make_parser()) if e.name.split()[0] == words[0]]
        assert set(flags) <= {flag for each in nested for flag in each.flags} | {"--help"}, text


@pytest.mark.parametrize(
    ("environ", "terminal", "wanted"),
    [
        ({}, True, True), ({}, False, False), ({"NO_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False), ({"NO_COLOR": ""}, True, True),
    ],
)  # fmt: skip
def test_colours_are_as_wanted(environ: dict[str, str], terminal: bool, wanted: bool) -> None:
    """NO_COLOR switches them off, FORCE_COLOR on, else the terminal decides."""
    assert wants_colour(environ, terminal=terminal) == wanted
    assert painted("failed", "failed", colour=wanted) == (
        "\x1b[31mfailed\x1b[0m" if wanted else "failed"
    )
