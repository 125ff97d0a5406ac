"""The table of a job's fields: each field that users set reaches the row and `CronJob`, however it was set."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from cronactors import config_file, spec
from cronactors.executor_options import check_executor_options
from cronactors.ledger.job_fields import JOB_FIELDS, Defaults
from cronactors.model import Coalesce, CronJob, JobContext, Misfire, Overlap, SessionMode
from cronactors.retention import History
from cronactors.spec import JobChanges, JobSpec
from cronactors.storage.rows import JobRow
from tests.ledger_world import MINUTELY

NAMES = {field.name for field in JOB_FIELDS}
# A value of each field that no default has.
OTHER = {
    "name": "another name",
    "user_id": "ann",
    "prompt": "do another thing",
    "timezone": "Europe/Rome",
    "delete_after_run": True,
    "max_retries": 7,
    "timeout_secs": 12.5,
    "session_mode": SessionMode.MAIN,
    "overlap": Overlap.BUFFER_ALL,
    "misfire": Misfire(window=timedelta(hours=1), coalesce=Coalesce.ALL, max_runs=5),
    "history": History(days=7, per_job=None, keep_last=3),
    "executor_options": {"shell": "/bin/zsh", "deep": {"list": [1, 2.5, None]}},
    "description": "what it is for\nin two lines",
    "tags": ("nightly", "reports"),
    "data": {"customer": "acme", "deep": {"list": [1, 2.5, None]}},
}


def made_with(**fields: object) -> JobSpec:
    return JobSpec(**{"name": "job", "prompt": "it", "schedule": MINUTELY, **fields})


def shown(field, value):
    return check_executor_options(field, value) if field == "executor_options" else value


def test_the_table_holds_every_field_that_users_set_but_the_schedule_and_enabled():
    assert set(OTHER) == NAMES
    assert {field.alias for field in attrs.fields(JobSpec)} == NAMES | {"schedule", "enabled"}
    assert set(spec._FIELD_CHECKS) == NAMES | {"schedule", "enabled"}
    assert set(JobChanges.__annotations__) == set(spec._FIELD_CHECKS) - {"user_id", "enabled"}
    assert {field.alias for field in attrs.fields(CronJob)} >= NAMES | {"schedule"}
    assert set(JobRow._fields) >= NAMES | {"schedule"}
    assert {field.name for field in JOB_FIELDS if field.has_default} == {field.name for field in attrs.fields(Defaults)}


def test_a_file_of_jobs_knows_every_field():
    by_other_keys = {"executor_options"}  # its key is `shell`
    assert set(config_file._JOB_KEYS) >= NAMES - by_other_keys


def test_an_executor_sees_fields_by_their_names():
    of_the_run = {"job_name", "job_id", "run_id", "scheduled_at", "attempt"}
    assert {field.alias for field in attrs.fields(JobContext)} - of_the_run <= NAMES


@pytest.mark.parametrize("field", sorted(NAMES))
def test_a_field_of_a_new_job_is_shown_as_it_was_given(world, field):
    given = made_with(**{field: OTHER[field]})
    (job,) = world.upsert(("id", given))
    assert getattr(world.view(job), field) == shown(field, OTHER[field])


@pytest.mark.parametrize("field", sorted(NAMES - {"name", "user_id"}))
def test_an_upsert_changes_a_field_of_the_job_that_has_the_name(world, field):
    (job,) = world.upsert(("id", made_with()))
    before = world.view(job)
    assert getattr(before, field) != shown(field, OTHER[field])
    assert world.upsert(("other", made_with(**{field: OTHER[field]}))) == [job]
    after = world.view(job)
    assert getattr(after, field) == shown(field, OTHER[field])
    assert attrs.evolve(after, **{field: getattr(before, field)}, next_run_at=before.next_run_at) == before


@pytest.mark.parametrize("field", sorted(NAMES - {"user_id"}))
def test_an_update_changes_a_field_and_no_other(world, field):
    (job,) = world.upsert(("id", made_with()))
    before = world.view(job)
    world.update(job, {field: OTHER[field]})
    after = world.view(job)
    assert getattr(after, field) == shown(field, OTHER[field])
    assert attrs.evolve(after, **{field: getattr(before, field)}, next_run_at=before.next_run_at) == before
