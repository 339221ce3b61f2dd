"""`espilot run --local --events N -- COMMAND`: a program of one's own, without a job file."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from espilot.cli.command_words import absolute_words, is_template, require_program, split_words
from espilot.config import PackingConfig, PayloadConfig, Settings, TaskConfig
from espilot.errors import UsageError
from espilot.payload.template import OUTPUT, parse_template

NO_FILE = Path()
"""`--local` without a job file."""
LOCAL = "--local"
RANGES = "{ranges}"
"""Marks a command that reads files of ranges."""
PACKING = PackingConfig(max_ranges=100, max_age_s=10.0)
"""Outputs of a try are safe soon."""
_NAME_CHARS = 60


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a run of one's own command."""
    group = parser.add_argument_group("your own command, or for --local other values than its file")
    group.add_argument("--events", type=_positive, metavar="N", help="number of events")
    group.add_argument(
        "--per-range", type=_positive, metavar="N", help="events in one range (default: 1)"
    )
    group.add_argument(
        "--cores",
        type=_positive,
        metavar="N",
        help="processes that work at the same time (default for a command: all of this machine)",
    )
    group.add_argument(
        "--name", metavar="NAME", help="name of the task (default: that of the program)"
    )
    group.add_argument(
        "--unpack",
        action="store_true",
        help="at the end, unpack the outputs of all archives below WORKDIR/outputs",
    )
    group.add_argument(
        "words",
        nargs="*",
        metavar="COMMAND",
        help="after `--`: the program and its arguments. With {startEvent}, {lastEvent} and "
        "{output} in them it is run once for each range, with {ranges} once for each file of "
        "ranges; without, it speaks the payload protocol",
    )


def mark_no_file(argv: Sequence[str]) -> list[str]:
    """The command line with `--local --` such that the command is not taken for a job file."""
    words = list(argv)
    end = words.index("--") if "--" in words else 0
    if end and words[end - 1] == LOCAL:
        words[end - 1] = f"{LOCAL}="
    return words


def take(args: argparse.Namespace) -> Settings | None:
    """The settings of a run of one's own command; None when none is given.

    From then on `args.local` names a file of the current directory, as if it were the job file.
    """
    if not args.words:
        if args.local == NO_FILE:
            raise UsageError("--local needs a job file, or a command: --events N -- COMMAND")
        return None
    if args.local not in (None, NO_FILE):
        raise UsageError(f"both a job file ({args.local}) and a command; give one of them")
    if args.job is not None:
        raise UsageError("both --job and a command; give one of them")
    if args.events is None:
        raise UsageError("--events N is missing: how many events are there?")
    args.local = Path.cwd() / "command"
    return settings_of(args)


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of a run of one's own command; `UsageError` says what is wrong with it."""
    words = absolute_words(split_words(args.words))
    require_program(words)
    cores = len(os.sched_getaffinity(0))
    outputs: tuple[str, ...] = ("output",)
    payload = PayloadConfig(command=shlex.join(words), cores=cores)
    if is_template(words):
        streams = 1 + max(parse_template(_known(words)).streams)
        outputs = tuple(f"{OUTPUT}{n or ''}" for n in (0, *range(2, streams + 1)))
        payload = replace(payload, command="", exec=payload.command)
    elif any(RANGES in word for word in words):
        payload = replace(payload, ranges="file", outputs="renamed")
    task = TaskConfig(name=_name_of(words), outputs=outputs)
    return overridden(args, Settings(task=task, payload=payload, packing=PACKING))


def overridden(args: argparse.Namespace, settings: Settings) -> Settings:
    """The settings with what the command line says otherwise."""
    task, payload, packing = settings.task, settings.payload, settings.packing
    if args.events is not None:
        task = replace(task, events=args.events)
    if args.per_range is not None:
        task = replace(task, events_per_range=args.per_range)
    if args.name is not None:
        task = replace(task, name=args.name)
    if args.cores is not None:
        payload = replace(payload, cores=args.cores)
    if args.unpack:
        packing = replace(packing, unpack=True)
    return replace(settings, task=task, payload=payload, packing=packing)


def _known(words: Sequence[str]) -> tuple[str, ...]:
    """The words without the placeholders that the pilot replaces before."""
    pilots = re.compile(r"\{(?:python|jobdir|workdir|cores|channel|task|taskID)\}")
    return tuple(pilots.sub("x", word) for word in words)


def _name_of(words: Sequence[str]) -> str:
    """A name for the task: that of the program, or of the script that it is given."""
    scripts = [word for word in words[1:] if word.startswith("/") and Path(word).is_file()]
    interpreter = re.match(r"python|perl|ruby|(ba|da|z)?sh$|\{", Path(words[0]).name)
    program = scripts[0] if interpreter and scripts else words[0]
    return re.sub(r"[^A-Za-z0-9_.-]", "_", Path(program).stem)[:_NAME_CHARS].strip(".") or "command"


def _positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,11}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1 on")
    return int(text)
