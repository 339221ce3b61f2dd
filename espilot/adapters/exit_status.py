"""How a process ended that is another one's child (Linux).

The kernel tells it by /proc until the process is reaped, and by a pidfd from then on, since 6.15.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 8
_INFO = struct.Struct("=Q52xi")
"""linux/pidfd.h: 64 bytes, which begin with the mask and end with the exit status."""
_EXIT_CODE_FIELD = 49
"""In /proc/PID/stat, counted from the state."""


def ended_well(pid: int, pidfd: int) -> bool | None:
    """Whether a process that has ended had exit code 0; None: nobody knows."""
    # Again at the end: meanwhile it may have been reaped.
    for status in (status_of_reaped(pidfd), status_of_zombie(pid), status_of_reaped(pidfd)):
        if status is not None:
            return status == 0
    return None


def status_of_reaped(pidfd: int) -> int | None:
    """The wait status of a process that was reaped; None where the kernel does not tell."""
    info = bytearray(_INFO.pack(_PIDFD_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, status = _INFO.unpack(info)
    return int(status) if mask & _PIDFD_INFO_EXIT else None


def status_of_zombie(pid: int) -> int | None:
    """The wait status of a process that ended and was not reaped yet; else None."""
    directory = Path(f"/proc/{pid}")
    try:
        owner = directory.stat().st_uid
        fields = (directory / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    # Whoever may not know it reads 0.
    may_know = os.geteuid() in (0, owner)
    return int(fields[_EXIT_CODE_FIELD]) if may_know and fields[0] == b"Z" else None
