"""Alerts as they are stored: when there is one, its key and its text."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, strategies as st

from cronactors.alerts import Alert, AlertKind
from cronactors.instants import from_millis
from cronactors.ledger import alert_texts
from cronactors.ledger.notification_columns import alert_from_column
from cronactors.model import Cause
from tests.ledger_world import DAY, HOUR, MINUTE, SECOND, T0
from tests.storages import job, run

JOB = job("j1", name="nightly")


@pytest.mark.parametrize(
    ("failures", "alerted"),
    [(0, 0), (1, 0), (2, 0), (3, 3), (4, 3), (9, 3), (10, 10), (29, 10), (30, 30), (99, 30), (100, 100), (299, 100), (300, 300)],
)
def test_failures_in_a_row_are_an_alert_at_3_10_30_100(failures: int, alerted: int) -> None:
    assert alert_texts.failures_alerted(failures) == alerted


@given(st.integers(0, 10**9))
def test_the_number_at_which_there_is_an_alert_is_reached_and_grows_with_the_failures(failures: int) -> None:
    alerted = alert_texts.failures_alerted(failures)
    assert alerted <= failures
    assert alerted == 0 or str(alerted).rstrip("0") in ("1", "3")
    assert alerted <= alert_texts.failures_alerted(failures + 1) <= max(3, 4 * alerted)


DOWN = "job 'nightly': no scheduler was running"
FAILED = run(id=7, job_id="j1")
LATER = T0 + 10 * MINUTE
ALL = [
    (
        alert_texts.failing(JOB, FAILED, failures=3, since=T0),
        "failing:j1:7",
        "job 'nightly' has failed 3 times in a row, since 2026-03-02T00:00:00Z",
    ),
    (
        alert_texts.recovered(JOB, FAILED, failures=1_200, now=T0),
        "recovered:j1:7",
        "job 'nightly' has succeeded again, after it had failed 1,200 times in a row",
    ),
    (
        alert_texts.overdue(JOB, moment=T0 + 1, moments=1, now=LATER),
        f"overdue:j1:{T0 + 1}",
        "job 'nightly' was due at 2026-03-02T00:00:00Z, 10 min ago, and has not started",
    ),
    (
        alert_texts.overdue(JOB, moment=T0, moments=1_000, now=LATER),
        f"overdue:j1:{T0}",
        "job 'nightly' was due at 2026-03-02T00:00:00Z, 10 min ago, and has not started; 1,000 or more moments are due by now",
    ),
    (
        alert_texts.stuck(JOB, FAILED, cause=Cause.TIMEOUT, since=LATER - 5 * SECOND, now=LATER),
        "stuck:7",
        "run 7 of job 'nightly' is still running, 5 s after it was cancelled (timeout)",
    ),
    (
        alert_texts.missed(JOB, first=T0, last=T0, moments=1, skipped=0),
        f"missed:j1:{T0}",
        f"{DOWN} at 2026-03-02T00:00:00Z, and 1 moment was merged into later runs",
    ),
    (
        alert_texts.missed(JOB, first=T0, last=T0 + HOUR, moments=2, skipped=2),
        f"missed:j1:{T0}",
        f"{DOWN} from 2026-03-02T00:00:00Z to 2026-03-02T01:00:00Z, and 2 moments were skipped",
    ),
    (
        alert_texts.missed(JOB, first=T0, last=T0 + DAY, moments=25, skipped=20),
        f"missed:j1:{T0}",
        f"{DOWN} from 2026-03-02T00:00:00Z to 2026-03-03T00:00:00Z, and 25 moments were merged into later runs or skipped (20)",
    ),
    (
        alert_texts.paused_by_crashes(JOB._replace(crashes=5), now=T0),
        f"paused:j1:{T0}",
        "job 'nightly' was paused: its process ended during its last 5 runs",
    ),
    (
        alert_texts.paused_as_unreadable(JOB, why="its stored settings cannot be read: overlap 'x' is not known", now=T0),
        f"paused:j1:{T0}",
        "job 'nightly' was paused: its stored settings cannot be read: overlap 'x' is not known",
    ),
    (alert_texts.ended(JOB, now=T0), f"ended:j1:{JOB.anchor_at}", "the schedule of job 'nightly' has no more moments"),
]


@pytest.mark.parametrize(("alert", "key", "text"), ALL, ids=[key for _, key, _ in ALL])
def test_each_kind_has_its_key_and_a_sentence(alert: alert_texts.FoundAlert, key: str, text: str) -> None:
    assert (alert.key, alert.text) == (key, text)
    row = alert_texts.notification_of(alert, now=T0 + DAY, owner=4)
    assert (row.key, row.receiver, row.job_id, row.run_id, row.created_at, row.owner) == (
        key,
        "on_alert",
        "j1",
        None,
        T0 + DAY,
        4,
    )
    assert alert_from_column(row.alert or "") == Alert(
        kind=alert.kind, since=from_millis(alert.since), count=alert.count, text=alert.text
    )


def test_every_kind_is_made_here() -> None:
    assert {alert.kind for alert, _, _ in ALL} == set(AlertKind)


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        (timedelta(seconds=119), "119 s"),
        (timedelta(minutes=2), "2 min"),
        (timedelta(hours=47), "47 h"),
        (timedelta(days=2), "2 days"),
    ],
)
def test_a_duration_has_its_largest_unit_of_which_there_are_two(length: timedelta, shown: str) -> None:
    now = T0 + length // timedelta(milliseconds=1)
    assert f", {shown} ago, " in alert_texts.overdue(JOB, moment=T0, moments=1, now=now).text
