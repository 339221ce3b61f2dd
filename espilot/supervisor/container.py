"""A payload inside a container: the command before the payload's own, with what it must see.

Any prefix will do: apptainer, podman, or a site's own script. In `payload.container` the word with
`{mount}` comes once for each place that the payload needs (work directory, channel socket, inputs,
our package), the word with `{env}` once for each variable `NAME=VALUE` that we set; an option
before such a word, if it is a word of its own, comes again each time. `{workdir}` and `{directory}`
(that of this start) are replaced.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from espilot.errors import ConfigError

MOUNT, ENV = "{mount}", "{env}"
OWN_VARIABLES = ("ESPILOT_", "PILOT_", "ATHENA_", "PandaID", "PANDAID", "PanDA_TaskID")
"""How the variables begin that a payload must get through a container that passes none."""


def container_words(template: str) -> list[str]:
    """The words of a template; `ConfigError` when it cannot be used."""
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise ConfigError(f"payload.container {template!r:.100}: {error}") from None
    if words and any(mark in words[0] for mark in (MOUNT, ENV)):
        raise ConfigError(f"payload.container {template!r:.100}: it must begin with a command")
    return words


def container_prefix(
    template: str, *, directory: Path, workdir: Path, places: Iterable[Path], env: Mapping[str, str]
) -> list[str]:
    """The words before the payload's command; empty without a template."""
    own = [f"{name}={value}" for name, value in env.items() if name.startswith(OWN_VARIABLES)]
    values = {MOUNT: [str(place) for place in outermost(places)], ENV: own}
    words = [
        word.replace("{workdir}", str(workdir)).replace("{directory}", str(directory))
        for word in container_words(template)
    ]
    return list(_repeat(words, values))


def _repeat(words: list[str], values: Mapping[str, list[str]]) -> Iterator[str]:
    """The words, those with a mark once for each of its values."""
    held: list[str] = []
    for number, word in enumerate(words):
        mark = next((each for each in values if each in word), None)
        if mark is not None:
            for value in values[mark]:
                yield from (*held, word.replace(mark, value))
            held = []
            continue
        yield from held
        following = words[number + 1] if number + 1 < len(words) else ""
        takes_value = word.startswith("-") and any(each in following for each in values)
        held = [word] if takes_value and not following.startswith("-") else []
        if not held:
            yield word
    yield from held


def outermost(places: Iterable[Path]) -> list[Path]:
    """The places that exist, without those inside another one; a socket stays, wherever it is."""
    found = list(dict.fromkeys(place.absolute() for place in places if place.exists()))
    return [
        place
        for place in found
        if place.is_socket()
        or not any(other != place and place.is_relative_to(other) for other in found)
    ]
