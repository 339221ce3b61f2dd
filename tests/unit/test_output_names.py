"""Files that say by their names which range they are of."""

from __future__ import annotations

import pytest

from espilot.core.output_names import OutputNames


def test_names_and_ids_belong_together() -> None:
    """Each stream's name of a range leads back to it."""
    names = OutputNames(("hits.root", "hist.root"))
    assert names.names_of("1-2-3-4-1") == ("hits.root.1-2-3-4-1", "hist.root.1-2-3-4-1")
    for name in names.names_of("1-2-3-4-1"):
        assert names.ids_of(name) == ["1-2-3-4-1"]


def test_the_longer_output_is_meant_by_what_fits_two() -> None:
    """With `out` and `out.root` both readings are told, the likelier one first."""
    names = OutputNames(("out", "out.root"))
    assert names.ids_of("out.root.1-2") == ["1-2", "root.1-2"]
    assert names.ids_of("out.1-2") == ["1-2"]


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "out", "out.", "other.1-2", ".out.1-2", "tmp.out.1-2", "outX1-2", "OUT.1-2",
        "out.1\n2", "out.1\x00", "out.\x1b[31m", "out.\udcff", "out.a/b", "out.\u2028",
        "out." + "9" * 300,
    ],
)  # fmt: skip
def test_strange_names_are_no_outputs(name: str) -> None:
    """Other names, temporary ones, and hostile ones: no range, no error."""
    assert OutputNames(("out",)).ids_of(name) == []


def test_an_output_that_cannot_be_a_file_has_no_names() -> None:
    """A server's LFN with a slash would lead elsewhere."""
    names = OutputNames(("../../etc/passwd", "", "out"))
    assert names.names_of("1") == ("out.1",)
    assert names.ids_of("../../etc/passwd.1") == []
