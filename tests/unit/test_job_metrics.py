"""Figures of a job in the server's names and units."""

from __future__ import annotations

import pytest

from espilot.core import job_metrics
from espilot.wire import panda_v1

USED = {
    "max_rss_bytes": 4096,
    "avg_rss_bytes": 2048,
    "max_pss_bytes": 0,
    "cpu_s": 12.9,
    "read_bytes": 5000,
    "written_bytes": 3000,
    "max_processes": 3,
}


def test_units_and_differences() -> None:
    """Memory in kB, bytes as they are and per second, sums since the job began."""
    fields = job_metrics.resource_fields(USED, {"read_bytes": 1000, "cpu_s": 2.0}, 100.0)
    assert fields == {
        "max_rss": 4,
        "avg_rss": 2,
        "tot_rbytes": 4000,
        "rate_rbytes": 40,
        "tot_wbytes": 3000,
        "rate_wbytes": 30,
    }
    assert job_metrics.cpu_seconds(USED, {"cpu_s": 2.0}) == 10


def test_figures_fit_the_dialect() -> None:
    """Every field is known to the server and has its strict type."""
    fields = job_metrics.resource_fields(USED, {}, 0.0)
    for name, value in fields.items():
        assert panda_v1.fits(panda_v1.UPDATE_JOB.parameters[name].kind, value)


def test_what_was_not_measured_is_not_told() -> None:
    """Nothing measured gives no fields; a counter that began anew gives no negative sum."""
    assert job_metrics.resource_fields({}, {}, 5.0) == {}
    assert job_metrics.cpu_seconds({}, {}) is None
    assert job_metrics.cpu_seconds({"cpu_s": 1.0}, {"cpu_s": 9.0}) == 0


def test_texts() -> None:
    """Metrics are pairs without blanks, timing six whole seconds."""
    assert job_metrics.metrics_text(USED, {"ranges_finished": 5}) == (
        "ranges_finished=5 max_processes=3"
    )
    timing = job_metrics.timing_text(job_s=1.9, stagein_s=-1, payload_s=30, stageout_s=2)
    assert timing == "1|0|30|2|0|0"


@pytest.mark.parametrize(
    ("event_job", "debug", "period"),
    [(True, False, 600), (False, False, 1800), (True, True, 60), (False, True, 60)],
)
def test_heartbeats_have_their_rhythm(event_job: bool, debug: bool, period: float) -> None:
    """Event jobs are heard of every ten minutes, others every thirty, in debug mode each minute."""
    told = job_metrics.heartbeat_limit(600, is_event_job=event_job, debug=debug, debug_s=60)
    assert told == period
