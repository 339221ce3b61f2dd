"""Until when the credentials are good, as the supervisor hears it."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from espilot.adapters.http import Credentials
from espilot.adapters.loop import Loop
from espilot.workers import credential_watch
from espilot.workers.child import Child
from espilot.workers.credential_watch import CredentialWatch


def write_token(path: Path, *, left_s: float) -> float:
    """Write a token that ends then; returns the Unix time."""
    end = float(int(time.time() + left_s))
    claims = base64.urlsafe_b64encode(json.dumps({"exp": end}).encode()).rstrip(b"=").decode()
    path.with_suffix(".new").write_text(f"e30.{claims}.c2ln")
    path.with_suffix(".new").replace(path)
    return end


def watched(token: Path, loop: Loop, *, needed: bool = True) -> dict[str, Any]:
    """The facts of a worker with this token."""
    child = SimpleNamespace(facts={}, loop=loop)
    CredentialWatch(cast("Child", child), Credentials(token=token, origin="a:b"), needed=needed)
    return cast("dict[str, Any]", child.facts)


def test_renewed_token_moves_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a token is told; when the site has renewed it in place, the new one."""
    monkeypatch.setattr(credential_watch, "LOOK_S", 0.02)
    token = tmp_path / "token"
    loop = Loop()
    first = write_token(token, left_s=600)
    facts = watched(token, loop)
    assert (facts["credential_ends"], facts["credentials"]) == (first, {"token": first})
    second = write_token(token, left_s=7200)
    os.utime(token, (1, 1))
    loop.every(0.01, lambda: loop.stop() if facts["credential_ends"] == second else None)
    loop.call_later(10.0, loop.stop)
    loop.run()
    assert (facts["credential_ends"], facts["credentials"]) == (second, {"token": second})


@pytest.mark.parametrize(("left_s", "needed"), [(-60, True), (600, False)])
def test_what_is_no_deadline(tmp_path: Path, left_s: float, needed: bool) -> None:
    """A token that is over already, or that the server is not shown, ends nothing."""
    end = write_token(tmp_path / "token", left_s=left_s)
    loop = Loop()
    facts = watched(tmp_path / "token", loop, needed=needed)
    assert (facts["credential_ends"], facts["credentials"]) == (None, {"token": end})
