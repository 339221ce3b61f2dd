"""When the next job is asked for."""

from __future__ import annotations

from espilot.config import JobsConfig
from espilot.core.job_requests import JobRequests


def test_pauses_grow_and_end() -> None:
    """Pauses between requests without a job double up to the limit; a good job ends them."""
    requests = JobRequests(JobsConfig(pause_min_s=1.0, pause_max_s=10.0))
    assert [requests.no_job(1.0) for _ in range(5)] == [2.0, 4.0, 8.0, 10.0, 10.0]
    requests.job_begun()
    assert requests.job_ended(good=True, chance=1.0) == 0.0
    assert requests.no_job(1.0) == 2.0
    assert requests.over == ""


def test_bad_jobs_are_not_eaten_up() -> None:
    """A node on which every job fails asks for the next one later and later."""
    requests = JobRequests(JobsConfig(pause_min_s=1.0, pause_max_s=100.0))
    pauses = []
    for _ in range(4):
        requests.job_begun()
        pauses.append(requests.job_ended(good=False, chance=1.0))
    assert pauses == [2.0, 4.0, 8.0, 16.0]


def test_time_floor() -> None:
    """A run takes jobs until its time is over; a job that has begun is finished."""
    requests = JobRequests(JobsConfig(floor_s=60.0))
    requests.had(0, 100.0)
    requests.job_begun()
    requests.had(1, 59.0)
    assert requests.over == ""
    requests.had(1, 60.0)
    assert requests.over == "jobs were taken for 60 s"


def test_number_of_jobs() -> None:
    """After so many jobs no more are wanted, and it is said why."""
    requests = JobRequests(JobsConfig(at_most=2))
    for expected in ("", "2 jobs are done, as many as were wanted"):
        requests.job_begun()
        requests.job_ended(good=True, chance=0.5)
        requests.had(0, 1.0)
        assert requests.over == expected


def test_jobs_of_a_process_before_count() -> None:
    """A worker that was replaced is told how many jobs the run has had."""
    requests = JobRequests(JobsConfig(at_most=3))
    requests.job_begun()
    requests.had(2, 1.0)
    assert requests.over == ""
    requests.had(3, 1.0)
    assert requests.over == "3 jobs are done, as many as were wanted"


def test_requests_in_a_row() -> None:
    """Only requests in a row without a job count."""
    requests = JobRequests(JobsConfig(requests=2))
    requests.no_job(0.0)
    requests.job_begun()
    requests.job_ended(good=True, chance=0.0)
    requests.no_job(0.0)
    assert requests.over == ""
    requests.no_job(0.0)
    assert requests.over == "2 requests in a row brought no job"


def test_equal_limits() -> None:
    """A longest pause below the shortest one counts as equal."""
    assert JobRequests(JobsConfig(pause_min_s=5.0, pause_max_s=0.0)).no_job(0.5) == 5.0
