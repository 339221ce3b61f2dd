"""A payload in a container that shares nothing but what it is given: the channel works inside."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pilot_run import FAKE, Runner, job_text, runner_in

BOX = """\
#!/bin/bash
# box SYSTEM_PLACE... [--bind PLACE]... [--env NAME=VALUE]... --pwd DIR -- COMMAND...
# A root of its own with the system read from outside, its own /tmp and processes.
if [ "$1" != inside ]; then exec unshare --mount --pid --fork --kill-child bash "$0" inside "$@"; fi
shift
mount -t tmpfs box /mnt
mkdir /mnt/tmp /mnt/proc && mount -t proc proc /mnt/proc
bind() {
  [ -e "/mnt$1" ] && return
  if [ -L "$1" ]; then ln -s "$(readlink "$1")" "/mnt$1"; return; fi
  if [ -d "$1" ]; then mkdir -p "/mnt$1"; else mkdir -p "$(dirname "/mnt$1")"; touch "/mnt$1"; fi
  mount --rbind "$1" "/mnt$1"
}
envs=()
while [ "$1" != -- ]; do
  case $1 in
    --bind) bind "$2"; shift 2;;
    --env) envs+=("$2"); shift 2;;
    --pwd) pwd=$2; shift 2;;
    *) bind "$1"; shift;;
  esac
done
shift
touch /mnt/tmp/this-is-the-box
exec env -i PATH="$PATH" "${envs[@]}" chroot /mnt sh -c 'cd "$0" && exec "$@"' "$pwd" "$@"
"""
EVENTS = 60
SYSTEM = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/dev", sys.base_prefix]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="NO CONTAINER TEST: it needs root and unshare",
)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def boxed(directory: Path, **payload: str) -> str:
    """A job whose payload runs in the box."""
    box = directory / "box.sh"
    box.write_text(BOX)
    system = " ".join(place for place in SYSTEM if Path(place).exists())
    container = f"bash {box} {system} --bind {{mount}} --env {{env}} --pwd {{directory}} --"
    return job_text("", events=EVENTS, payload={"container": container, **payload})


def test_a_payload_on_the_channel(tmp_path: Path, runner: Runner) -> None:
    """The channel's socket, the work directory and the variables are there: the job is done."""
    run = runner.start(boxed(tmp_path, command=f"{FAKE} --clients 2 --delay-ms 10"))
    run.require_finished(EVENTS)


def test_a_command_for_each_range(tmp_path: Path, runner: Runner) -> None:
    """Commands of a payload without protocol each run inside, with another /tmp than ours."""
    run = runner.start(boxed(tmp_path, command="", exec="sh -c 'ls /tmp > {output}'"))
    assert run.end() == 0, run.log[-3000:]
    account = run.account()
    done = account.with_fate("finished")
    assert len(done) == EVENTS
    names = next(iter(account.content_of(done[0].id).values())).decode().split()
    assert "this-is-the-box" in names and not any(n.startswith("espilot-") for n in names)


def test_a_drain_ends_what_is_inside(tmp_path: Path, runner: Runner) -> None:
    """A drain stops the payload in its container, and nothing of it is left."""
    run = runner.start(boxed(tmp_path, command=f"{FAKE} --clients 2 --delay-ms 100"))
    run.wait_booked(5)
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.end() == 3
    account = run.account()
    assert len(account.with_fate("finished")) >= 5
