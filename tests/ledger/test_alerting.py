"""Alerts are found in the transaction that they are about, and each is written once over all schedulers."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given, settings, strategies as st

from cronactors.instants import to_millis
from cronactors.ledger.finish import finish_runs
from cronactors.ledger.leases import LEASE
from cronactors.ledger.owners import sign_off
from cronactors.settings import RetryPolicy
from cronactors.storage.rows import OwnerRow
from tests.alert_world import alerted, alerts, fail, listen, run_once
from tests.ledger_world import (
    CANCELLED,
    DAY,
    FAILURE,
    GAVE_UP,
    INTERRUPTED,
    MINUTE,
    SUCCESS,
    T0,
    TIMEOUT,
    RunnerReport,
    World,
    at,
    in_dicts,
    process,
)

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
