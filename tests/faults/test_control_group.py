"""A pilot in a control group that was delegated to it: each payload has one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from delegation import delegated_group, members_of
from pilot_run import ESPILOT, FAKE, Run, Runner, job_text, runner_in
from run_oracle import children_of

from espilot.adapters.cgroup import PREFIX, SUPERVISOR


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def start_in(base: Path, runner: Runner, job: str) -> Run:
    """Start the pilot in a group, as a service manager would."""
    group = base / SUPERVISOR if (base / SUPERVISOR).is_dir() else base
    join = f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
    return runner.start(job, program=["sh", "-c", join, "sh", *ESPILOT])


def payload_groups(base: Path) -> list[Path]:
    return list(base.glob(f"{PREFIX}*"))


def test_payload_has_a_group_and_a_killed_pilot_leaves_none(runner: Runner) -> None:
    """Pilot and workers are in one group, the payload in another; both ends leave nothing of it."""
    job = job_text(f"{FAKE} --clients 2 --delay-ms 20", events=300)
    with delegated_group() as base:
        run = start_in(base, runner, job)
        run.wait_booked(20)
        (group,) = payload_groups(base)
        payload = run.pid_of("payload")
        assert payload is not None
        assert members_of(group) == {payload, *children_of(payload)}
        launcher = run.pid_of("launcher")
        assert {run.process.pid, launcher, run.pid_of("stageout")} <= members_of(base / SUPERVISOR)
        assert str(group) in run.log
        # The launcher first: it would remove the group itself.
        run.kill("launcher")
        run.kill("supervisor")
        run.end()
        run = start_in(base, runner, job)
        run.require_finished(300)
        assert payload_groups(base) == []
        assert members_of(base / SUPERVISOR) == set()


def test_no_group_where_none_is_wanted(runner: Runner) -> None:
    """The setting keeps the pilot where it was started."""
    job = job_text(f"{FAKE} --clients 2", events=50, limits={"control_groups": "no"})
    with delegated_group() as base:
        run = start_in(base, runner, job)
        run.require_finished(50)
        assert not [path for path in base.iterdir() if path.is_dir()]
        assert "group=none" in run.log
