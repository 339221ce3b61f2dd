"""Checks of this machine: disk, limits, channel, the payload's start."""

from __future__ import annotations

import os
import resource
import shlex
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

from espilot.adapters.channel import PayloadChannel
from espilot.adapters.disk import free_bytes
from espilot.check.campaign import Campaign, directory_of
from espilot.check.cases import IMAGINED, PLAIN, Input
from espilot.check.wishes import Result, Wishes
from espilot.config import split_input
from espilot.core.space import refuse_start
from espilot.diagnosis.subject import Fault, Nothing, Subject
from espilot.queue.store import filesystem_type, refuse_remote
from espilot.view.wording import size_text

LEAST_FILES = 256
LEAST_PROCESSES = 64
START = replace(PLAIN, about="one range, then no more", least=1, most=1, time_s=0.0)
START_S = 20.0


def check_disk(subject: Subject) -> str:
    """Work and state directory can be written, have room, and the state is on a local disk."""
    nearest = next(path for path in (subject.workdir, *subject.workdir.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise Fault(f"{nearest} is no directory in which you may write", "choose another --workdir")
    with tempfile.TemporaryFile(dir=nearest) as file:
        file.write(bytes(2**16))
    free = free_bytes(nearest)
    lack = refuse_start(free, subject.settings.limits.free_start_bytes)
    if lack:
        raise Fault(f"{nearest}: {lack}", "make room, or choose another --workdir")
    refuse_remote(subject.state)
    return f"{size_text(free)} free below {nearest} ({filesystem_type(nearest)})"


def check_limits(subject: Subject) -> str:
    """The limits of the shell leave room for a pilot and its payload."""
    del subject
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    size, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if 0 <= files < LEAST_FILES:
        raise Fault(f"only {files} open files are allowed", f"ulimit -n {LEAST_FILES * 4}")
    if 0 <= processes < LEAST_PROCESSES:
        raise Fault(f"only {processes} processes are allowed", "ulimit -u 1024")
    if size >= 0:
        raise Fault(f"files may have {size} bytes at most", "ulimit -f unlimited")
    return f"{files} open files, {processes if processes >= 0 else 'any number of'} processes"


def check_channel(subject: Subject) -> str:
    """A payload's channel can be opened."""
    del subject
    channel = PayloadChannel(f"espilot-doctor-{uuid.uuid4().hex}")
    channel.close()
    return f"can be opened ({channel.path})"


def check_payload(subject: Subject) -> str:
    """The payload starts, asks for a range, processes one, and ends."""
    payload = subject.settings.payload
    text = payload.exec or payload.command
    if not text:
        raise Nothing("no payload is configured; jobs bring their own")
    if payload.ranges == "channel" and payload.outputs != "reported":
        raise Nothing("its outputs are told by files, which only a run can watch")
    try:
        words = [word.replace("{jobdir}", str(subject.jobdir)) for word in shlex.split(text)]
    except ValueError as error:
        raise Fault(f"{text!r:.80}: {error}", "see payload.command and payload.exec") from None
    wishes = Wishes(
        words=tuple(words),
        exec=bool(payload.exec),
        timeout_s=START_S,
        cores=payload.cores,
        inputs=tuple(_input(each, subject.jobdir) for each in subject.settings.task.inputs)
        or (IMAGINED,),
    )
    results: list[Result] = []
    with directory_of(None) as directory:
        Campaign(wishes, [START], directory, jobs=1, on_result=results.append).run()
    findings = results[0].findings.all()
    if findings:
        fix = f"espilot check-payload -- {' '.join(wishes.words)}"
        raise Fault(f"{findings[0].kind.title}: {findings[0].text}", fix)
    return f"started, processed a range and ended in {results[0].wall_s:.1f} s"


def _input(text: str, jobdir: Path) -> Input:
    path, events = split_input(text)
    return Input(str(jobdir / path), events or 1)
