"""The survey of the disk: walks where something grows, rests where nothing does."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.supervisor import survey
from espilot.supervisor.survey import EATEN_BYTES, REST_S, DiskSurvey, PayloadFiles


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A work directory with a file in it, and a survey of it a second apart."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "output"
        self.file.write_bytes(b"x" * 5000)
        self.clock = Clock()
        self.survey = DiskSurvey(directory, (), clock=self.clock)
        self.payload = PayloadFiles(directory, (), ())

    def walks(self, looks: int) -> list[bool]:
        """Of so many looks, which had a walk."""
        found = []
        for _ in range(looks):
            self.clock.now += 1.0
            found.append(self.survey.look(self.payload).walk is not None)
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site that was walked once."""
    site = Site(tmp_path)
    assert site.walks(1) == [True]
    return site


def test_rest_between_walks(site: Site) -> None:
    """What does not grow is walked now and then; the free space is asked each time."""
    assert site.walks(7) == [True] + [False] * (int(REST_S) - 1) + [True, False]
    assert site.survey.look(site.payload).free_bytes


def test_growth_is_followed(site: Site) -> None:
    """From the walk that finds something new on, each look is one, until nothing grows."""
    site.walks(2)
    site.file.write_bytes(b"x" * 50_000)
    assert site.walks(5) == [False, False, False, True, True]
    site.file.write_bytes(b"x" * 500_000)
    assert site.walks(1) == [False]
    site.clock.now += REST_S
    for size_bytes in (600_000, 700_000, 800_000):
        site.file.write_bytes(b"x" * size_bytes)
        assert site.walks(1) == [True]


def test_hungry_payload_ends_the_rest(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fills quickly, the next look is a walk."""
    free = 10 * EATEN_BYTES
    monkeypatch.setattr(survey, "free_bytes", lambda _: free)
    assert site.walks(2) == [True, False]
    free -= EATEN_BYTES
    assert site.walks(1) == [False], "others write too"
    free -= 1
    assert site.walks(1) == [True]
