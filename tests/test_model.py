"""The values that users see: what can be made, and what is not there yet."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cronactors import Coalesce, InvalidJob, Misfire, Retry, RunStatus


@pytest.mark.parametrize(
    "field",
    [
        {"window": timedelta(-1)},
        {"window": timedelta(days=3661)},
        {"window": 5},
        {"coalesce": "first"},
        {"coalesce": None},
        {"max_runs": 0},
        {"max_runs": 1001},
        {"max_runs": 100.0},
    ],
)
def test_a_wrong_misfire_policy(field):
    (name,) = field
    with pytest.raises(InvalidJob, match=f"misfire {name} must be"):
        Misfire(**field)


def test_the_default_misfire_policy():
    assert Misfire() == Misfire(window=None, coalesce=Coalesce.LATEST, max_runs=100)
    assert Misfire(coalesce="all").coalesce is Coalesce.ALL  # type: ignore[arg-type]


def test_what_has_ended():
    assert {status for status in RunStatus if not status.ended} == {RunStatus.PENDING, RunStatus.RUNNING}


@pytest.mark.parametrize("after", [-1, -0.5, float("nan"), "5", timedelta(1), True])
def test_a_retry_is_after_so_many_seconds(after):
    with pytest.raises(InvalidJob, match="after must be a number of seconds"):
        Retry(after=after)
    assert Retry("no luck", after=0).after == 0
