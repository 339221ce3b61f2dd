"""What single processes use, as /proc tells it to their owner: memory by share, bytes of I/O.

Both take the kernel some work for large processes, so they are read rarely, for pids that are
known. A process that ends meanwhile counts as nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def memory_shares(pids: Iterable[int]) -> tuple[int, int] | None:
    """Sums of the proportional set sizes, and of what is in swap; None when one may not be read."""
    pss = swap = 0
    for pid in pids:
        fields = _fields(f"/proc/{pid}/smaps_rollup")
        if fields is None:
            return None
        pss += fields.get("Pss", 0) * 1024
        swap += fields.get("SwapPss", fields.get("Swap", 0)) * 1024
    return pss, swap


def pss_bytes(pids: Iterable[int]) -> int | None:
    """Sum of the proportional set sizes; None when one of them may not be read."""
    shares = memory_shares(pids)
    return None if shares is None else shares[0]


def io_bytes(pids: Iterable[int]) -> tuple[int, int]:
    """Bytes read from and written to storage, by these processes and their ended children.

    Those that may not be read count as nothing.
    """
    read = written = 0
    for pid in pids:
        fields = _fields(f"/proc/{pid}/io") or {}
        read += fields.get("read_bytes", 0)
        written += fields.get("write_bytes", 0)
    return read, written


def _fields(path: str) -> dict[str, int] | None:
    """The numbers of a `name: number` file; empty when the process is gone, None when refused."""
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    except OSError:
        return None
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdecimal():
            found[name] = int(number[0])
    return found
