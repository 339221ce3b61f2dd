"""The generated documents: the manual pages and the reference of the settings.

`python tools/documents.py` writes them below `docs/`; a test compares them with what is there. They
come from the tables of the program itself: its parser, its settings, its exit codes, and the pages
for payload authors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from espilot import __version__
from espilot.cli import exit_codes
from espilot.cli.command_tree import Command, commands_of
from espilot.cli.main import make_parser
from espilot.config import Settings
from espilot.config_origin import PRECEDENCE
from espilot.payload.template import PLACEHOLDERS
from espilot.settings_text import toml_value

DOCS = Path(__file__).resolve().parents[1] / "docs"
GENERATED = "<!-- made by tools/documents.py; change the settings, not this page -->"


def documents() -> dict[str, str]:
    """Text of each generated document by its path below `docs/`."""
    return {
        "configuration.md": configuration_page(),
        "man/espilot.1": manual_of_commands(),
        "man/espilot.toml.5": manual_of_settings(),
        "man/espilot-payload.7": manual_for_payloads(),
    }


def sections() -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """Name, sentence and rows (key, default, sentence) of each section of the settings."""
    settings = Settings()
    plain = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield field.name, _sentence(value), _rows(value)
        elif "kind" in field.metadata:
            made = field.metadata["kind"]()
            yield f"{field.name}.NAME", _sentence(made), _rows(made)
        else:
            plain.append((field.name, toml_value(value), str(field.metadata["doc"])))
    yield "", "What stands before all sections.", plain


def _sentence(section: Any) -> str:
    text = re.sub(r"^\[[^]]*\]:\s*", "", type(section).__doc__ or "")
    text = " ".join(text.split())
    return text[:1].upper() + text[1:]


def _rows(section: Any) -> list[tuple[str, str, str]]:
    return [
        (field.name, toml_value(getattr(section, field.name)), str(field.metadata["doc"]))
        for field in fields(section)
    ]


def configuration_page() -> str:
    """The reference of the settings as a page."""
    lines = [
        GENERATED, "", "# Settings", "",
        "A job file and the configuration of a pilot are TOML with the sections below; all of them",
        "with their defaults are in `etc/espilot.toml`. A variable `ESPILOT_SECTION_KEY` of the",
        "environment sets one of them. Where several places name a setting, the first of these",
        f"counts: {', '.join(PRECEDENCE)}. `espilot config show --origin` tells which it was.",
    ]  # fmt: skip
    for name, sentence, rows in sections():
        lines += ["", f"## {f'[{name}]' if name else 'Without a section'}", "", sentence, ""]
        lines += ["| setting | default | meaning |", "|---|---|---|"]
        lines += [f"| `{key}` | `{_cell(default)}` | {_cell(doc)} |" for key, default, doc in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def head(name: str, number: int, about: str) -> list[str]:
    """How a manual page begins."""
    return [
        ".\\\" made by tools/documents.py",
        f'.TH {name.upper()} {number} "" "espilot {__version__}" "espilot"',
        ".SH NAME", f"{name} \\- {roff(about)}",
    ]  # fmt: skip


def manual_of_commands() -> str:
    """espilot(1)."""
    parser = make_parser()
    lines = [
        *head("espilot", 1, "a pilot for the event service"),
        ".SH SYNOPSIS", ".B espilot", "COMMAND [OPTION ...]",
        ".SH DESCRIPTION", roff(parser.description or ""),
        ".SH EXAMPLES", *verbatim(examples(parser.epilog)),
        ".SH COMMANDS",
    ]  # fmt: skip
    for command in commands_of(parser):
        lines += manual_of_command(command)
    lines.append(".SH EXIT STATUS")
    for code, meaning in exit_codes.TABLE.items():
        lines += [".TP", f".B {code}", roff(meaning)]
    lines += [
        ".SH ENVIRONMENT",
        ".TP", ".B ESPILOT_SECTION_KEY", "a setting, see espilot.toml(5)",
        ".TP", ".B NO_COLOR", "no colours on a terminal",
        ".TP", ".B FORCE_COLOR", "colours where there is no terminal too",
        ".SH SEE ALSO", ".BR espilot.toml (5),", ".BR espilot-payload (7)",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def examples(epilog: str | None) -> str:
    """The examples of a help text, without what follows them."""
    text = (epilog or "").removeprefix("examples:\n")
    return text.partition("\n\n")[0]


def manual_of_command(command: Command) -> list[str]:
    """The sub-section of one command."""
    lines = [
        f".SS {roff(command.name)}",
        roff(command.description),
        ".PP",
        ".I " + roff(command.usage),
    ]
    for option in command.options:
        flags = ", ".join(option.flags) or option.value
        value = f" \\fI{roff(option.value)}\\fR" if option.flags and option.value else ""
        lines += [
            ".TP",
            f"\\fB{roff(flags)}\\fR{value}",
            roff(option.help or " | ".join(option.choices)),
        ]
    if command.epilog:
        lines += [".PP", *verbatim(command.epilog)]
    return lines


def manual_of_settings() -> str:
    """espilot.toml(5)."""
    lines = [
        *head("espilot.toml", 5, "settings of espilot, and job files"),
        ".SH DESCRIPTION",
        roff(
            "TOML with the sections below. A job file for `espilot run --local` and the "
            "configuration of a pilot have the same form. A variable ESPILOT_SECTION_KEY of the "
            "environment sets one of them. Where several places name a setting, the first of "
            f"these counts: {', '.join(PRECEDENCE)}."
        ),
    ]  # fmt: skip
    for name, sentence, rows in sections():
        lines += [f".SH {roff(f'[{name}]' if name else 'WITHOUT A SECTION')}", roff(sentence)]
        for key, default, doc in rows:
            lines += [".TP", f"\\fB{roff(key)}\\fR = {roff(default)}", roff(doc)]
    lines += [
        ".SH FILES", ".I /etc/espilot/espilot.toml", ".br", ".I ~/.config/espilot/espilot.toml",
        ".SH SEE ALSO", ".BR espilot (1)",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def manual_for_payloads() -> str:
    """espilot-payload(7): the guide and the protocol."""
    lines = head("espilot-payload", 7, "how a program processes event ranges for espilot")
    for name in ("payload-guide.md", "payload-protocol.md"):
        lines += markdown((DOCS / name).read_text())
    lines += [
        ".SH PLACEHOLDERS", "In a command that is run once for each range:", ".PP",
        roff(" ".join(f"{{{name}}}" for name in (*PLACEHOLDERS, "output", "output2"))) + " ...",
        ".SH SEE ALSO", ".BR espilot (1),", ".BR espilot.toml (5)",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def markdown(text: str) -> Iterator[str]:
    """A page in Markdown as lines of roff; what this project's pages use, no more."""
    for number, block in enumerate(re.split(r"^```[a-z]*\n(.*?)^```$", text, flags=re.M | re.S)):
        if number % 2:
            yield from verbatim(block)
            continue
        for line in block.splitlines():
            yield from _markdown_line(line)


def _markdown_line(line: str) -> Iterator[str]:
    heading = re.match(r"(#+) (.*)", line)
    if heading:
        yield f".{'SH' if len(heading[1]) < 3 else 'SS'} {inline(heading[2])}"
    elif line.startswith("* "):
        yield from (".IP \\(bu 2", inline(line[2:]))
    elif re.fullmatch(r"\|[-| ]+\|", line) or line.startswith("<"):
        return
    elif line.startswith("|"):
        cells = [inline(cell.strip()) for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        yield from (".TP", f"\\fB{cells[0]}\\fR", " \\- ".join(each for each in cells[1:] if each))
    elif line.startswith("    "):
        yield from verbatim(line)
    else:
        yield inline(line.strip()) if line.strip() else ".PP"


def inline(text: str) -> str:
    """Text with links, bold and code."""
    text = re.sub(r"\[([^]]+)\]\(([^)]+)\)", r"\1", text)
    text = roff(text)
    text = re.sub(r"\*\*(.+?)\*\*", r"\\fB\1\\fR", text)
    return re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text)


def verbatim(text: str) -> list[str]:
    """Lines as they are."""
    return [".nf", ".RS 2", *map(roff, text.rstrip("\n").splitlines()), ".RE", ".fi"]


def roff(text: str) -> str:
    """Text that roff does not understand as anything else."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def main() -> None:
    """Write all of them."""
    for name, text in documents().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
