"""Values that users read and write: checks of their fields, and a repr without secrets."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import attrs
import pytest

from cronactors import Coalesce, Cron, CronConfig, CronJob, Interval, InvalidJob, JobSpec, Misfire, Retry, RunStatus
from cronactors.ids import with_ids
from cronactors.spec import _FIELD_CHECKS, JobChanges, JobOptions
from cronactors.testing import make_context


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


def test_a_field_of_a_job_has_one_name_everywhere():
    fields = {field.alias for field in attrs.fields(JobSpec)}
    options = {field.alias for field in attrs.fields(JobSpec) if field.kw_only}
    assert set(JobOptions.__annotations__) == options
    assert set(JobChanges.__annotations__) == fields - {"user_id", "enabled"}
    assert fields <= {field.alias for field in attrs.fields(CronJob)}
    assert set(_FIELD_CHECKS) == fields


SECRET = "SECRET-TOKEN"


def test_the_repr_shows_the_length_of_a_prompt_and_not_its_text():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    job = CronJob(id="1", name="job", prompt=SECRET, schedule=Cron("@daily"), created_at=at)
    for value in (job, make_context(SECRET), JobSpec("job", SECRET, Cron("@daily"))):
        assert value.prompt == SECRET
        assert SECRET not in repr(value)
        assert "'job'" in repr(value)
        assert "prompt=<12 characters>" in repr(value)
    assert SECRET not in repr(CronConfig(jobs=(JobSpec("job", SECRET, Cron("@daily")),)))


@pytest.mark.parametrize(
    "prompt", [SECRET.encode(), [SECRET], {"text": SECRET}, SECRET + "\0", SECRET + "\ud800", SECRET * 100_000]
)
def test_an_error_does_not_show_a_wrong_prompt(prompt):
    with pytest.raises(InvalidJob, match="^prompt ") as caught:
        JobSpec("job", prompt, Cron("@daily"))
    assert SECRET not in str(caught.value)
    with pytest.raises(InvalidJob, match=r"^jobs\[0\] must be a JobSpec, not dict$"):
        CronConfig(jobs=[{"name": "job", "prompt": prompt}])  # type: ignore[list-item]


def test_a_run_has_ended_unless_it_is_pending_or_running():
    assert {status for status in RunStatus if not status.ended} == {RunStatus.PENDING, RunStatus.RUNNING}


@pytest.mark.parametrize("after", [-1, -0.5, float("nan"), "5", timedelta(1), True])
def test_the_delay_of_a_retry_is_a_number_of_seconds_from_0(after):
    with pytest.raises(InvalidJob, match="after must be a number of seconds"):
        Retry(after=after)
    assert Retry("no luck", after=0).after == 0


def test_ids_grow_and_do_not_depend_on_the_programs_random_numbers():
    made = []
    for _ in range(2):
        random.seed(1)
        made.append([job_id for job_id, _ in with_ids([JobSpec(f"job {number}", "it", Interval(1)) for number in range(1000)])])
    assert len({*made[0], *made[1]}) == 2000
    assert all(ids == sorted(ids) for ids in made)
    assert all(UUID(job_id).version == 7 and UUID(job_id).variant == RFC_4122 for job_id in made[0])
