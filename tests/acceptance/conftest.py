"""The acceptance tests use the same hands and the same oracle as the fault tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))


@pytest.fixture(scope="module")
def passage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One pilot, past all servers whose tests in this module are to be run."""
    from quirk_passage import pass_through

    items = [item for item in request.session.items if item.module is request.module]  # type: ignore[attr-defined]
    found = [item.callspec.params["cell"] for item in items if hasattr(item, "callspec")]
    return pass_through(found, tmp_path_factory.mktemp("quirks"))
