"""The files of a job definition: what goes in, what comes out, and the lists of a merge job.

Lists are comma-separated and aligned by position; a list that is too short, or shifted, says
nothing about the files at its end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espilot.errors import MessageError
from espilot.wire.jobdef import NULL, is_lfn

ARCHIVE = "zip://"
_ADLER32 = re.compile(r"[0-9a-fA-F]{1,8}")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True, slots=True)
class JobInput:
    """One input: what is not known is empty or None. `storage_id` is that of its endpoint.

    `endpoint` is the name of the endpoint; `is_archive`: it is to be unpacked.
    """

    lfn: str
    is_archive: bool = False
    size_bytes: int | None = None
    adler32: str = ""
    md5: str = ""
    storage_id: int | None = None
    endpoint: str = ""


def read_inputs(definition: Mapping[str, Any]) -> tuple[JobInput, ...]:
    """The inputs of a job, each once. Errors: `MessageError` for a bad name."""
    names = _items(definition, "inFiles")
    sizes, checksums = _items(definition, "fsize"), _items(definition, "checksum")
    tokens, endpoints = _items(definition, "prodDBlockToken"), _items(definition, "ddmEndPointIn")
    inputs: dict[str, JobInput] = {}
    for n, name in enumerate(names):
        lfn = name.removeprefix(ARCHIVE)
        if not name:
            continue
        if not is_lfn(lfn):
            raise MessageError(f"job definition: inFiles holds a bad file name: {name!r:.60}")
        adler32, md5 = read_checksum(_at(checksums, n))
        inputs.setdefault(
            lfn,
            JobInput(
                lfn=lfn,
                is_archive=name.startswith(ARCHIVE),
                # Nobody has an empty input: 0 is what a server says that does not know.
                size_bytes=_number(_at(sizes, n)) or None,
                adler32=adler32,
                md5=md5,
                storage_id=_number(_at(tokens, n).partition("/")[0]),
                endpoint=_at(endpoints, n),
            ),
        )
    return tuple(inputs.values())


def read_checksum(text: str) -> tuple[str, str]:
    """Adler32 with all its digits, and md5, of `ad:...`, `md:...` or the bare digits."""
    kind, colon, digits = text.rpartition(":")
    if kind in ("", "md", "md5") and _MD5.fullmatch(digits):
        return "", digits.lower()
    if (kind in ("ad", "adler32") or not colon) and _ADLER32.fullmatch(digits):
        return digits.lower().zfill(8), ""
    return "", ""


def read_member_lists(definition: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The lists of `writeToFile`: the files by the name of the list.

    Errors: `MessageError` for a name that is no plain file name, or a text that is no such list.
    """
    lists: dict[str, tuple[str, ...]] = {}
    for part in filter(None, _text(definition, "writeToFile").split("^")):
        name, colon, members = part.partition(":")
        files = tuple(filter(None, members.split(",")))
        for each in (name, *files):
            if not colon or not is_lfn(each):
                raise MessageError(f"job definition: writeToFile holds a bad name: {each!r:.60}")
        lists[name] = files
    return lists


def read_endpoints_out(definition: Mapping[str, Any]) -> dict[str, str]:
    """Name of the endpoint by output LFN, the log included."""
    names, endpoints = _items(definition, "outFiles"), _items(definition, "ddmEndPointOut")
    return {name: _at(endpoints, n) for n, name in enumerate(names) if name}


def read_optional_outputs(definition: Mapping[str, Any]) -> frozenset[str]:
    """Outputs that may be missing."""
    value = definition.get("allowNoOutput")
    names = value if isinstance(value, list) else _items(definition, "allowNoOutput")
    return frozenset(name for name in names if isinstance(name, str) and name)


def replace_lists(
    arguments: Sequence[str], lists: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Arguments `OPTION=@NAME` replaced by `@FILE` of that list, and the option of each list.

    `lists` has the file by the list's name. The option goes into the file, before the names.
    """
    replaced, options = [], {}
    for argument in arguments:
        head, at, name = argument.rpartition("@")
        if at and name in lists and (not head or head.endswith("=")):
            options[name] = head.removesuffix("=")
            argument = f"@{lists[name]}"
        replaced.append(argument)
    return replaced, options


def replace_names(arguments: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """Arguments in which each file name that stands alone in a comma list has its place."""
    return [_replace_in(argument, places) for argument in arguments]


def _replace_in(argument: str, places: Mapping[str, str]) -> str:
    head, equals, values = argument.rpartition("=")
    names = [places.get(name, name) for name in values.split(",")]
    return f"{head}{equals}{','.join(names)}"


def _items(definition: Mapping[str, Any], name: str) -> list[str]:
    """The items of a list; NULL ones are empty."""
    return ["" if item == NULL else item for item in _text(definition, name).split(",")]


def _text(definition: Mapping[str, Any], name: str) -> str:
    value = definition.get(name)
    if value is None or value == NULL:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise MessageError(f"job definition: {name} is not a string: {value!r:.60}")
    return value


def _at(items: Sequence[str], n: int) -> str:
    return items[n] if n < len(items) else ""


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
