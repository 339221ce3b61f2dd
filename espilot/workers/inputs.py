"""Where the inputs of a job lie, and where its payload finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espilot.adapters.input_cache import InputCache
from espilot.adapters.storage.posix import PosixStorage
from espilot.config import split_input
from espilot.errors import InputError
from espilot.model import Job
from espilot.ports import Storage
from espilot.wire.jobfiles import JobInput, read_inputs
from espilot.wire.queue_overrides import direct_access, split_overrides
from espilot.workers.access_point import access_point
from espilot.workers.context import Context
from espilot.workers.storages import storages_for


@dataclass(frozen=True, slots=True)
class Sources:
    """Where inputs may lie: storages by the name of their endpoint, in the order of their use, and
    files of this machine by their LFN, which come before all; a cache may have some of them."""

    storages: Mapping[str, Storage]
    local: Mapping[str, Path]
    cache: InputCache | None = None

    def of(self, wanted: JobInput) -> list[Storage]:
        """The storages to try, the likeliest first."""
        local = self.local.get(wanted.lfn)
        if local is not None:
            return [PosixStorage(local.parent, 0)]
        return list(dict.fromkeys([*self.named(wanted), *self.storages.values()]))

    def named(self, wanted: JobInput) -> list[Storage]:
        """Those where the job says that the input is."""
        named = [s for name, s in self.storages.items() if name == wanted.endpoint]
        numbered = [s for s in self.storages.values() if s.storage_id == wanted.storage_id]
        return list(dict.fromkeys([*named, *numbered]))

    def address_of(self, wanted: JobInput) -> str:
        """A path or URL at which a payload can read the input itself.

        Errors: `InputError` when no storage is known.
        """
        if wanted.lfn in self.local:
            return str(self.local[wanted.lfn])
        storage = next(iter(self.of(wanted)), None)
        if storage is None:
            raise InputError(f"input {wanted.lfn}: no storage is known")
        if isinstance(storage, PosixStorage):
            return str(storage.directory / wanted.lfn)
        return storage.url_of(wanted.lfn)


def sources_of(context: Context, job: Job, inputs: Sequence[JobInput]) -> Sources:
    """The sources of a job's inputs. A merge job has none on this machine."""
    activity = "es_events_read" if job.kind == "merge" else "pr"
    storages = storages_for(context.settings, context.storage, context.jobdir, activity)
    if job.kind == "merge":
        return Sources(storages, {})
    config = context.settings.stagein
    cache = InputCache(context.jobdir / config.cache, config.cache_bytes) if config.cache else None
    return Sources(storages, local_files(context, inputs), cache)


def local_files(context: Context, inputs: Sequence[JobInput]) -> dict[str, Path]:
    """Inputs on this machine, by LFN: those that the settings name, or beside the job file.

    Links stay links: what a link leads to may have another name than the input.
    """
    paths = [split_input(text)[0] for text in context.settings.task.inputs]
    named = {Path(path).name: context.jobdir / path for path in paths}
    beside = {each.lfn: context.jobdir / each.lfn for each in inputs}
    wanted = {each.lfn for each in inputs}
    found = {lfn: path for lfn, path in (beside | named).items() if lfn in wanted}
    return {lfn: path.absolute() for lfn, path in found.items() if path.is_file()}


def is_direct(context: Context, job: Job) -> bool:
    """Whether the payload reads its inputs where they are; Harvester has brought them near."""
    if job.definition.get("transferType") == "direct" or access_point(context.server_url):
        return True
    _, overrides = split_overrides(str(job.definition.get("jobPars") or ""))
    own = direct_access(overrides)
    return context.settings.stagein.access == "direct" if own is None else own


def known_inputs(context: Context, job: Job) -> tuple[JobInput, ...]:
    """The inputs of an event job that are files: here, or with size and checksum elsewhere.

    A generator's job names an input that nobody has.
    """
    inputs = read_inputs(job.definition)
    local = local_files(context, inputs)
    return tuple(
        each
        for each in inputs
        if each.lfn in local or (each.size_bytes is not None and (each.adler32 or each.md5))
    )


def inputs_to_fetch(context: Context, job: Job) -> tuple[JobInput, ...]:
    """The inputs of an event job that are brought to this node before its payload starts."""
    return () if is_direct(context, job) else known_inputs(context, job)


def input_places(context: Context, job: Job) -> dict[str, str]:
    """Where the payload of an event job finds its inputs, by LFN: a path, or a URL.

    Beside Harvester these are the links that it makes in the access point.
    """
    place = access_point(context.server_url)
    if place is not None:
        return {each.lfn: str(place / each.lfn) for each in read_inputs(job.definition)}
    inputs = known_inputs(context, job)
    if not is_direct(context, job):
        return {each.lfn: str(context.inputs / each.lfn) for each in inputs}
    local = local_files(context, inputs)
    remote = [each for each in inputs if each.lfn not in local]
    sources = sources_of(context, job, remote) if remote else Sources({}, {})
    places = {lfn: str(path) for lfn, path in local.items()}
    return places | {each.lfn: sources.address_of(each) for each in remote}
