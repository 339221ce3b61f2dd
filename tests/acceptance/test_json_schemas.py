"""What commands print for programs is what `docs/json.md` says: schemas and keys, of a real run."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pilot_run import ESPILOT, ROOT, end_processes_of

from espilot.cli.command_tree import commands_of
from espilot.cli.main import make_parser

PAGE = (ROOT / "docs" / "json.md").read_text()
PROGRAM = "#!/bin/sh\necho $1 > $2\n"
FILES = {"espilot.exit/1", "espilot.record/1"}


def table() -> dict[str, tuple[str, set[str]]]:
    """Where an object is found, and its documented keys, by schema."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 3 and cells[1].startswith("`espilot."):
            keys = re.sub(r"\([^)]*\)", "", cells[2])
            names = set(re.findall(r"(?<!-)`([a-z_]+)`", keys))
            found[cells[1].strip("`")] = cells[0], names | {"schema"}
    return found


def test_every_schema_is_in_the_table() -> None:
    """No object of the program is undocumented, and none is documented that it does not have."""
    written = set()
    for path in (ROOT / "espilot").rglob("*.py"):
        written |= set(re.findall(r'"(espilot\.[a-z-]+/\d+)"', path.read_text()))
    assert written == set(table())


def test_every_command_with_json_is_in_the_table() -> None:
    """A command that takes --json has a row."""
    places = " ".join(where for where, _ in table().values())
    for command in commands_of(make_parser()):
        if "--json" in command.flags:
            assert f"`espilot {command.name} " in places, command.name


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """An object of each schema, from a run of three ranges."""
    place = tmp_path_factory.mktemp("json")
    program = place / "sim"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    command = [str(program), "{startEvent}", "{output}"]

    def call(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [*ESPILOT, *words], cwd=place, capture_output=True, text=True, timeout=120
        )
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    try:
        said = [call("run", "--local", "--events", "3", "--json", "--", *command)]
        first_range = re.search(
            r'"fetched","ranges":\["([^"]+)"',
            (place / "espilot-work" / "state" / "events.jsonl").read_text(),
        )
        assert first_range is not None
        said += [
            call("recover", "--json"),
            call("status", "--json"),
            call("explain", first_range[1], "--json"),
            call("drain", "--plan", "--json"),
            call("doctor", "--json"),
            call("bundle", "--json"),
            call("config", "show", "--json"),
            call("help", "exit-codes", "--json"),
            call("check-payload", "--only", "plain", "--json", "--", *command),
            json.loads((place / "espilot-work" / "state" / "run.json").read_text()),
        ]
        report = subprocess.run([*ESPILOT, "report"], cwd=place, capture_output=True, text=True)
        said.append(frozen_document(report.stdout))
    finally:
        end_processes_of(Path(place))
    return {each["schema"]: each for each in said}


def frozen_document(page: str) -> dict[str, Any]:
    """The object that a report was made of."""
    data = page.partition('id="frozen">')[2].partition("</script>")[0]
    found: dict[str, Any] = json.loads(data)["document"]
    return found


def test_keys_are_as_documented(objects: dict[str, dict[str, Any]]) -> None:
    """The keys of each object are those of the table, no more and no less."""
    documented = table()
    assert set(documented) - FILES - set(objects) == {"espilot.address/1"}
    for schema, found in objects.items():
        assert set(found) == documented[schema][1], schema
