"""The section of the settings that only a local run has: its task."""

from __future__ import annotations

from dataclasses import dataclass

from espilot.sections import setting


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """[task]: what a local run processes."""

    name: str = setting("task", "Name of the task, used in file names.")
    events: int = setting(0, "Number of events.")
    events_per_range: int = setting(1, "Events in one range.")
    outputs: tuple[str, ...] = setting(("output",), "Output names, one per output stream.")
    inputs: tuple[str, ...] = setting(
        (), "Input files, with several of them as PATH:EVENTS; none for generators."
    )
    max_attempts: int = setting(3, "Tries of one range before it counts as failed.")
    merge_transformation: str = setting(
        "", "Command that merges the outputs of a task; empty: they are not merged."
    )
    merge_parameters: str = setting(
        "", "Its arguments; `--in=@inputFor_NAME` names the list of what becomes the output NAME."
    )
    show: str = setting(
        "", "Command run when the task is finished, to check or draw what is in {storage}."
    )
    job_file: str = setting(
        "", "Job definition, JSON or form-encoded, to run instead; as espilot run --job."
    )
    task_id: int = setting(0, "Number of the task; 0 lets the server choose.")

    @property
    def total_events(self) -> int:
        """Events of the task; those of its inputs, where it does not say."""
        return self.events or sum(split_input(text)[1] or 0 for text in self.inputs)

    @property
    def total_ranges(self) -> int:
        """Ranges of the task, as if it had one input."""
        return -(-self.total_events // self.events_per_range)


def split_input(text: str) -> tuple[str, int | None]:
    """Path and number of events of one `task.inputs` entry; None where it does not say."""
    path, colon, events = text.rpartition(":")
    return (path, int(events)) if colon and events.isdecimal() else (text, None)
