"""Names of output files that say by themselves which range they are of: `<output LFN>.<range id>`.

A payload that reports nothing says by them what is done. They are foreign: what is no such name is
no output.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_NAME_CHARS = 255
"""Longest name of a file; longer ids have none."""


class OutputNames:
    """The names of a job's outputs, one per stream; `lfns` in the order of the streams."""

    def __init__(self, lfns: Sequence[str]) -> None:
        self._lfns = tuple(lfn for lfn in lfns if lfn and "/" not in lfn)
        # With `out` and `out.root`, the longer one is meant by what fits both.
        self._longest_first = sorted(set(self._lfns), key=len, reverse=True)

    def ids_of(self, name: str) -> list[str]:
        """The ids that a file of this name may belong to, the likeliest first; mostly one."""
        if not name.isprintable() or "/" in name or len(name) > MAX_NAME_CHARS:
            return []
        fitting = (lfn for lfn in self._longest_first if name.startswith(f"{lfn}."))
        return [name[len(lfn) + 1 :] for lfn in fitting if len(name) > len(lfn) + 1]

    def names_of(self, range_id: str) -> tuple[str, ...]:
        """The names of all outputs of one range."""
        return tuple(f"{lfn}.{range_id}" for lfn in self._lfns)
