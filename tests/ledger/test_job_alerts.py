"""Alerts of jobs that were paused or have ended, of overdue moments and of stuck runs."""

from __future__ import annotations

import pytest

from cronactors.instants import LATEST, Millis, to_millis
from cronactors.ledger import alerting, jobs
from cronactors.ledger.alerting import StuckRun
from cronactors.model import Cause, RunStatus
from cronactors.policy import FREE_CRASHES
from cronactors.schedules.schedule import Interval
from tests.alert_world import alerted, alerts, listen, run_once, stop
from tests.ledger_world import GAVE_UP, HOUR, HOURLY, MINUTE, MINUTELY, SECOND, SUCCESS, T0, World, at

OVERDUE_AFTER = 5 * MINUTE


# Paused and ended


def test_a_job_that_crashes_spend_is_reported_as_paused_and_again_after_it_was_resumed(world):
    listen(world)
    job_id = world.add(at(T0 + MINUTE), max_retries=0)
    world.pass_time(MINUTE)
    for _ in range(FREE_CRASHES + 1):
        world.claim_one()
        world.crash()
    assert not world.job(job_id).enabled
    assert alerted(world) == [("paused", FREE_CRASHES + 1)]
    world.pass_time(MINUTE)
    world.recover()
    assert len(alerted(world)) == 1


def test_a_job_whose_settings_cannot_be_read_is_reported_as_paused(world):
    listen(world)
    job_id = world.add()
    world.damage(job_id, overlap="of the future")
    world.pass_time(MINUTE)
    assert world.claim() == []
    assert alerted(world) == [("paused", 1)]
    assert "overlap 'of the future' is not known" in alerts(world)[0].text


def test_a_pause_by_a_user_is_no_alert(world):
    listen(world)
    world.pause(world.add())
    assert alerted(world) == []


@pytest.mark.parametrize("outcome", [SUCCESS, GAVE_UP])
def test_a_schedule_without_more_moments_has_ended(world, outcome):
    world.now = LATEST - 90 * SECOND
    listen(world)
    job_id = world.add(MINUTELY)
    run = run_once(world, outcome)
    assert run.status == RunStatus.RUNNING
    assert not world.job(job_id).enabled
    assert alerted(world) == [("ended", 0)]
    world.finish(run, outcome)
    assert alerted(world) == [("ended", 0)]


def test_a_one_shot_that_is_done_has_not_ended(world):
    listen(world)
    for outcome in (SUCCESS, GAVE_UP):
        world.add(at(world.now + MINUTE))
        run_once(world, outcome)
    assert alerted(world) == []


# Overdue


def check(world: World, *, after: Millis = OVERDUE_AFTER) -> int:
    """Do what a scheduler with the receiver does; return how many jobs are reported."""
    found = world.do(alerting.find_overdue, overdue_after=after, after=None)
    world.do(alerting.report_overdue, found.ids, overdue_after=after)
    return len(found.ids)


def test_a_moment_that_does_not_start_is_overdue_once(world):
    listen(world)
    job_id = world.add(HOURLY)
    world.pass_time(HOUR + OVERDUE_AFTER - 1)
    assert check(world) == 0
    world.pass_time(1)
    assert check(world) == 1
    assert alerted(world) == [("overdue", 1)]
    assert to_millis(alerts(world)[0].since) == T0 + HOUR
    world.pass_time(5 * HOUR)
    assert check(world) == 0
    run = world.claim_one()
    world.finish(run)
    world.pass_time(HOUR)
    assert check(world) == 1  # the moment at seven o'clock, at 07:05
    assert [alert.count for alert in alerts(world)] == [1, 1]
    world.update(job_id, {"schedule": Interval(30 * MINUTE)})
    assert check(world) == 0


def test_an_alert_counts_the_moments_that_are_due_by_now(world):
    listen(world)
    world.add()
    world.pass_time(10 * MINUTE)
    assert check(world) == 1
    assert alerted(world) == [("overdue", 10)]


def test_two_schedulers_say_once_that_a_job_is_overdue(world):
    listen(world, "one")
    listen(world, "two")
    world.add(HOURLY)
    world.pass_time(2 * HOUR)
    found = [world.do(alerting.find_overdue, overdue_after=OVERDUE_AFTER, after=None) for _ in range(2)]
    for each in found:
        world.do(alerting.report_overdue, each.ids, overdue_after=OVERDUE_AFTER)
    assert alerted(world) == [("overdue", 2)]


def test_a_job_with_an_open_run_or_paused_is_not_overdue(world):
    listen(world)
    running, paused = world.add(), world.add()
    world.pass_time(MINUTE)
    world.pause(paused)
    world.claim()
    assert world.job(running).held_by is not None
    world.pass_time(HOUR)
    assert check(world) == 0


def test_a_job_that_starts_between_the_check_and_the_report_is_not_overdue(world):
    listen(world)
    world.add(HOURLY)
    world.pass_time(2 * HOUR)
    found = world.do(alerting.find_overdue, overdue_after=OVERDUE_AFTER, after=None)
    world.claim_one()
    world.do(alerting.report_overdue, found.ids, overdue_after=OVERDUE_AFTER)
    assert alerted(world) == []


def test_the_time_before_a_scheduler_was_running_does_not_count(world):
    world.add(HOURLY)
    stop(world, down=5 * HOUR)
    assert check(world) == 0
    world.pass_time(OVERDUE_AFTER)
    assert check(world) == 1


def test_a_check_reads_a_page_and_the_next_one_continues(world, monkeypatch):
    monkeypatch.setattr(alerting, "MOST_OVERDUE", 4)
    listen(world)
    ids = [world.add(HOURLY) for _ in range(10)]
    world.pass_time(2 * HOUR)
    after, found = None, []
    for _ in range(3):
        page = world.do(alerting.find_overdue, overdue_after=OVERDUE_AFTER, after=after)
        found += page.ids
        after = page.after
    assert found == ids
    assert after is None


def test_nothing_is_said_of_overdue_jobs_without_the_receiver(world):
    world.add(HOURLY)
    world.pass_time(2 * HOUR)
    assert check(world) == 1
    assert alerted(world) == []
    listen(world)
    assert check(world) == 1
    assert alerted(world) == [("overdue", 2)]


def test_a_removed_job_is_not_overdue(world):
    listen(world)
    job_id = world.add(HOURLY)
    world.pass_time(2 * HOUR)
    assert check(world) == 1
    found = world.do(alerting.find_overdue, overdue_after=OVERDUE_AFTER, after=None)
    world.do(jobs.remove_job, job_id)
    world.do(alerting.report_overdue, [job_id, *found.ids], overdue_after=OVERDUE_AFTER)
    assert len(alerted(world)) == 1
    assert world.do(lambda storage: storage.notifications.episodes([job_id], "overdue")) == {}


# Stuck


def test_a_run_that_is_still_running_after_its_cancellation_is_said_once(world):
    listen(world)
    world.add()
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.pass_time(HOUR)
    for _ in range(2):
        world.do(alerting.report_stuck, [StuckRun(run.id, Cause.TIMEOUT, 5 * SECOND), StuckRun(99, Cause.TIMEOUT, 0)])
    assert alerted(world) == [("stuck", 1)]
    assert to_millis(alerts(world)[0].since) == world.now - 5 * SECOND


def test_a_run_that_has_finished_or_whose_job_is_gone_is_not_stuck(world):
    listen(world)
    finished, gone = world.add(), world.add()
    world.pass_time(MINUTE)
    runs = [claimed.run for claimed in world.claim()]
    world.finish(next(run for run in runs if run.job_id == finished))
    world.remove(gone)
    world.do(alerting.report_stuck, [StuckRun(run.id, Cause.CANCELLED, 0) for run in runs])
    assert alerted(world) == []
