"""Following the story: on where it stopped, over torn lines and turned pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from espilot.adapters.story import Story, StoryReader, older_page


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def reader(path: Path) -> Iterator[StoryReader]:
    made = StoryReader(path)
    yield made
    made.close()


def ids(lines: list[dict[str, Any]]) -> list[str]:
    """The ranges of these lines."""
    return [each for line in lines for each in line["ranges"]]


def tell(story: Story, *range_ids: str) -> None:
    """Write a line for each of these."""
    for each in range_ids:
        story.tell("done", [each])
    story.flush()


def test_reads_on(path: Path, reader: StoryReader) -> None:
    """Before there is a story: nothing. Then each line once, in order."""
    assert reader.read() == []
    story = Story(path, "dispatcher")
    tell(story, "a", "b")
    assert ids(reader.read()) == ["a", "b"]
    assert reader.read() == []
    tell(story, "c")
    assert ids(reader.read()) == ["c"]


def test_half_a_line_waits(path: Path, reader: StoryReader) -> None:
    """A line that is still being written is not lost, one that stays torn spoils no other."""
    line = '{"t":1,"what":"done","ranges":["a"]}\n'
    path.write_text(line[:20])
    assert reader.read() == []
    with path.open("a") as file:
        file.write(line[20:] + line[:11])
    assert ids(reader.read()) == ["a"]
    tell(Story(path, "x"), "b")
    assert ids(reader.read()) == ["b"]


def test_over_turned_pages(path: Path, reader: StoryReader) -> None:
    """A page that is turned between two looks is read to its end, then the new one."""
    story = Story(path, "x", page_bytes=700)
    seen: list[str] = []
    written = [f"range-{n}" for n in range(60)]
    for n, each in enumerate(written):
        tell(story, each)
        if n % 4 == 0:
            seen += ids(reader.read())
    seen += ids(reader.read())
    assert older_page(path).exists() and seen == written


def test_begins_with_the_older_page(path: Path) -> None:
    """Who comes late reads both pages."""
    story = Story(path, "x", page_bytes=300)
    tell(story, *(f"r{n}" for n in range(5)))
    tell(story, "new")
    reader = StoryReader(path)
    assert ids(reader.read()) == ["r0", "r1", "r2", "r3", "r4", "new"]
    reader.close()
