"""The exit codes of a stock pilot: what its callers read out of a number.

Rules: only codes of the table are used; a pilot that ended well after a signal tells the signal,
unless told otherwise; 2 is never used, because factories read it as "killed as stuck".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

UNKNOWN_SIGNAL = 1200
SIGNAL_CODES: Mapping[int, int] = MappingProxyType(
    {15: 1201, 3: 1202, 11: 1203, 24: 1204, 7: 1206, 10: 1207, 2: 1208}
)
"""Pilot error codes of signals by number (Linux)."""
REACHED_WALL_TIME, NO_JOBS, NO_SERVER, GENERAL, NO_SPACE = 1213, 1385, 1318, 1008, 1098
UNKNOWN_EXCEPTION, NO_DIRECTORY, SITE_OFFLINE = 1301, 1199, -1
NO_FILE, NO_QUEUE_DATA, BAD_QUEUE_DATA = 1103, 1116, 1117
QUEUE_NOT_ACTIVE, QUEUE_OFFLINE = 1359, 1386
OTHER_SHELL = 1


@dataclass(frozen=True, slots=True)
class StockCode:
    """One exit code, the pilot error codes that lead to it, and its meaning."""

    shell: int
    pilot: tuple[int, ...]
    meaning: str


TABLE: tuple[StockCode, ...] = (
    StockCode(0, (0,), "done"),
    StockCode(1, (), "any other error; the exit report has its code"),
    StockCode(64, (-1, 1377), "the command line cannot be used, site offline, or CVMFS dead"),
    StockCode(65, (1008,), "general pilot error, or a Python that is too old"),
    StockCode(66, (1199,), "a directory cannot be made"),
    StockCode(67, (1103,), "no such file or directory"),
    StockCode(68, (1163, 1177, 1373), "proxy or certificate invalid"),
    StockCode(69, (1098,), "too little local disk space"),
    StockCode(70, (1112, 1301), "unknown exception: a defect of the pilot"),
    StockCode(71, (1116,), "queue data missing"),
    StockCode(72, (1117,), "queue data bad"),
    StockCode(73, (1186,), "software directory missing"),
    StockCode(74, (1330,), "queue data not retrieved in time"),
    StockCode(75, (1332,), "black hole in the file system"),
    StockCode(76, (1342,), "middleware cannot be imported"),
    StockCode(77, (1331,), "input file missing on the storage"),
    StockCode(78, (1359,), "queue not active"),
    StockCode(79, (1318,), "server cannot be reached"),
    StockCode(80, (1382,), "proxy too short"),
    StockCode(81, (1213,), "wall time reached"),
    StockCode(82, (1385,), "no job for this queue"),
    StockCode(83, (1386,), "queue offline"),
    StockCode(130, (1208,), "SIGINT"),
    StockCode(131, (1202,), "SIGQUIT"),
    StockCode(135, (1206,), "SIGBUS"),
    StockCode(137, (1200,), "unknown kill signal, e.g. SIGUSR2"),
    StockCode(138, (1207,), "SIGUSR1"),
    StockCode(139, (1203,), "SIGSEGV"),
    StockCode(143, (1201,), "SIGTERM"),
    StockCode(152, (1204,), "SIGXCPU"),
)
"""The one table; `espilot help exit-codes` prints it."""
_SHELL_OF = {pilot: row.shell for row in TABLE for pilot in row.pilot}


def shell_code(pilot_code: int, *, signal: int = 0, drained: int | None = None) -> int:
    """The exit code for a pilot error code and the first signal that came (0: none).

    `drained` is the code of a clean end after a signal, None for that of the signal itself.
    """
    if pilot_code in (0, code_of_signal(signal)) and signal:
        return _SHELL_OF[code_of_signal(signal)] if drained is None else drained
    return _SHELL_OF.get(pilot_code, OTHER_SHELL)


def code_of_signal(number: int) -> int:
    """The pilot error code of a signal; 0 for none."""
    return SIGNAL_CODES.get(number, UNKNOWN_SIGNAL) if number else 0


def pilot_codes(shell: int) -> tuple[int, ...]:
    """The pilot error codes that lead to an exit code."""
    return next((row.pilot for row in TABLE if row.shell == shell), ())
