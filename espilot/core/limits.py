"""Limits of a run: pure functions from one measurement to a verdict or nothing.

* Each verdict names the number and the limit in units that people read, with as many digits as it
  takes to tell the two apart.
* A limit of 0 means: no limit. A measurement equal to its limit is within it.
* The limits are those of the settings; a grace is added by who sets the limit, not here.
* An output that is too large concerns its range. Everything else ends the job: a payload that was
  started anew would do the same again.
"""

from __future__ import annotations

from espilot.model import Verdict

NO_LOCAL_SPACE = 1098
PAYLOAD_MISBEHAVES = 1227
WORK_DIR_TOO_LARGE = 1104
STDOUT_TOO_LARGE = 1106
OUTPUT_TOO_LARGE = 1124

_SIZE_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))
_TIME_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
_MOST_DIGITS = 6
_NAME_CHARS = 100


def _in_units(value: float, limit: float, units: tuple[tuple[float, str], ...]) -> tuple[str, str]:
    """Both in the unit that suits the limit; the same text only if they are the same."""
    scale, unit = next((each for each in units if limit >= each[0]), units[-1])
    first = 0 if scale == 1.0 else 1
    for digits in range(first, _MOST_DIGITS + 1):
        texts = f"{value / scale:.{digits}f} {unit}", f"{limit / scale:.{digits}f} {unit}"
        if texts[0] != texts[1]:
            return texts
    return texts


def size_texts(value_bytes: float, limit_bytes: float) -> tuple[str, str]:
    """Two sizes in words, to be compared: `("17.3 GB", "16.0 GB")`."""
    return _in_units(value_bytes, limit_bytes, _SIZE_UNITS)


def size_text(value_bytes: float) -> str:
    """A size in words: `17.3 GB`."""
    scale, unit = next((each for each in _SIZE_UNITS if value_bytes >= each[0]), _SIZE_UNITS[-1])
    return f"{value_bytes / scale:.{0 if scale == 1.0 else 1}f} {unit}"


def time_texts(value_s: float, limit_s: float) -> tuple[str, str]:
    """Two durations in words, to be compared: `("2.1 h", "2.0 h")`."""
    return _in_units(value_s, limit_s, _TIME_UNITS)


def work_dir(size_bytes: int, limit_bytes: int, grace: float = 0.0) -> Verdict | None:
    """The work directory as a whole, outputs, logs and deleted files that are open included.

    `grace` is the part of the limit by which it may be exceeded.
    """
    allowed_bytes = int(limit_bytes * (1 + grace))
    if not 0 < allowed_bytes < size_bytes:
        return None
    size, limit = size_texts(size_bytes, allowed_bytes)
    return Verdict(
        rule="work-dir",
        value=size_bytes,
        limit=allowed_bytes,
        action="end-job",
        code=WORK_DIR_TOO_LARGE,
        text=f"the work directory holds {size}, the limit is {limit}",
    )


def payload_log(
    name: str, size_bytes: int, limit_bytes: int, action: str = "end-job"
) -> Verdict | None:
    """Standard output or standard error of the payload; `name` is the file's.

    `action` is `end-job` or `cut`: its middle is thrown away, and how much.
    """
    if not 0 < limit_bytes < size_bytes:
        return None
    size, limit = size_texts(size_bytes, limit_bytes)
    return Verdict(
        rule="payload-log",
        value=size_bytes,
        limit=limit_bytes,
        action=action,
        code=STDOUT_TOO_LARGE,
        text=f"{_printable(name)} of the payload has {size}, the limit is {limit}",
    )


def output(name: str, size_bytes: int, limit_bytes: int) -> Verdict | None:
    """One output file of one range."""
    if not 0 < limit_bytes < size_bytes:
        return None
    size, limit = size_texts(size_bytes, limit_bytes)
    return Verdict(
        rule="output",
        value=size_bytes,
        limit=limit_bytes,
        action="fail-range",
        code=OUTPUT_TOO_LARGE,
        text=f"the output {_printable(name)} has {size}, the limit is {limit}",
    )


def growing_output(
    name: str, size_bytes: int, former_bytes: int, limit_bytes: int
) -> Verdict | None:
    """A file of the payload that is over the limit of an output and grew since the former look.

    One that has its size already is judged as an output, when it is reported.
    """
    if not 0 < limit_bytes < size_bytes or not 0 <= former_bytes < size_bytes:
        return None
    size, limit = size_texts(size_bytes, limit_bytes)
    return Verdict(
        rule="growing-output",
        value=size_bytes,
        limit=limit_bytes,
        action="end-payload",
        code=OUTPUT_TOO_LARGE,
        text=f"{_printable(name)} of the payload has {size} and grows, the limit is {limit}",
    )


def processes(number: int, limit: int) -> Verdict | None:
    """Processes of the payload that live at the same time."""
    if not 0 < limit < number:
        return None
    return Verdict(
        rule="processes",
        value=number,
        limit=limit,
        action="end-payload",
        code=PAYLOAD_MISBEHAVES,
        text=f"the payload has {number} processes, the limit is {limit}",
    )


def no_progress(still_s: float, in_hand: int, limit_s: float) -> Verdict | None:
    """A payload that has ranges in hand, however busy it is, and for so long no outcome came."""
    if not in_hand or not 0 < limit_s < still_s:
        return None
    still, limit = time_texts(still_s, limit_s)
    return Verdict(
        rule="no-progress",
        value=still_s,
        limit=limit_s,
        action="end-payload",
        code=PAYLOAD_MISBEHAVES,
        text=f"the payload has {in_hand} ranges in hand and none ended for {still}, "
        f"the limit is {limit}",
    )


def free_space(free_bytes: int, floor_bytes: int) -> Verdict | None:
    """What is left on the file system of the work directory; here the limit is a least value."""
    if free_bytes >= floor_bytes:
        return None
    free, floor = size_texts(free_bytes, floor_bytes)
    return Verdict(
        rule="free-space",
        value=free_bytes,
        limit=floor_bytes,
        action="end-job",
        code=NO_LOCAL_SPACE,
        text=f"the local disk has {free} left, the limit is {floor}",
    )


def _printable(name: str) -> str:
    """A name that came from a payload, fit for one line of a log."""
    text = "".join(each if each.isprintable() else "?" for each in name)
    return text if len(text) <= _NAME_CHARS else f"{text[:_NAME_CHARS]}..."
