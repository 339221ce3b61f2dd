"""Memory for uploads is used again while any upload goes on, and not kept beyond."""

from __future__ import annotations

import pytest

from espilot.adapters.storage.s3 import _Buffers
from espilot.direct_io import BLOCK_BYTES

SIZE = 4 * BLOCK_BYTES


def test_used_again_while_another_upload_goes_on() -> None:
    """Who comes second gets what the first has given back, and what it lacks anew."""
    buffers = _Buffers(SIZE)
    with buffers.borrowed(1, SIZE) as held:
        with buffers.borrowed(2, SIZE) as first:
            assert not any(view is held[0] for view in first)
        with buffers.borrowed(3, SIZE) as second:
            assert [any(view is each for each in first) for view in second] == [True, True, False]
        assert len(buffers._free) == 3
    assert buffers._free == []


def test_room_for_larger_parts() -> None:
    """Each has room for a part and a byte more; one that is too small is not given."""
    buffers = _Buffers(SIZE)
    with buffers.borrowed(1, 100):
        with buffers.borrowed(1, 100) as small:
            assert len(small[0]) == SIZE + BLOCK_BYTES
        with buffers.borrowed(1, 2 * SIZE) as large:
            assert len(large[0]) == 2 * SIZE + BLOCK_BYTES


def test_given_back_after_an_error() -> None:
    """An upload that fails gives its memory back as well."""
    buffers = _Buffers(SIZE)
    with buffers.borrowed(1, SIZE):
        with pytest.raises(ValueError, match="broken"), buffers.borrowed(2, SIZE):
            raise ValueError("broken")
        assert len(buffers._free) == 2
