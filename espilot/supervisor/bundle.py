"""One archive for support: what a run left to be looked at, without its secrets.

Only named kinds of files are taken, without following links: a payload may have put anything into
its directory. Every text passes `view/redaction.py`.
"""

from __future__ import annotations

import io
import json
import os
import platform
import resource
import stat
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from espilot import __version__
from espilot.adapters.disk import free_bytes
from espilot.adapters.state_files import read_object
from espilot.errors import EspilotError, LocalError
from espilot.foreign_files import open_regular, walk_files
from espilot.supervisor.bundle_sources import group_text, journal_text, queue_lines
from espilot.supervisor.observation import living_pilot, observe
from espilot.supervisor.resume import read_run
from espilot.view.redaction import redact, redact_document
from espilot.view.snapshot import as_document
from espilot.workers.known_secrets import secrets_of

HEAD_BYTES = 2**18
TAIL_BYTES = 2**22
"""Of a longer file, its head and its tail are taken."""
MOST_LISTED = 20_000
PAYLOADS = 5
"""Starts of the payload whose output is taken, the newest."""
PACKAGES = (
    "pyzmq", "msgpack", "lmdb", "requests", "urllib3", "ijson", "boto3", "rich", "aiohttp",
)  # fmt: skip
README = """\
Support bundle of espilot {version}, made {time} UTC.

status.json     how the run stands, as `espilot status --json` says
machine.json    versions, limits, free space
files.txt       names and sizes of all files of the run, not their content
state/          the run, its job, the story of its ranges; queue.jsonl: what is in the queue
cgroup.txt      figures of the pilot's control group, where there are some
journal.txt     what the journal of the machine has of a service
logs/           the pilot's log
payload-N/      stdout and stderr of the payload

Secrets were replaced by [removed], by their names and forms. Look through it before you pass it on:
no rule knows everything that a payload may print.
"""


def write_bundle(state: Path, target: Path, environ: Mapping[str, str], *, now: float) -> list[str]:
    """Write the bundle of the run in a state directory; the names of what is in it.

    Errors: `LocalError` when it cannot be written.
    """
    run = read_run(state)
    workdir = Path(str(run.get("workdir") or state.parent))
    known = secrets_of(run, environ)
    temporary = target.with_name(f".{target.name}.tmp")
    root = target.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o600)
        with open(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:  # noqa: PTH123
            names = [
                _add(tar, f"{root}/{name}", redact(text, known), now)
                for name, text in _members(state, workdir, now)
            ]
        temporary.replace(target)
    except OSError as error:
        raise LocalError(
            f"cannot write {target}: {error.strerror}; choose another --output"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return names


def _members(state: Path, workdir: Path, now: float) -> Iterator[tuple[str, str]]:
    """Name and text of each member."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
    yield "README.txt", README.format(version=__version__, time=when)
    try:
        status = as_document(observe(state, now=now))
    except EspilotError as error:
        status = {"error": str(error)}
    yield "status.json", json.dumps(status, indent=1)
    yield "machine.json", json.dumps(_machine(workdir), indent=1)
    yield "files.txt", "".join(_listing([workdir, state]))
    yield "state/queue.jsonl", "".join(queue_lines(state))
    asked = {
        "cgroup.txt": group_text(living_pilot(state)),
        "journal.txt": journal_text(read_run(state)),
    }
    yield from ((name, text) for name, text in asked.items() if text)
    for path in sorted(state.glob("*.json")):
        yield f"state/{path.name}", json.dumps(redact_document(read_object(path)), indent=1)
    for name, path in _files(state, workdir):
        text = _read(path, HEAD_BYTES, TAIL_BYTES)
        if text is not None:
            yield name, text


def _files(state: Path, workdir: Path) -> Iterator[tuple[str, Path]]:
    yield from ((f"state/{path.name}", path) for path in sorted(state.glob("*.jsonl*")))
    yield from ((f"logs/{path.name}", path) for path in sorted((workdir / "logs").glob("*")))
    starts = sorted(workdir.glob("payload-*"), key=lambda path: (len(path.name), path.name))
    for directory in starts[-PAYLOADS:]:
        for path in sorted(directory.glob("payload.std*")):
            yield f"{directory.name}/{path.name}", path


def _read(path: Path, head_bytes: int, tail_bytes: int) -> str | None:
    """Head and tail of a regular file, cut at line ends; None when it is none or cannot be read."""
    try:
        file = open_regular(path)
    except OSError:
        return None
    with file:
        facts = os.fstat(file.fileno())
        head = file.read(head_bytes)
        cut_bytes = facts.st_size - len(head) - tail_bytes
        if cut_bytes > 0:
            file.seek(-tail_bytes, os.SEEK_END)
            # A line that begins in the gap may be half a secret, which no rule would know.
            file.readline()
            head = head[: head.rfind(b"\n") + 1] + f"... {cut_bytes} bytes left out ...\n".encode()
        return (head + file.read(tail_bytes)).decode("utf-8", "replace")


def _listing(roots: list[Path]) -> Iterator[str]:
    """Mode, size, time and path of files, up to a number of them."""
    left = MOST_LISTED
    for root in roots:
        for parent, names in walk_files(root):
            for name in names:
                if not left:
                    yield "... and more\n"
                    return
                left -= 1
                yield _line_of(f"{parent}/{name}")


def _line_of(path: str) -> str:
    try:
        facts = os.lstat(path)
    except OSError as error:
        return f"{error.strerror}: {path!a}\n"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(facts.st_mtime))
    return f"{stat.filemode(facts.st_mode)} {facts.st_size:>14} {stamp} {path!a}\n"


def _machine(workdir: Path) -> dict[str, Any]:
    """Versions, limits, space."""
    limits = {
        name.removeprefix("RLIMIT_"): resource.getrlimit(getattr(resource, name))
        for name in dir(resource) if name.startswith("RLIMIT_")
    }  # fmt: skip
    return {
        "espilot": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "packages": {name: _version(name) for name in PACKAGES},
        "limits": limits,
        "free_bytes": free_bytes(workdir) if workdir.is_dir() else None,
        "cgroup": _read(Path("/proc/self/cgroup"), 4096, 0),
        "mounts": _read(Path("/proc/self/mounts"), 2**16, 0),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _add(tar: tarfile.TarFile, name: str, text: str, now: float) -> str:
    data = text.encode("utf-8", "replace")
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(data), int(now), 0o600
    tar.addfile(member, io.BytesIO(data))
    return name
