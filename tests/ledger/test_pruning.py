"""Which history is deleted, and which stays."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cronactors.ledger import notifications, pruning_clock
from cronactors.ledger.pruning import WINDOW
from cronactors.ledger.pruning_clock import NOTICE
from cronactors.model import Overlap
from cronactors.retention import EVERYTHING, History
from cronactors.schedules.schedule import Interval
from cronactors.settings import RetryPolicy
from cronactors.storage.notifications import NotificationRow, Settlement
from tests.ledger_world import DAY, FAILURE, HOUR, HOURLY, MINUTE, MINUTELY, SECOND, T0, at, prune


def run_days(world, days: int, outcome=None) -> None:
    """Let every due run start and succeed, once an hour."""
    for _ in range(days * 24):
        world.pass_time(HOUR)
        for claimed in world.claim():
            world.finish(claimed.run)


def hours(world, job: str) -> list[int]:
    """The moments of the job's rows, in hours after T0."""
    return sorted((run.scheduled_at - T0) // HOUR for run in world.history(job))


def test_runs_that_are_too_old_go_and_the_newest_stay(world):
    job = world.add(HOURLY)
    run_days(world, 4)
    assert prune(world, History(days=2, keep_last=0)) == 48
    assert hours(world, job) == list(range(49, 97))
    assert world.job(job).pruned_until == T0 + 48 * HOUR
    world.pause(job)
    world.pass_time(30 * DAY)
    assert prune(world, History(days=2, keep_last=5)) == 43
    assert hours(world, job) == list(range(92, 97))


def test_runs_beyond_the_newest_of_their_job_go(world):
    job, other = world.add(HOURLY), world.add(HOURLY)
    run_days(world, 4)
    assert prune(world, History(days=None, per_job=10, keep_last=0)) == 2 * 86
    assert hours(world, job) == hours(world, other) == list(range(87, 97))
    assert prune(world, History(days=None, per_job=10, keep_last=0)) == 0
    run_days(world, 1)
    assert prune(world, History(days=None, per_job=10, keep_last=20)) == 28
    assert len(hours(world, job)) == 20


def test_no_limits_delete_nothing(world):
    world.add(HOURLY)
    run_days(world, 4)
    world.pass_time(1_000 * DAY)
    assert prune(world, EVERYTHING) == 0


def test_all_attempts_of_a_moment_go_together(world):
    world.policy = RetryPolicy(delays=(24 * 3_600,))
    job = world.add(Interval(40 * HOUR))
    world.pass_time(40 * HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(24 * HOUR)
    world.finish(world.claim_one())
    world.pass_time(16 * HOUR)
    world.finish(world.claim_one())
    assert hours(world, job) == [40, 40, 80]
    world.pass_time(HOUR)
    assert prune(world, History(days=1, keep_last=0)) == 0, "the retry is young"
    assert prune(world, History(days=None, per_job=2, keep_last=0)) == 0, "its moment has one of the two newest runs"
    assert prune(world, History(days=None, per_job=1, keep_last=0)) == 2
    assert hours(world, job) == [80]


def test_a_moment_with_more_attempts_than_a_step_reads(world):
    world.policy = RetryPolicy(delays=(0,))
    job = world.add(HOURLY, max_retries=200)
    world.pass_time(HOUR)
    for _ in range(2 * WINDOW):
        world.finish(world.claim_one(), FAILURE)
    world.finish(world.claim_one())
    run_days(world, 1)
    prune(world, History(days=None, per_job=24, keep_last=0))
    assert hours(world, job) == list(range(2, 26))


def test_open_runs_stay(world):
    job = world.add(HOURLY, overlap=Overlap.ALLOW_ALL)
    world.pass_time(HOUR)
    stuck = world.claim_one()
    run_days(world, 4)
    prune(world, History(days=1, keep_last=0))
    assert hours(world, job) == [1, *range(74, 98)]
    world.finish(stuck)
    world.pass_time(2 * DAY)
    world.finish(world.claim_one())
    prune(world, History(days=1, keep_last=0))
    assert len(hours(world, job)) == 1


def test_the_history_of_a_removed_job_goes_too(world):
    job = world.add(HOURLY)
    run_days(world, 4)
    world.remove(job)
    prune(world, History(days=3, keep_last=10))
    assert hours(world, job) == list(range(25, 97))
    world.pass_time(30 * DAY)
    prune(world, History(days=3, keep_last=10))
    assert hours(world, job) == list(range(87, 97))


def test_a_job_has_limits_of_its_own(world):
    short = world.add(HOURLY, history=History(days=1, keep_last=0))
    endless = world.add(HOURLY, history=History(days=None, per_job=None))
    plain = world.add(HOURLY)
    run_days(world, 4)
    prune(world, History(days=2, per_job=30, keep_last=0))
    assert [len(hours(world, job)) for job in (short, endless, plain)] == [24, 96, 30]
    prune(world, EVERYTHING)
    assert [len(hours(world, job)) for job in (short, endless, plain)] == [24, 96, 30]
    world.update(endless, {"history": None})
    run_days(world, 1)
    prune(world, History(days=2, per_job=30, keep_last=0))
    assert len(hours(world, endless)) == 30


def test_a_job_that_loses_its_own_limits_and_has_no_new_runs_is_counted_within_a_week(world):
    job = world.add(HOURLY, history=History(days=None, per_job=None))
    run_days(world, 2)
    limits = History(days=None, per_job=10, keep_last=0)
    prune(world, limits)
    world.pause(job)
    world.update(job, {"history": None})
    world.pass_time(7 * DAY)
    assert prune(world, limits) == 38


def test_limits_that_cannot_be_read_keep_everything(world):
    job = world.add(HOURLY)
    world.damage(job, history='{"days": "x"}')
    run_days(world, 4)
    prune(world, History(days=1, per_job=1, keep_last=0))
    assert len(hours(world, job)) == 96


# Notifications


def notify(world, run, receiver: str = "on_finish", status: str = "pending") -> None:
    row = NotificationRow(
        id=0, key=None, run_id=run.id, receiver=receiver, job_id=run.job_id, created_at=world.now, status="pending"
    )
    world.do(lambda storage: storage.notifications.insert([row]))
    if status != "pending":
        world.do(lambda storage: storage.notifications.find(f"run:{run.id}"))


def pending(world) -> list[tuple[int | None, object]]:
    rows = world.do(lambda storage: storage.notifications.page(before=None, status="pending", receiver=None, limit=100)[0])
    return sorted((row.run_id, row.ready_at) for row in rows)


@pytest.mark.parametrize("receiver", ["on_finish", "mail"])
def test_a_run_stays_while_a_receiver_that_exists_has_to_be_notified(world, receiver):
    world.do(lambda storage: storage.insert_owner(storage.owners()[0]._replace(id=0, receivers='["mail"]')))
    job = world.add(HOURLY)
    run_days(world, 2)
    for run in world.history(job)[:3]:
        notify(world, run, receiver)
    world.do(lambda storage: storage.renew_lease(2, now=world.now, until=world.now + MINUTE, unless_later_than=world.now + 1))
    prune(world, History(days=1, keep_last=0))
    exists = receiver == "mail"
    assert hours(world, job) == [*([1, 2, 3] if exists else []), *range(25, 49)]
    assert len(pending(world)) == (3 if exists else 0)


def test_an_owner_that_has_been_silent_for_a_week_has_no_receivers_unless_it_is_ours(world):
    world.do(lambda storage: storage.insert_owner(storage.owners()[0]._replace(id=0, receivers='["mail"]')))
    job = world.add(HOURLY)
    run_days(world, 8)
    notify(world, world.history(job)[0], "mail")
    prune(world, History(days=1, keep_last=0), owners={2})
    assert hours(world, job)[0] == 1
    prune(world, History(days=1, keep_last=0), again=True)
    assert hours(world, job)[0] == 169


def test_a_notification_that_waited_for_one_that_was_deleted_is_released(world):
    job = world.add(HOURLY)
    run_days(world, 2)
    runs = world.history(job)
    for run in (runs[0], runs[30], runs[40]):
        notify(world, run)
    assert [ready_at for _, ready_at in pending(world)] == [0, None, None]
    prune(world, History(days=1, keep_last=0))
    assert pending(world) == [(runs[30].id, 0), (runs[40].id, None)]


def test_nothing_is_released_beside_one_that_is_ready(world):
    job = world.add(HOURLY)
    run_days(world, 2)
    runs = world.history(job)
    kept = runs[30], runs[40]
    for run in (runs[0], *kept):
        notify(world, run)
    for run in (runs[0], kept[0]):
        (row,) = world.do(lambda storage, key=f"run:{run.id}": storage.notifications.find(key))
        settled = Settlement(row.id, "given_up", 5, None, "no", row.receiver, row.job_id)
        world.do(lambda storage, settled=settled: storage.notifications.settle([settled], owner=0))
    for run in (runs[0], kept[0]):
        world.do(notifications.retry, f"run:{run.id}", None)
    assert [ready_at for _, ready_at in pending(world)] == [None, None, 0]
    prune(world, History(days=1, keep_last=0))
    assert pending(world) == [(kept[0].id, None), (kept[1].id, 0)], "the first waited too, and another one is ready"


# When it begins


def test_nothing_is_deleted_within_a_day_of_the_announcement(world):
    world.add(HOURLY)
    run_days(world, 4)
    limits = History(days=1, keep_last=0)
    begins = world.do(pruning_clock.start, limits)
    assert begins == world.now + NOTICE
    assert world.do(pruning_clock.start, limits) == begins, "the first caller may have been killed before it announced anything"
    assert world.do(pruning_clock.start, EVERYTHING) is None
    assert prune(world, limits, announced=False) == 0
    world.pass_time(NOTICE - 1)
    assert prune(world, limits, announced=False) == 0
    world.pass_time(1)
    assert world.do(pruning_clock.start, limits) is None
    assert prune(world, limits, announced=False) == 96


def test_a_store_without_history_needs_no_announcement(world):
    assert not world.do(pruning_clock.start, History())
    world.add(HOURLY)
    run_days(world, 4)
    assert prune(world, History(days=1, keep_last=0), announced=False) == 72


def test_without_an_announcement_nothing_is_deleted(world):
    world.add(HOURLY)
    run_days(world, 4)
    assert prune(world, History(days=1, keep_last=0), announced=False) == 0


UNREADABLE = [
    "x",
    "[]",
    "{}",
    '{"time": 1, "wall": null, "cursors": {}}',
    '{"time": 1, "cursors": 3}',
    '{"time": 1, "wall": 1, "announced_at": "", "cursors": {}}',
    '{"time": 1, "wall": 1, "announced_at": false, "cursors": {}}',
]


@pytest.mark.parametrize("fact", UNREADABLE)
def test_a_fact_that_cannot_be_read_is_written_anew(world, fact):
    world.add(HOURLY)
    run_days(world, 1)
    world.do(lambda storage: storage.set_meta("history", fact))
    search = world.round(History(days=0.1, keep_last=0))
    assert world.do(search.carry_out, lambda: False)
    assert (search.deleted, search.deletes_from) == (0, world.now + NOTICE)
    assert world.do(pruning_clock.read) is not None


def test_an_announcement_of_a_clock_that_was_ahead_counts_anew(world):
    world.add(HOURLY)
    run_days(world, 1)
    assert world.do(pruning_clock.start, History())
    world.now = T0
    assert world.do(pruning_clock.start, History())


def test_a_store_whose_first_run_has_just_finished_is_announced_too(world):
    """The run took four days; then the program is upgraded and started again."""
    world.add(at(T0 + SECOND))
    world.add(HOURLY)
    world.now = T0 + SECOND
    long = world.claim_one()
    run_days(world, 4)
    world.finish(long)
    assert world.do(pruning_clock.start, History(days=1)) == world.now + NOTICE


# The walks


def test_a_run_that_took_long_keeps_no_other_runs(world):
    """Neither of other jobs, nor of its own."""
    own, other = (world.add(HOURLY, overlap=Overlap.ALLOW_ALL) for _ in range(2))
    world.pass_time(HOUR)
    long = {claimed.run.job_id: claimed.run for claimed in world.claim()}
    world.finish(long[other])
    limits = History(days=1, keep_last=0)
    for day in range(6):
        run_days(world, 1)
        if day == 2:
            world.finish(long[own])
        prune(world, limits)
        if day > 1:
            young = list(range(24 * day + 2, 24 * day + 26))
            assert hours(world, own) == [*([1] if day == 2 else []), *young]
            assert hours(world, other) == young


def test_kept_runs_are_passed_over_once(world):
    """A thousand runs stay, since each is among the newest of its job: the next round reads none of them."""
    for _ in range(20):
        world.add(HOURLY)
    for _ in range(3):
        world.pass_time(HOUR)
        for claimed in world.claim(100):
            world.finish(claimed.run)
    world.pass_time(10 * DAY)
    assert prune(world, History(days=1)) == 0
    read: list[int] = []
    original = world.storage.pruning.runs_after

    def counting(run_id: int, *, limit: int):
        rows = original(run_id, limit=limit)
        read.append(len(rows))
        return rows

    world.storage.pruning.runs_after = counting
    assert prune(world, History(days=1)) == 0
    assert sum(read) == 0


def test_two_schedulers_with_different_limits_do_not_disturb_each_other(world):
    job = world.add(HOURLY)
    run_days(world, 4)
    for _ in range(3):
        prune(world, History(days=3, keep_last=0))
        prune(world, EVERYTHING)
        prune(world, History(days=None, per_job=90, keep_last=0))
        run_days(world, 1)
    assert len(hours(world, job)) == 72 + 24
    assert len(world.do(pruning_clock.read).cursors) == 3


@pytest.mark.parametrize(("most", "expected"), [(1, 8), (300, 300 + WINDOW)])
def test_a_step_deletes_fewer_runs_if_they_take_long(world, most, expected):
    """A piece is long enough when it has deleted so many."""
    world.add(MINUTELY)
    for _ in range(1_000):
        world.pass_time(MINUTE)
        world.finish(world.claim_one())
    assert prune(world, History(days=None, per_job=999, keep_last=0)) == 1
    search = world.round(History(days=None, per_job=1, keep_last=0))
    pieces = [0]
    while not world.do(search.carry_out, lambda: search.deleted >= pieces[-1] + most):
        pieces.append(search.deleted)
    sizes = [end - start for start, end in pairwise(pieces)]
    assert most <= max(sizes) <= expected
    if most == 1:
        assert set(sizes[4:]) == {1}


def test_a_round_goes_in_small_steps_and_another_may_begin_between_them(world):
    job = world.add(HOURLY)
    run_days(world, 20)
    limits = History(days=1, per_job=1_000, keep_last=0)
    world.do(pruning_clock.start, limits)
    world.pass_time(NOTICE)
    first, second = world.round(limits), world.round(limits)
    pieces = 0
    ended = [False, False]
    while not all(ended):
        for index, search in enumerate((first, second)):
            if not ended[index]:
                ended[index] = world.do(search.carry_out, lambda: True)
                pieces += 1
        if not world.claim():
            world.pass_time(MINUTE)
    assert pieces > 10
    assert len(hours(world, job)) < 40
    assert first.deleted + second.deleted >= 456
