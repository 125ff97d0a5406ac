"""Rows as values: their repr holds no secret, and each change of a row changes what it says."""

from __future__ import annotations

import pytest

from cronactors.storage.rows import Claimed, JobState, PlainFinish
from tests.storages import job, run, run_finish

SECRET = "hunter2"
JOB = job(prompt=SECRET, executor_options=SECRET, data=SECRET, last_error=SECRET)
RUN = run(result=SECRET, result_data=SECRET, error=SECRET)


@pytest.mark.parametrize(
    "row",
    [
        JOB,
        JobState.of(JOB),
        RUN,
        Claimed(RUN, JOB, 1, 2, 3, SECRET),
        run_finish(1, "running", result=SECRET, result_data=SECRET, error=SECRET),
        PlainFinish(1, 2, "s", SECRET, "j", 3, SECRET),
    ],
    ids=lambda row: type(row).__name__,
)
def test_no_repr_shows_a_text_of_users_or_executors(row: tuple[object, ...]) -> None:
    assert SECRET not in repr(row)
    assert SECRET not in str(row)
    assert SECRET not in f"{[row]}"


def test_a_repr_shows_the_other_fields() -> None:
    assert repr(run_finish(7, "running", result=SECRET)) == (
        "RunFinish(id=7, expected_status='running', status='success', cause=None, completed_at=1, session_id='')"
    )


def test_a_finished_run_has_the_values_of_its_finish_and_waits_for_nothing() -> None:
    before = run(id=7, waits_for="pause", failures=2, owner=3)
    finish = run_finish(7, "pending", status="failed", cause="error", completed_at=9, session_id="s", result="r", error="e")
    expected = {"status": "failed", "cause": "error", "completed_at": 9, "session_id": "s", "result": "r", "error": "e"}
    assert before.finished(finish) == before._replace(**expected, waits_for=None)  # type: ignore[arg-type]
