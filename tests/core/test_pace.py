from __future__ import annotations

import pytest

from fedexp.core.pace import Pace, duration


def test_the_first_job_tells_nothing_and_its_start_does_not_count_later() -> None:
    times = iter([0.0, 50.0, 60.0, 70.0])  # the first job takes 50 s, the others 10 s
    pace = Pace(lambda: next(times))
    assert [pace.left(jobs) for jobs in (200, 199, 31, 3)] == [
        "",
        ", 2.8 h left",
        ", 5 min left",
        ", 30 s left",
    ]


def test_jobs_that_begin_together_are_not_taken_for_fast_ones() -> None:
    times = iter([0.0, 8.0, 8.0, 10.0, 12.0])  # one alone, then two at a time, 4 s each
    pace = Pace(lambda: next(times), at_once=2)
    assert [pace.left(jobs) for jobs in (16, 15, 14, 13, 12)] == [
        "",
        "",
        ", 2 min left",
        ", 26 s left",
        ", 24 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, "1 s"), (59.4, "59 s"), (59.6, "1 min"), (5399, "90 min"), (5400, "1.5 h")],
)
def test_spans_are_told_as_a_person_would(seconds: float, told: str) -> None:
    assert duration(seconds) == told
