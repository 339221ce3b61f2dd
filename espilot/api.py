"""The event engine as a library: another program runs a payload over event ranges of its own.

    from espilot.api import EventEngine, EventRange, Outcome

    class Work:
        def get_event_ranges(self, n):            # first hook: ranges in
            return [EventRange(...), ...]         # [] when there are no more

        def handle_output(self, outcome):         # second hook: outputs out
            print(outcome.id, outcome.state, outcome.paths)

    result = EventEngine(["./payload"], Work(), "work").run()

The engine starts the payload, speaks either dialect with it, restarts it when it crashes, and gives
what it had in hand to the next. What happened to ranges is kept on disk in the work directory: when
this process dies, at whatever instant, its payload ends with it, and the next run on the same
directory tells every outcome that was not handled and goes on with the ranges that had none.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espilot.config import Settings, read_settings
from espilot.engine.hooks import Hooks, Outcome
from espilot.engine.run import EngineRun, Result
from espilot.errors import EspilotError, LocalError, PayloadError, UsageError
from espilot.model import EventRange
from espilot.supervisor.statedir import StateDir
from espilot.workers.context import Context

__all__ = [
    "EspilotError",
    "EventEngine",
    "EventRange",
    "Hooks",
    "LocalError",
    "Outcome",
    "PayloadError",
    "Result",
    "UsageError",
]

ORIGIN = "EventEngine"
"""Where settings come from, for errors."""


class EventEngine:
    """One payload, two hooks, one directory.

    `command` is the payload's argument vector, without a shell; `{cores}`, `{channel}` and
    `{workdir}` in it are replaced. `hooks` has the methods of `Hooks`. `workdir` belongs to the
    engine; outputs appear below it and are the program's when they are handled, log and state
    stay. `output_names` are the names of the outputs, one per stream. `settings` are keys of the
    section [payload] of `espilot.toml`, as `{"cores": 4, "outputs": "renamed"}`.

    `UsageError` names what is wrong with these.
    """

    def __init__(
        self,
        command: Sequence[str],
        hooks: Hooks,
        workdir: str | Path,
        *,
        output_names: Sequence[str] = ("output",),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(command, str) or not command:
            raise UsageError("command must be a list: the program and its arguments")
        if isinstance(output_names, str) or not output_names:
            raise UsageError("output_names must be a list with at least one name")
        for name in ("get_event_ranges", "handle_output"):
            if not callable(getattr(hooks, name, None)):
                raise UsageError(f"hooks must have a method {name}")
        if forbidden := {"command", "exec"} & set(settings or ()):
            raise UsageError(f"settings: {min(forbidden)} is what the argument `command` is for")
        payload = {"exit_grace_s": 60.0, **(settings or {}), "command": shlex.join(command)}
        # A control group would have the program around us moved aside.
        table = {"payload": payload, "limits": {"control_groups": "no"}}
        self._settings = read_settings(table, ORIGIN)
        self._hooks = hooks
        self._workdir = Path(workdir).absolute()
        self._output_names = tuple(output_names)
        self._run: EngineRun | None = None
        self._stop_s: float | None = None

    def run(self) -> Result:
        """Run until there are no more ranges and every outcome was handled; blocks.

        What a hook raises is raised here, when the payload has ended; outcomes that were not
        handled stay in the work directory for the next run. Other errors: `PayloadError`, the
        payload cannot be started or dies too often; `LocalError`, the directory cannot be used, or
        another engine uses it. Ranges that are left after an error stay too.
        """
        state_dir = StateDir(self._workdir / "state")
        try:
            return self._run_in(make_context(self._workdir, self._settings, state_dir))
        finally:
            state_dir.close()

    def stop(self, grace_s: float = 30.0) -> None:
        """End the run early and in good order; returns at once, from any thread or signal handler.

        No range is handed out any more. The payload hears so, and what is in work has `grace_s` to
        end; then the payload is ended. Outcomes are handled as always, and `run()` returns with
        the ids of the ranges that nobody has processed.
        """
        self._stop_s = grace_s
        if self._run is not None:
            self._run.stop(grace_s)

    def _run_in(self, context: Context) -> Result:
        run = EngineRun(context, self._hooks, self._output_names)
        self._run = run
        try:
            if self._stop_s is not None:
                run.stop(self._stop_s)
            return run.run()
        finally:
            self._run = None
            run.close()


def make_context(workdir: Path, settings: Settings, state_dir: StateDir) -> Context:
    """Where things are; makes the directory of the log."""
    context = Context(
        workdir=workdir,
        state=state_dir.path,
        runtime=state_dir.runtime,
        storage="",
        settings=settings,
        jobdir=Path.cwd(),
    )
    try:
        context.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make the work directory {workdir}: {error.strerror}") from error
    return context
