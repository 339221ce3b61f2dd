"""The options of a stock pilot and of its wrapper, and how a command line of them is read.

Rules: both `--opt V` and `--opt=V`; booleans are words; of repeated options the last counts; what
is unknown is named and ignored, because a newer factory must not end the pilot.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Any

from espilot.config_origin import FALSE_WORDS, TRUE_WORDS, read_bool, read_word
from espilot.errors import UsageError

WORKFLOWS = ("generic", "generic_hpc", "production", "production_hpc", "eventservice_hpc")
OTHER_WORKFLOWS = ("analysis", "analysis_hpc", "stager", "payload_stageout")
FIRST_GENERATION = (
    "these are options of a pilot of the first generation; say `-q {queue} --url {url} -j {label}`"
)
NUMBER = re.compile(r"-\d+(\.\d*)?")


class Kind(Enum):
    """What follows an option."""

    FLAG = "flag"
    """Nothing."""
    TEXT = "str"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    """A word for true or false; nothing means true."""


class Use(Enum):
    """What becomes of an option."""

    HONOURED = "honoured"
    ACCEPTED = "accepted"
    """It changes nothing here."""
    UNSUPPORTED = "unsupported"
    """It would change something that is not here: said once."""


@dataclass(frozen=True, slots=True)
class StockOption:
    """One option. The first long name is its name."""

    names: tuple[str, ...]
    kind: Kind
    use: Use
    doc: str

    @property
    def name(self) -> str:
        """The name under which its value is kept: `--job-type` is `job-type`."""
        return next((n for n in self.names if n.startswith("--")), self.names[0]).lstrip("-")


def _rows(text: str, use: Use) -> Iterator[StockOption]:
    """Options from a table: names, kind, what it is."""
    for line in text.strip().splitlines():
        names, kind, doc = line.split(maxsplit=2)
        yield StockOption(tuple(names.split("/")), Kind[kind.upper()], use, doc)


HONOURED = """
-q/--queue text queue whose jobs are taken
-j/--joblabel text which jobs are asked for (prodSourceLabel)
-w/--workflow text generic, production, eventservice_hpc: chosen by the job
-l/--lifetime float longest run in seconds; PANDAPILOT_LIFETIME wins
-v/--getjobrequests int requests in a row without a job after which the pilot ends
-x/--getjobfailures int failed requests in a row after which the pilot ends
-z/--noserverupdate flag no calls to a server: jobs, ranges and reports are files
-a/--workdir text below which directory to work (default: here)
--cleanup bool remove the work directory when all of it is reported
--no-pilot-log flag no pilotlog.txt
--redirect-stdout text file that takes stdout and stderr
--url text address of the server
-p/--port int its port, where the address has none
--queuedata-url text address or file of queue data, where there is no queuedata.json
--storagedata-url text the same of storage data
--use-https bool https or http
--cacert text file of accepted certificate authorities
--capath text directory of accepted certificate authorities
--job-type text which jobs are asked for
--resource-type text which jobs are asked for: SCORE, MCORE, ...
--harvester-workdir text directory of files that stands for the server
--harvester-datadir text directory in which the factory leaves pandaJobData.out, if there is one
--harvester-submit-mode text PULL asks the server for jobs, PUSH waits for pandaJobData.out
--output-dir text storage element: a directory or a URL
--es-executor-type text generic
--stageout-attempts int tries of one upload
-k/--noworkerpilotstatusupdate flag the server is not told of the worker's start and end
--exit-on-drain text exit code of a clean end after a signal: 0, or `stock` for the signal's
--exit-report text file with the exit report (default: espilot-exit.json)
--config text settings file
--instance text name of this pilot among those of the node
--state-dir text queue and sealed archives, on a local disk (default: in the work directory)
--recovery-dir text where an early end spares what the storage does not take
--strict flag unknown options are errors
"""
ACCEPTED = """
-i/--versiontag text PR, RC or ALRB: the label says which jobs
--hpc-mode text chosen by the job
--harvester-workerattributes text HARVESTER_PILOT_CONFIG names the files
--harvester-eventstatusdump text HARVESTER_PILOT_CONFIG names the files
-d/--debug flag the log in the work directory has everything
--pilot-user text experiment plug-in
-L/--leasetime int lease of a stager
-t/--noproxyverification flag proxy checks
-u/--verifypayloadproxy flag proxy checks
-y/--notokenrenewal flag token checks
-b/--nocvmfs flag checks of CVMFS
--working-group text servers ignore it
--country-group text servers ignore it
--allow-other-country bool servers ignore it
--allow-same-user bool several jobs of one user
-r/--resource text obsolete
-s/--site text obsolete
-g/--baseurls text further servers
--use-rucio-traces bool traces
--rucio-host text traces
--hpc-resource text name of a supercomputer
--pod flag in a pod
--container flag the wrapper's own
--cvmfsbase text the wrapper's own
--alma9 flag the wrapper's own
--harvester text the wrapper's own
--harvester_workflow text the wrapper's own
--mute flag the wrapper's own
--pilotversion text the wrapper's own
--pythonversion text the wrapper's own
--piloturl text the wrapper's own
--localpy flag the wrapper's own
-S/--shoal flag the wrapper's own
"""
UNSUPPORTED = """
--input-dir text inputs are read where the job says
--input-destination-dir text inputs are read where the job says
--subscribe-to-msgsvc flag no message service
--use-realtime-logging flag no logging service
--realtime-logging-server text no logging service
--realtime-logname text no logging service
"""
OPTIONS: tuple[StockOption, ...] = (
    *_rows(HONOURED, Use.HONOURED),
    *_rows(ACCEPTED, Use.ACCEPTED),
    *_rows(UNSUPPORTED, Use.UNSUPPORTED),
)
"""Every option that is known."""
BY_NAME: Mapping[str, StockOption] = {name: each for each in OPTIONS for name in each.names}


@dataclass(slots=True)
class StockCommand:
    """A command line that was read: values by option name, and what is to be warned of."""

    values: dict[str, Any] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    """The spelling of each option on the command line, for people."""
    warnings: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an option."""
        return self.values.get(name, default)


def read_stock(argv: Sequence[str]) -> StockCommand:
    """Read a command line; `UsageError` for what would be a misunderstanding."""
    command = StockCommand()
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            command.warnings.append(f"{word!r:.60} belongs to no option, ignored")
            continue
        name, text, rest = split_word(word)
        words[:0] = rest
        _take(command, name, text, words)
    _refuse_first_generation(command, argv)
    _refuse(command)
    return command


def split_word(word: str) -> tuple[str, str | None, list[str]]:
    """Name, value in the same word (None: none), and flags that were written together with it."""
    if word.startswith("--"):
        name, equals, text = word.partition("=")
        return name, text if equals else None, []
    name, rest = word[:2], word[2:]
    if not rest:
        return name, None, []
    option = BY_NAME.get(name)
    if option is None:
        return word, None, []
    if option.kind is Kind.FLAG and not rest.startswith("="):
        return name, None, [f"-{rest}"]
    return name, rest.removeprefix("="), []


def _take(command: StockCommand, name: str, text: str | None, words: list[str]) -> None:
    option = BY_NAME.get(name)
    if option is None:
        has_value = text is not None or _is_value(words)
        if text is None and has_value:
            words.pop(0)
        command.unknown.append(name)
        what = " with its value" if has_value else ""
        command.warnings.append(f"unknown option {name:.60}{what}, ignored")
        return
    if option.kind is Kind.FLAG:
        command.values[option.name] = text is None or read_bool(text, name)
    else:
        if text is None:
            text = _next(option, words)
        if text is None:
            command.warnings.append(f"{name} has no value, ignored")
            return
        command.values[option.name] = read_word(text, option.kind.value, name)
    command.given[option.name] = name
    if option.use is Use.UNSUPPORTED:
        command.warnings.append(f"{name} is not supported: {option.doc}")


def _next(option: StockOption, words: list[str]) -> str | None:
    """The following word, if it is a value."""
    if option.kind is Kind.BOOL:
        known = bool(words) and words[0].lower() in TRUE_WORDS + FALSE_WORDS
        return words.pop(0) if known else "true"
    return words.pop(0) if _is_value(words) else None


def _is_value(words: list[str]) -> bool:
    return bool(words) and (not words[0].startswith("-") or bool(NUMBER.fullmatch(words[0])))


def _refuse_first_generation(command: StockCommand, argv: Sequence[str]) -> None:
    """`UsageError` that translates the options of the first generation, where `-w` is the URL."""
    url = str(command.get("workflow", ""))
    if url.lower().startswith("http"):
        following = dict(pairwise(argv))
        queue, label = following.get("-h", "QUEUE"), following.get("-u", "managed")
        raise UsageError(FIRST_GENERATION.format(queue=queue, url=url, label=label))


def _refuse(command: StockCommand) -> None:
    """`UsageError` for workflows that we have not, and with `--strict` for unknown options."""
    workflow = str(command.get("workflow", "generic"))
    if workflow not in WORKFLOWS:
        kind = "not supported" if workflow in OTHER_WORKFLOWS else "unknown"
        raise UsageError(f"workflow {workflow!r:.40} is {kind}; there are {', '.join(WORKFLOWS)}")
    if command.get("strict") and command.unknown:
        raise UsageError(f"unknown option {command.unknown[0]!s:.60} (--strict)")


def describe() -> str:
    """All options as help text."""
    lines = ["The pilot as a factory starts it (`espilot --help` for its own commands).", ""]
    lines += ["usage: espilot -q QUEUE [OPTION...]", ""]
    for use in Use:
        lines.append(f"{use.value}:")
        for option in OPTIONS:
            if option.use is use:
                value = "" if option.kind is Kind.FLAG else f" {option.kind.name}"
                lines.append(f"  {', '.join(option.names)}{value}  {option.doc}")
        lines.append("")
    lines.append("Unknown options are named and ignored. Exit codes: espilot help exit-codes.")
    return "\n".join(lines) + "\n"
