"""Alerts are found in the transaction that they are about, and each is written once over all schedulers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta

import pytest
from hypothesis import given, settings, strategies as st

from cronactors.alerts import Alert
from cronactors.instants import LATEST, Millis, to_millis
from cronactors.ledger import alerting, cancel_other, jobs
from cronactors.ledger.alerting import StuckRun
from cronactors.ledger.finish import finish_runs
from cronactors.ledger.leases import LEASE
from cronactors.ledger.notification_columns import alert_from_column
from cronactors.ledger.owners import running_since, sign_off
from cronactors.model import Cause, Coalesce, Misfire, Overlap, RunStatus
from cronactors.policy import FREE_CRASHES, Outcome
from cronactors.schedules.schedule import Interval
from cronactors.settings import RetryPolicy
from cronactors.storage.rows import OwnerRow, RunRow
from tests.ledger_world import (
    CANCELLED,
    DAY,
    FAILURE,
    GAVE_UP,
    HOUR,
    HOURLY,
    INTERRUPTED,
    MINUTE,
    MINUTELY,
    SECOND,
    SUCCESS,
    T0,
    TIMEOUT,
    RunnerReport,
    World,
    at,
    in_dicts,
    process,
)

OVERDUE_AFTER = 5 * MINUTE


def listen(world: World, machine: str = "listens", receivers: Sequence[str] = ("notifier", "on_alert")) -> int:
    """Add an owner that has the receiver of alerts."""
    row = OwnerRow(0, machine, 1, "", world.now, world.now + LEASE, json.dumps(receivers))
    return world.do(lambda storage: storage.insert_owner(row))


def alerts(world: World) -> list[Alert]:
    """Return all alerts in the order in which they were written."""
    rows = world.do(lambda storage: storage.notifications.page(before=None, status=None, receiver="on_alert", limit=1_000))[0]
    return [alert_from_column(row.alert or "") for row in sorted(rows, key=lambda row: row.id)]


def alerted(world: World) -> list[tuple[str, int]]:
    """Return kind and count of all alerts."""
    return [(alert.kind.value, alert.count) for alert in alerts(world)]


def run_once(world: World, outcome: Outcome = SUCCESS) -> RunRow:
    """Let the next minute of a minutely job without retries run."""
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.finish(run, outcome)
    return run


def fail(world: World, times: int) -> None:
    for _ in range(times):
        run_once(world, FAILURE)


# Who wants them


def test_nothing_is_written_while_no_scheduler_has_the_receiver(world):
    listen(world, receivers=["notifier", "on_finish"])
    world.add(max_retries=0)
    fail(world, 10)
    run_once(world)
    assert alerted(world) == []


def test_a_receiver_that_has_signed_off_wants_nothing_and_one_that_was_killed_wants_it_for_a_week(world):
    world.add(max_retries=0)
    world.do(sign_off, listen(world, "has signed off"))
    fail(world, 3)
    assert alerted(world) == []
    listen(world, "was killed")
    world.pass_time(6 * DAY)
    fail(world, 1)
    assert alerted(world) == [("failing", 4)]
    world.pass_time(2 * DAY)
    fail(world, 6)
    assert alerted(world) == [("failing", 4)]


def test_the_scheduler_that_acts_is_running_however_old_its_heartbeat_is(world):
    listening = listen(world)
    world.add(max_retries=0)
    fail(world, 9)
    world.pass_time(MINUTE)
    (claimed,) = world.claim(owner=listening)
    world.pass_time(30 * DAY)  # nothing renews a lease on virtual time
    world.finish(claimed.run, FAILURE, owner=listening)
    assert alerted(world) == [("failing", 3), ("failing", 10)]


@pytest.mark.parametrize("damaged", ["", "{", "null", "5", '"on_alert"', "[" * 100_000])
def test_receivers_that_cannot_be_read_are_none(world, damaged):
    row = OwnerRow(0, "listens", 1, "", world.now, world.now + LEASE, damaged)
    world.do(lambda storage: storage.insert_owner(row))
    world.add(max_retries=0)
    fail(world, 3)
    assert alerted(world) == []


def test_the_scheduler_that_finds_an_alert_delivers_it_if_it_has_the_receiver(world):
    def owners() -> list[int]:
        return [
            row.owner
            for row in world.do(lambda storage: storage.notifications.page(before=None, status=None, receiver=None, limit=9))[0]
        ]

    world.add(max_retries=0)
    listening = listen(world)
    fail(world, 3)
    assert owners() == [0]  # the scheduler that executes them has not
    for _ in range(7):
        world.pass_time(MINUTE)
        (claimed,) = world.claim(owner=listening)
        world.finish(claimed.run, FAILURE, owner=listening)
    assert owners() == [listening, 0]


# Failing and recovered


def test_three_failures_in_a_row_are_said_once_then_ten_then_thirty(world):
    listen(world)
    world.add(max_retries=0)
    fail(world, 2)
    assert alerted(world) == []
    fail(world, 1)
    assert alerted(world) == [("failing", 3)]
    fail(world, 6)
    assert alerted(world) == [("failing", 3)]
    fail(world, 1)
    assert alerted(world) == [("failing", 3), ("failing", 10)]
    fail(world, 20)
    assert alerted(world) == [("failing", 3), ("failing", 10), ("failing", 30)]
    assert {alert.since for alert in alerts(world)} == {alerts(world)[0].since}
    assert to_millis(alerts(world)[0].since) == T0 + MINUTE


def test_a_success_says_that_the_job_has_recovered_and_the_next_failures_are_a_new_episode(world):
    listen(world)
    world.add(max_retries=0)
    fail(world, 4)
    run_once(world)
    assert alerted(world) == [("failing", 3), ("recovered", 4)]
    run_once(world)
    fail(world, 3)
    assert alerted(world) == [("failing", 3), ("recovered", 4), ("failing", 3)]
    assert to_millis(alerts(world)[-1].since) == T0 + 7 * MINUTE
    run_once(world)
    assert alerted(world)[-1] == ("recovered", 3)


def test_two_failures_and_a_success_say_nothing(world):
    listen(world)
    world.add(max_retries=0)
    for _ in range(3):
        fail(world, 2)
        run_once(world)
    assert alerted(world) == []


@pytest.mark.parametrize("outcome", [FAILURE, TIMEOUT, GAVE_UP])
def test_timeouts_count_and_a_cancellation_changes_nothing(world, outcome):
    listen(world)
    world.add(max_retries=0)
    fail(world, 2)
    run_once(world, CANCELLED)
    assert alerted(world) == []
    run_once(world, outcome)
    assert alerted(world) == [("failing", 3)]


def test_retries_count_as_failures(world):
    listen(world)
    world.with_retry()
    for _ in range(2):
        world.pass_time(10 * MINUTE)
        world.finish(world.claim_one(), FAILURE)
    assert alerted(world) == [("failing", 3)]


def test_a_receiver_that_comes_later_gets_the_alert_at_the_next_failure(world):
    world.add(max_retries=0)
    fail(world, 12)
    listen(world)
    fail(world, 1)
    assert alerted(world) == [("failing", 13)]
    assert to_millis(alerts(world)[0].since) == T0 + MINUTE
    fail(world, 16)
    assert alerted(world) == [("failing", 13)]
    fail(world, 1)
    assert alerted(world) == [("failing", 13), ("failing", 30)]


OUTCOMES = st.sampled_from([FAILURE, FAILURE, FAILURE, TIMEOUT, SUCCESS, CANCELLED, INTERRUPTED])


@given(st.lists(st.tuples(OUTCOMES, st.booleans()), max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_outcomes_over_two_schedulers_says_each_threshold_once_in_each_episode(steps):
    with closing(World(in_dicts)) as world:
        world.policy = RetryPolicy(delays=(0,))
        owners = [listen(world, "one"), listen(world, "two")]
        world.add(max_retries=0)
        failures, reached, expected = 0, 0, []
        for outcome, second in steps:
            world.pass_time(MINUTE)
            (claimed,) = world.claim(limit=1, owner=owners[second])
            world.finish(claimed.run, outcome, owner=owners[second])
            if outcome is SUCCESS:
                expected += [("recovered", failures)] if reached else []
                failures = reached = 0
            elif outcome in (FAILURE, TIMEOUT):
                failures += 1
                if failures in (3, 10, 30):
                    reached = failures
                    expected.append(("failing", failures))
        assert alerted(world) == expected


def test_an_episode_ends_even_while_no_scheduler_has_the_receiver(world):
    listening = listen(world)
    world.add(max_retries=0)
    fail(world, 3)
    world.do(sign_off, listening)
    run_once(world)
    listen(world)
    fail(world, 3)
    assert alerted(world) == [("failing", 3), ("failing", 3)]


def test_two_schedulers_say_it_once(world):
    listen(world, "one")
    listen(world, "two")
    other = world.register(process("there"))
    world.add(max_retries=0)
    for count in range(4):
        world.pass_time(MINUTE)
        owner = (world.owner, other)[count % 2]
        (claimed,) = world.claim(owner=owner)
        world.finish(claimed.run, FAILURE, owner=owner)
        world.finish(claimed.run, FAILURE, owner=owner)  # the answer to the first commit was lost
    assert alerted(world) == [("failing", 3)]


def test_failures_of_many_jobs_in_one_batch_are_said_of_each(world):
    listen(world)
    names = [world.add(max_retries=0) for _ in range(12)]
    for _ in range(3):
        world.pass_time(MINUTE)
        claimed = world.claim(limit=12)
        reports = [RunnerReport(each.run.id, FAILURE, each) for each in claimed]
        world.do(finish_runs, reports, owner=world.owner, policy=world.policy)
    assert alerted(world) == [("failing", 3)] * 12
    rows = world.do(lambda storage: storage.notifications.page(before=None, status=None, receiver=None, limit=99))[0]
    assert {row.job_id for row in rows} == set(names)


def test_a_job_that_its_last_failure_deletes_is_reported_and_nothing_is_left_of_its_episode(world):
    listen(world)
    job_id = world.add(at(T0 + MINUTE), max_retries=2, delete_after_run=True)
    for _ in range(3):
        world.pass_time(10 * MINUTE)
        world.finish(world.claim_one(), FAILURE)
    assert not world.exists(job_id)
    assert alerted(world) == [("failing", 3)]
    assert world.do(lambda storage: storage.notifications.episodes([job_id], "failing")) == {}


def test_removing_a_job_forgets_what_was_said_of_it(world):
    listen(world)
    job_id = world.add(max_retries=0)
    fail(world, 3)
    world.remove(job_id)
    assert world.do(lambda storage: storage.notifications.episodes([job_id], "failing")) == {}


# Missed


def stop(world: World, *, down: Millis) -> None:
    """Close the scheduler, and start it again after a while; the new one listens."""
    world.do(sign_off, world.owner)
    world.pass_time(down)
    world.owner = world.register(world.this_process)
    listen(world)


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.ALLOW_ALL, Overlap.CANCEL_OTHER])
def test_moments_that_were_merged_because_nothing_was_running_are_said_once(world, overlap):
    world.add(HOURLY, overlap=overlap)
    stop(world, down=5 * HOUR + MINUTE)
    run = world.claim_one()
    assert run.coalesced == 5
    assert alerted(world) == [("missed", 5)]
    (alert,) = alerts(world)
    assert to_millis(alert.since) == T0 + HOUR
    assert "from 2026-03-02T01:00:00Z to 2026-03-02T05:00:00Z, and 5 moments were merged" in alert.text
    world.finish(run)
    world.pass_time(HOUR)
    world.finish(world.claim_one())
    assert alerted(world) == [("missed", 5)]
    stop(world, down=2 * HOUR)
    world.claim_one()
    assert alerted(world) == [("missed", 5), ("missed", 2)]


def test_one_moment_that_is_only_late_is_not_missed(world):
    world.add(HOURLY)
    stop(world, down=HOUR + 30 * MINUTE)
    assert world.claim_one().coalesced == 1
    assert alerted(world) == []


def test_moments_that_the_window_skips_are_said_with_their_number(world):
    world.add(HOURLY, misfire=Misfire(window=timedelta(minutes=30)))
    stop(world, down=3 * HOUR + 45 * MINUTE)
    assert world.claim() == []
    assert alerted(world) == [("missed", 3)]
    assert alerts(world)[0].text.endswith("3 moments were skipped")


def test_moments_that_each_have_their_run_are_not_missed_and_those_beyond_the_limit_are(world):
    world.add(HOURLY, misfire=Misfire(coalesce=Coalesce.ALL, max_runs=3), overlap=Overlap.ALLOW_ALL)
    world.add(HOURLY, misfire=Misfire(coalesce=Coalesce.ALL), overlap=Overlap.ALLOW_ALL)
    stop(world, down=5 * HOUR)
    world.claim(limit=50)
    assert alerted(world) == [("missed", 2)]


def test_moments_that_were_merged_while_a_scheduler_was_running_are_not_missed(world):
    world.add(HOURLY)
    listen(world)
    world.pass_time(5 * HOUR)  # all slots are taken
    assert world.claim_one().coalesced == 5
    assert alerted(world) == []


def test_only_the_moments_before_the_start_are_missed(world):
    world.add(HOURLY)
    stop(world, down=2 * HOUR + 30 * MINUTE)
    world.pass_time(2 * HOUR)  # all slots are taken
    assert world.claim_one().coalesced == 4
    assert alerted(world) == [("missed", 2)]
    assert "to 2026-03-02T02:00:00Z" in alerts(world)[0].text


def test_moments_that_a_run_overlapped_after_a_crash_are_missed_only_before_the_start(world):
    world.add(HOURLY, overlap=Overlap.BUFFER_ALL)
    world.pass_time(HOUR)
    world.claim_one()
    world.pass_time(3 * HOUR + MINUTE)
    world.crash()
    listen(world)
    retry = world.claim_one()
    assert alerted(world) == []
    world.pass_time(2 * HOUR)
    world.finish(retry)
    assert alerted(world) == [("missed", 3)]


def test_another_scheduler_that_is_running_leaves_no_gap(world):
    world.register(process("there"))
    world.add(HOURLY)
    world.do(sign_off, world.owner)
    world.pass_time(MINUTE)  # less than a lease and a heartbeat ago
    since = world.do(running_since)
    world.register(process("third"))
    assert world.do(running_since) == since == T0


def test_a_scheduler_that_was_killed_leaves_a_gap(world):
    world.pass_time(HOUR)
    world.crash()
    assert world.do(running_since) == T0 + HOUR
    world.register(process("there"))
    world.pass_time(HOUR)
    world.do(sign_off, world.owner)
    world.owner = world.register(process("container"))  # the heartbeats of the other one are an hour old
    assert world.do(running_since) == T0 + 2 * HOUR


@pytest.mark.parametrize("damaged", ["", "{", "[]", '"x"', None, "1e999"])
def test_a_start_that_cannot_be_read_says_nothing(world, damaged):
    world.add(HOURLY)
    stop(world, down=5 * HOUR)
    world.do(lambda storage: storage.set_meta("running_since", damaged))
    assert world.claim_one().coalesced == 5
    assert alerted(world) == []


def test_a_clock_that_was_set_back_to_before_the_start_says_nothing(world):
    world.pass_time(DAY)
    world.crash()
    listen(world)
    world.add(HOURLY)
    world.set_back(DAY)
    world.pass_time(5 * HOUR)
    world.claim(limit=5)
    assert alerted(world) == []


def test_moments_that_replace_an_open_run_are_missed_too(world):
    world.add(HOURLY, overlap=Overlap.CANCEL_OTHER)
    world.pass_time(HOUR)
    world.claim_one()
    world.pass_time(3 * HOUR + MINUTE)
    world.crash()
    listen(world)
    assert world.claim_one().attempt == 2
    assert world.do(cancel_other.cancel_overlapped)
    assert alerted(world) == [("missed", 3)]


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
