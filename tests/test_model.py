"""The values that users see: what can be made, and what is not there yet."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cronactors import InvalidJob, Misfire, Retry, RunStatus


@pytest.mark.parametrize("field", [{"window": timedelta(1)}, {"coalesce": "all"}, {"max_runs": 5}, {"max_runs": 100.0}])
def test_another_misfire_policy_is_not_there_yet(field):
    (name,) = field
    with pytest.raises(InvalidJob, match=f"misfire {name} .* is not there yet"):
        Misfire(**field)
    assert Misfire() == Misfire(window=None, coalesce="latest", max_runs=100)


def test_what_has_ended():
    assert {status for status in RunStatus if not status.ended} == {RunStatus.PENDING, RunStatus.RUNNING}


@pytest.mark.parametrize("after", [-1, -0.5, float("nan"), "5", timedelta(1), True])
def test_a_retry_is_after_so_many_seconds(after):
    with pytest.raises(InvalidJob, match="after must be a number of seconds"):
        Retry(after=after)
    assert Retry("no luck", after=0).after == 0
