"""What a service manager is told, by sd_notify(3): one datagram with lines `NAME=value`.

Without a service manager, or when it is not to be reached, nothing happens: no answer is expected.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """The way to the service manager. `watchdog_s` is None when it does not watch us."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_UNIX, kind)

    @property
    def is_heard(self) -> bool:
        """Whether there is a service manager."""
        return self._socket is not None

    def tell(self, *words: str, **fields: object) -> bool:
        """Send fields by their lower-case names in one datagram; a word alone means `=1`.

        Returns whether it was taken.
        """
        if self._socket is None:
            return False
        lines = [f"{word.upper()}=1" for word in words]
        lines += [f"{name.upper()}={one_line(value)}" for name, value in fields.items()]
        try:
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError:
            # A manager that is busy or gone is no reason for us to stop.
            return False
        return True

    def tell_reloading(self) -> None:
        """Say that settings are read again; managers from version 253 on want the time too."""
        self.tell("reloading", monotonic_usec=int(time.monotonic() * 1e6))

    def close(self) -> None:
        """Close."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def open_notifier(environ: Mapping[str, str], pid: int | None = None) -> Notifier:
    """The service manager that the environment names. A watchdog for another process is none."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        address = ""
    text = environ.get("WATCHDOG_USEC", "")
    for_us = environ.get("WATCHDOG_PID", "") in ("", str(pid or os.getpid()))
    usec = int(text) if text.isdecimal() and for_us else 0
    return Notifier(address, usec / 1e6 if usec and address else None)


def one_line(value: object) -> str:
    """A value without line feeds, which would begin another field."""
    return " ".join(str(value).split("\n"))
