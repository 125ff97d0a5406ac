"""Pruning on request: a count says what a deletion does, in whatever pieces."""

from __future__ import annotations

import pytest

from cronactors.instants import Millis
from cronactors.ledger.sweep import SweptJob, sweep
from cronactors.retention import EVERYTHING, History
from tests.ledger.test_pruning import hours, notify, run_days
from tests.ledger_world import DAY, HOUR, HOURLY, T0


def swept(
    world, limits: History, *, only_count: bool = False, steps: int = 1_000_000, time: Millis | None = None
) -> list[SweptJob]:
    """Carry out a whole sweep in pieces of so many steps."""
    found: list[SweptJob] = []
    after, ended = "", False
    while not ended:
        left = iter(range(steps - 1))
        report = world.do(
            sweep,
            limits,
            time=world.now if time is None else time,
            after=after,
            only_count=only_count,
            enough=lambda left=left: next(left, None) is None,
        )
        found += report.jobs
        after, ended = report.after, report.ended
    return found


def totals(found: list[SweptJob]) -> dict[str, int]:
    return {job_id: sum(each.runs for each in found if each.job_id == job_id) for job_id in {each.job_id for each in found}}


@pytest.fixture
def lived(world):
    """A world in which every kind of job has lived four days."""
    world.do(lambda storage: storage.insert_owner(storage.owners()[0]._replace(id=0, receivers='["mail"]')))
    world.names = 0
    plain, removed = world.add(HOURLY, name="plain", user_id="ann"), world.add(HOURLY, name="removed")
    short = world.add(HOURLY, history=History(days=1, keep_last=0))
    endless = world.add(HOURLY, history=EVERYTHING)
    run_days(world, 4)
    world.do(lambda storage: storage.renew_lease(2, now=world.now, until=world.now + HOUR, unless_later_than=world.now + 1))
    notify(world, world.history(plain)[3], "mail")
    world.remove(removed)
    return plain, removed, short, endless


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (History(days=2, keep_last=0), (47, 48, 72, 0)),
        (History(days=2, keep_last=60), (35, 36, 72, 0)),
        (History(days=None, per_job=10, keep_last=0), (85, 86, 72, 0)),
        (EVERYTHING, (0, 0, 72, 0)),
    ],
)
@pytest.mark.parametrize("steps", [1, 2, 1_000_000])
def test_a_count_is_what_is_deleted(world, lived, limits, expected, steps):
    before = world.history()
    counted = swept(world, limits, only_count=True, steps=steps)
    assert world.history() == before
    assert world.job(lived[0]).pruned_until is None
    assert totals(counted) == {job: runs for job, runs in zip(lived, expected, strict=True) if runs}
    assert totals(swept(world, limits, steps=steps)) == totals(counted)
    assert len(world.history()) == len(before) - sum(expected)
    assert swept(world, limits) == []
    named = {(each.name, each.user_id) for each in counted if each.job_id in lived[:2]}
    assert named == ({("plain", "ann"), ("removed", None)} if expected[0] else set())


def test_a_moment_that_was_deleted_is_decided_and_a_waiting_notification_keeps_its_run(world, lived):
    plain = lived[0]
    swept(world, History(days=2, keep_last=0))
    assert hours(world, plain) == [4, *range(49, 97)]
    assert world.job(plain).pruned_until == T0 + 48 * HOUR


def test_a_job_that_is_deleted_in_pieces_is_reported_in_each(world):
    job = world.add(HOURLY)
    run_days(world, 8)
    found = swept(world, History(days=None, per_job=1, keep_last=0), steps=1)
    assert len(found) > 1
    assert totals(found) == {job: 8 * 24 - 1}


def test_runs_from_after_its_time_stay(world):
    job = world.add(HOURLY)
    run_days(world, 4)
    assert totals(swept(world, History(days=1, keep_last=0), time=T0 + 2 * DAY)) == {job: 24}
    assert swept(world, History(days=None, per_job=1, keep_last=0), time=T0) == []
