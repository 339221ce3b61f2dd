"""Spares of pilots that work for a server of somebody else, and spares that cannot be recovered."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.adapters.state_files import write_job
from espilot.cli import recover
from espilot.cli.main import main
from espilot.config import read_settings
from espilot.errors import LocalError
from espilot.model import Job
from espilot.supervisor import recovery_layout as layout
from espilot.supervisor.intake import take_in
from espilot.supervisor.resume import note_run
from espilot.supervisor.statedir import StateDir
from espilot.workers.context import Context

URLS = ["https://panda.example:25443", "harvester:/shared/access"]


def make_spare(directory: Path, url: str) -> Path:
    """What a pilot at this server has spared of job 77."""
    spare, state = directory / "spares" / "77-abc", directory / "orig"
    (spare / layout.ARCHIVES).mkdir(parents=True)
    (spare / layout.ARCHIVES / "one.tar").write_bytes(b"tar")
    state.mkdir()
    settings = read_settings({"server": {"url": url, "site": "Q"}}, "x")
    context = Context(
        directory / "w", state, directory, "/data/out", settings,
        server_url=url, at_server=url.startswith("https:"),
    )  # fmt: skip
    note_run(context, "running", run="abc")
    (spare / layout.RUN).write_bytes((state / layout.RUN).read_bytes())
    write_job(spare / layout.JOB, Job(77, 1, 1, 1, 1, ("o",), ""))
    return spare


@pytest.mark.parametrize("url", URLS)
def test_a_spare_of_a_foreign_servers_job_is_taken_in(tmp_path: Path, url: str) -> None:
    """There is no database of a server of ours, and none is looked for."""
    spare = make_spare(tmp_path, url)
    state = StateDir(tmp_path / "new")
    try:
        context = take_in(spare, state)
    finally:
        state.close()
    assert (context.server_url, context.origin, context.jobs) == (url, None, False)
    assert (context.archives / "one.tar").read_bytes() == b"tar"
    assert context.job_file.is_file()


def test_one_bad_spare_keeps_no_other_from_its_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is tried, the bad one is named, and the code is the worst one."""
    names = ("11-a", "22-b", "33-c")
    for name in names:
        (tmp_path / "spares" / name / layout.ARCHIVES).mkdir(parents=True)
        for file in (layout.JOB, layout.RUN):
            (tmp_path / "spares" / name / file).write_text("{}")
    tried: list[str] = []

    def recovered(spare: Path, base: Path, *, as_json: bool) -> int:
        tried.append(spare.name)
        if spare.name == "11-a":
            raise LocalError("its disk is broken")
        return 0

    monkeypatch.setattr(recover, "recover_spare", recovered)
    code = main(["recover", str(tmp_path / "spares"), "--state-dir", str(tmp_path / "t")])
    assert (code, tuple(tried)) == (73, names)
    assert "11-a: its disk is broken" in capsys.readouterr().err
