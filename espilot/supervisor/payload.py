"""The payload as a child of the supervisor: command line, environment, launcher, result."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from espilot.adapters import process
from espilot.adapters.proctree import (
    Process,
    TreeSample,
    TreeSampler,
    descendants,
    is_same,
    kill_until_gone,
    members,
)
from espilot.adapters.state_files import read_job
from espilot.config import PayloadConfig, Settings, credential_variables, split_input
from espilot.errors import ConfigError, LocalError
from espilot.supervisor import launcher
from espilot.supervisor.container import container_prefix
from espilot.supervisor.launcher_options import RUN_ID_VARIABLE
from espilot.supervisor.payload_group import GroupMaker, make_group
from espilot.supervisor.payload_names import stock_names
from espilot.supervisor.roles import PACKAGE_ROOT, python_environment
from espilot.supervisor.statedir import note_payload
from espilot.supervisor.transformation import event_command, replace_all
from espilot.workers.context import Context
from espilot.workers.inputs import input_places, inputs_to_fetch

PRIVATE_VARIABLES = (
    "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID",
    "CREDENTIALS_DIRECTORY", "PANDA_AUTH_TOKEN", "OIDC_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "S3_SECRET_KEY", "S3_ACCESS_KEY",
)  # fmt: skip
"""The pilot's own; a payload has no use for them."""
_MANAGER = ("NOTIFY", "WATCHDOG", "LISTEN")
"""How the variables begin by which a service manager speaks with us alone."""
NOTICE_S = "2"
"""What a directory watch needs at most to notice an output, in seconds."""
OUTER_GRACE_S = 15.0
"""Beyond the launcher's own ladder; then the launcher itself is killed."""


class PayloadProcess:
    """One start of the payload."""

    def __init__(
        self,
        context: Context,
        *,
        epoch: int,
        channel: str,
        death_fd: int,
        kind: str = "event",
        groups: GroupMaker | None = None,
    ) -> None:
        self.epoch = epoch
        self.directory = context.payload_dir(epoch)
        self.run_id = f"{uuid.uuid4().hex}-{epoch}"
        self._result = self.directory / ".result.json"
        self._config = context.settings.payload
        is_event = kind == "event"
        env = payload_environment(context, epoch, channel, self.run_id)
        inside = container_of(context, self.directory, channel, env)
        argv = launcher.command(
            event_argv(context, channel, inside) if is_event else executor_command(context, epoch),
            directory=self.directory,
            result=self._result,
            death_fd=death_fd,
            grace_s=self._config.term_grace_s,
            remove=[Path(f"/tmp/zmq_{channel}"), context.runtime],
        )
        if not is_event:
            env = executor_environment(self.run_id)
        elif fetches(context):
            env = executor_environment(self.run_id) | env
        group = groups.path(self.run_id) if groups is not None else None
        self._prepare(context, group)
        self.group = make_group(group)
        if self.group is not None:
            argv = launcher.in_group(argv, self.group.path)
        self.started = time.monotonic()
        with context.log_file.open("ab") as log_file:
            self.child = process.spawn(
                argv,
                env=env,
                pass_fds=(death_fd,),
                stdout=log_file.fileno(),
                stderr=log_file.fileno(),
            )
        self.kill_at: float | None = None
        self._sampler = TreeSampler(self.child.pid)

    def _prepare(self, context: Context, group: Path | None) -> None:
        """Make its directory, and write down how it is found; `LocalError` on a full disk."""
        try:
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._result.unlink(missing_ok=True)
            note_payload(context.state, run_id=self.run_id, group=group)
        except OSError as error:
            raise LocalError(
                f"cannot prepare a start of the payload in {self.directory}: {error.strerror}; "
                "free some space there and in the state directory"
            ) from error

    def terminate(self, now: float) -> None:
        """Have the whole tree ended; the launcher does it."""
        self.child.signal(signal.SIGTERM)
        self.kill_at = now + self._config.term_grace_s + OUTER_GRACE_S

    def kill(self) -> None:
        """The launcher does not do its work: KILL it, and then what it leaves."""
        self.child.signal(signal.SIGKILL)

    def sweep(self) -> int:
        """End whatever of its tree is left after the launcher; returns how many processes."""
        found = members(self.child.pid, self.run_id)
        if not found:
            return 0
        killed, _ = kill_until_gone(lambda: members(self.child.pid, self.run_id), 5.0)
        return killed

    def sample(self) -> TreeSample:
        """CPU and memory of its tree."""
        return self._sampler.sample()

    def logs(self) -> list[Path]:
        """Its stdout and stderr."""
        return [self.directory / "payload.stdout", self.directory / "payload.stderr"]

    def result(self) -> dict[str, object]:
        """What the launcher wrote; empty when it could not."""
        try:
            result = json.loads(self._result.read_text())
        except (OSError, ValueError):
            return {}
        return result if isinstance(result, dict) else {}

    def describe_end(self, launcher_code: int) -> str:
        """How it ended, in words."""
        result = self.result()
        if not result:
            return f"its launcher ended first ({process.describe_exit(launcher_code)})"
        if result.get("error"):
            return str(result["error"])
        number = result.get("signal")
        code = -int(str(number)) if number is not None else int(str(result.get("exit_code") or 0))
        return process.describe_exit(code)

    @property
    def start_error(self) -> str:
        """Why it could not be started at all; "" when it was."""
        return str(self.result().get("error") or "")


def inherited_processes() -> tuple[Process, ...]:
    """What is below us before we have started anything: whoever became us by exec started it."""
    return tuple(descendants(os.getpid()))


def sweep_strangers(known: set[int], inherited: Sequence[Process] = ()) -> int:
    """KILL what became our child because its launcher died; returns how many processes."""

    def strangers() -> list[Process]:
        spared = known | {p.pid for p in inherited if is_same(p)}
        ours = spared | {p.pid for pid in spared for p in descendants(pid)}
        return [p for p in descendants(os.getpid()) if p.alive and p.pid not in ours]

    if not strangers():
        return 0
    killed, _ = kill_until_gone(strangers, 5.0)
    return killed


def payload_command(context: Context, channel: str) -> list[str]:
    """The payload's arguments, placeholders replaced; `ConfigError` names what is wrong.

    Where the settings name none, it is what the job's definition asks for.
    """
    config = context.settings.payload
    job = None if config.command or config.exec else read_job(context.job_file)
    if job is not None:
        argv = event_command(context, job.definition, input_places(context, job))
        return _behind_runner(config, argv)
    if bool(config.command) == bool(config.exec):
        raise ConfigError("the job needs one of payload.command and payload.exec")
    if config.exec and (config.ranges, config.outputs) != ("channel", "reported"):
        raise ConfigError(
            "payload.ranges and payload.outputs are for payload.command, not for exec"
        )
    text = config.command or config.exec
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"payload.command {text!r}: {error}") from None
    values = {
        "{python}": sys.executable,
        "{jobdir}": str(context.jobdir),
        "{workdir}": str(context.workdir),
        "{cores}": str(config.cores),
        "{channel}": channel,
        "{task}": context.settings.task.name,
        "{taskID}": str(context.task_id),
    }
    argv = [replace_all(word, values) for word in words]
    return _behind_runner(config, argv)


def _behind_runner(config: PayloadConfig, argv: list[str]) -> list[str]:
    """The command of our runner, for a payload that does not speak with us itself."""
    runner = [sys.executable, "-P", "-m"]
    if config.exec:
        runner += ["espilot.payload.exec_runner", "--processes", str(config.cores)]
    elif config.ranges == "file":
        runner += ["espilot.payload.file_runner", "--ranges", str(config.max_held)]
        runner += ["--notice-s", "0" if config.outputs == "reported" else NOTICE_S]
    else:
        return argv
    return [*runner, "--", *argv]


def container_of(
    context: Context, directory: Path, channel: str, env: Mapping[str, str]
) -> list[str]:
    """What runs the payload in a container: it sees its work, the channel, inputs, our package."""
    inputs = [context.jobdir / split_input(text)[0] for text in context.settings.task.inputs]
    places = [context.workdir, context.jobdir, *(path.parent for path in inputs), PACKAGE_ROOT]
    places += [Path(f"/tmp/zmq_{channel}")] if channel else []
    return container_prefix(
        context.settings.payload.container,
        directory=directory,
        workdir=context.workdir,
        places=places,
        env=env,
    )


def fetches(context: Context) -> bool:
    """Whether inputs are brought here before the payload of the present event job starts."""
    job = read_job(context.job_file)
    return job is not None and bool(inputs_to_fetch(context, job))


def event_argv(context: Context, channel: str, inside: Sequence[str] = ()) -> list[str]:
    """The command of an event job's payload, behind its stage-in if there is one.

    `inside` is what runs it in a container: of a payload without protocol each of its commands.
    """
    argv = payload_command(context, channel)
    config = context.settings.payload
    place = argv.index("--") + 1 if config.exec or config.ranges == "file" else 0
    argv[place:place] = inside
    if not fetches(context):
        return argv
    context_file = note_context(context)
    return [sys.executable, "-P", "-m", "espilot.executors.fetch", context_file, "--", *argv]


def note_context(context: Context) -> str:
    """Write the context for an executor; the path of the file."""
    path = context.runtime / "context-executor.json"
    context.write(path)
    return str(path)


def executor_command(context: Context, epoch: int) -> list[str]:
    """The command of the executor of a job that is not of events; it finds the job in the state."""
    context_file = note_context(context)
    return [sys.executable, "-P", "-m", "espilot.executors", context_file, str(epoch)]


def executor_environment(run_id: str) -> dict[str, str]:
    """What an executor gets: all that we have, as it uses the storages; its payload gets less."""
    private = {name for name in PRIVATE_VARIABLES if name.startswith(_MANAGER)}
    env = {k: v for k, v in python_environment().items() if k not in private}
    return env | {RUN_ID_VARIABLE: run_id}


def without_secrets(env: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """An environment without what is the pilot's own, and without credentials."""
    private = {*PRIVATE_VARIABLES, *credential_variables(settings)}
    return {name: value for name, value in env.items() if name not in private}


def payload_environment(context: Context, epoch: int, channel: str, run_id: str) -> dict[str, str]:
    """What the payload gets: our environment without the pilot's own, and how to reach us."""
    env = without_secrets(python_environment(), context.settings)
    config: PayloadConfig = context.settings.payload
    env |= {
        RUN_ID_VARIABLE: run_id,
        **stock_names(context, read_job(context.job_file), channel),
        "ESPILOT_CORES": str(config.cores),
        "ESPILOT_OUTPUT_DIR": str(context.payload_dir(epoch)),
        "ESPILOT_TASK": context.settings.task.name,
        "ESPILOT_TASK_ID": str(context.task_id),
    }
    env.setdefault("ATHENA_PROC_NUMBER", str(config.cores))
    return env
