"""Moments whose rows were pruned are decided: after the clock was set back nothing claims them, whatever is done to their job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from cronactors.instants import Millis
from cronactors.ledger import pruning_clock
from cronactors.ledger.explain import explain
from cronactors.ledger.pruning_clock import HistoryClock
from cronactors.model import Cause, Explanation, Fate, Overlap
from cronactors.retention import History
from cronactors.schedules.schedule import Cron, Interval
from tests.ledger_world import DAY, HOUR, KINDS, MINUTE, MINUTELY, NEWEST_MOMENT, SECOND, T0, PrunedWorld, at


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest) -> Iterator[PrunedWorld]:
    with closing(PrunedWorld(request.param)) as made:
        yield made


def run_due(every: Millis, world, count: int) -> list[Millis]:
    """Let time pass and run what is due, several times; return the moments after T0 that were started, in steps."""
    moments = []
    for _ in range(count):
        world.pass_time(every)
        for claimed in world.claim():
            moments.append((claimed.run.scheduled_at - T0) // every)
            world.finish(claimed.run)
    return moments


run_minutes = partial(run_due, MINUTE)
run_hours = partial(run_due, HOUR)


def shown(world, job: str, moment: Millis) -> Explanation:
    return world.do(lambda storage: explain(storage, storage.jobs([job])[job], moment))


EVERY_MINUTE = [Interval(MINUTE), Cron("* * * * *")]


@pytest.mark.parametrize("schedule", EVERY_MINUTE)
def test_a_job_that_is_resumed_after_the_clock_was_set_back(world, schedule):
    job = world.add(schedule)
    assert run_minutes(world, 60) == list(range(1, 61))
    assert world.job(job).pruned_until == T0 + 59 * MINUTE
    world.pause(job)
    world.set_back(HOUR // 2)
    assert world.resume(job).next_run_at == T0 + 60 * MINUTE
    assert run_minutes(world, 35) == list(range(61, 66))


@pytest.mark.parametrize("schedule", EVERY_MINUTE)
def test_a_job_that_is_edited_after_the_clock_was_set_back(world, schedule):
    job = world.add(Interval(2 * MINUTE))
    run_minutes(world, 60)
    world.set_back(HOUR // 2)
    assert world.update(job, {"schedule": schedule}).next_run_at == T0 + 59 * MINUTE
    assert run_minutes(world, 32) == [59, 61, 62]


def test_a_one_shot_takes_the_time_that_a_user_gives_it(world):
    job = world.add(MINUTELY)
    run_minutes(world, 60)
    world.set_back(HOUR // 2)
    world.update(job, {"schedule": at(T0 + 40 * MINUTE + SECOND)})
    assert run_minutes(world, 11) == [40]


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.CANCEL_OTHER, Overlap.BUFFER_ALL])
@pytest.mark.parametrize("schedule", EVERY_MINUTE)
def test_a_clock_that_is_set_to_another_age_and_right_again(world, schedule, overlap):
    """In 1970 the job runs moments of that time; afterwards those that it has run before stay decided."""
    job = world.add(schedule, overlap=overlap)
    run_minutes(world, 60)
    now = world.now
    world.set_back(now - 10 * DAY)
    ran = run_minutes(world, 5)
    assert len(ran) == 5
    world.now = now
    ran = run_minutes(world, 5)
    assert min(ran) > 60
    runs = [run for run in world.history(job) if run.status == "success" and run.scheduled_at >= T0]
    assert all(run.span[0] > T0 + 59 * MINUTE for run in runs if run.coalesced > 1)
    assert len({run.scheduled_at for run in runs}) == len(runs) == 65 - (5 - len(ran))


def test_a_run_that_finishes_after_the_clock_went_back_and_forth_overlaps_no_pruned_moment(world):
    job = world.add(MINUTELY, overlap=Overlap.BUFFER_ALL)
    run_minutes(world, 60)
    now = world.now
    world.set_back(now - 10 * DAY)
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.now = now + 30 * SECOND
    world.finish(run)
    assert [row.scheduled_at for row in world.history(job)[61:] if row.status == "pending"] == []
    assert run_minutes(world, 3) == [61, 62, 63]


def test_a_passed_one_shot_whose_row_was_pruned_is_not_recorded_again(world):
    spec = world.spec(at(T0 + MINUTE), name="once")
    (job,) = world.upsert(spec)
    run_minutes(world, 1)
    other = world.request(job)
    world.finish(world.claim_one())
    world.pass_time(DAY)
    world.do(
        lambda storage: storage.pruning.delete_runs(job, storage.pruning.oldest_runs(job, after=0, until=T0 + MINUTE, limit=9))
    )
    world.do(lambda storage: storage.pruning.set_pruned_until(job, T0 + MINUTE))
    world.update(job, {"schedule": MINUTELY})
    upserted = world.upsert_list((job, world.spec(at(T0 + MINUTE), name="once")[1]), keeps_passed=True)
    assert upserted.passed == []
    assert all(run.cause != Cause.MISFIRE for run in world.history(job))
    assert other.manual


# A clock that was ahead


def test_while_the_clock_is_ahead_for_less_than_a_day_no_run_of_that_time_is_pruned(world):
    job = world.add(MINUTELY)
    run_minutes(world, 10)
    world.now += 1_000 * DAY
    run_minutes(world, 100)
    assert world.job(job).pruned_until == T0 + 10 * MINUTE
    assert world.do(pruning_clock.read).time < T0 + HOUR * 3
    world.now -= 1_000 * DAY
    world.notice_set_back(1_000 * DAY, set_to=world.now)
    ran = run_minutes(world, 10)
    assert len(ran) == 10, "the job is not silent"


def test_a_clock_that_was_ahead_for_days_does_not_silence_a_job(world):
    """It was believed, and runs of that time were pruned. They don't count: their job would be silent for twenty days."""
    job = world.add(MINUTELY)
    run_minutes(world, 10)
    world.now += 20 * DAY
    for _ in range(26):
        world.pass_time(HOUR)
        for claimed in world.claim():
            world.finish(claimed.run)
    run_minutes(world, 10)
    assert world.job(job).pruned_until > T0 + 20 * DAY
    world.set_back(20 * DAY)
    assert len(run_minutes(world, 10)) == 10


def test_a_pruned_moment_far_ahead_is_replaced_by_the_next_one_that_is_pruned(world):
    job = world.add(MINUTELY)
    run_minutes(world, 10)
    world.do(lambda storage: storage.pruning.set_pruned_until(job, world.now + 1_000 * DAY))
    run_minutes(world, 3)
    assert world.job(job).pruned_until == T0 + 12 * MINUTE


@pytest.mark.parametrize("changed", [False, True])
def test_a_clock_that_is_set_back_by_two_months_runs_no_pruned_moment_again(world, changed):
    job = world.add(Interval(HOUR))
    run_hours(world, 70 * 24)
    world.set_back(60 * DAY)
    if changed:
        world.pause(job)
        world.resume(job)
    assert run_hours(world, 24) == []
    world.now += 60 * DAY - 2 * HOUR
    ran = run_hours(world, 4)
    assert min(ran) > 70 * 24 - 2
    assert ran[-1] == 71 * 24 + 2


def test_a_clock_that_was_ahead_by_two_months_for_days_does_not_silence_a_job(world):
    world.add(Interval(HOUR))
    run_hours(world, 24)
    world.now += 60 * DAY
    run_hours(world, 30)
    assert world.job("id1").pruned_until > T0 + 62 * DAY
    world.set_back(60 * DAY)
    assert len(run_hours(world, 10)) == 10


def test_a_clock_that_goes_back_and_right_again_has_lived_through_both_times():
    clock = HistoryClock(time=T0, wall=T0).advanced(T0 + MINUTE, MINUTE)
    for hour in range(1, 40 * 24):
        clock = clock.advanced(T0 + hour * HOUR, HOUR)
    clock = clock.advanced(T0 + DAY, HOUR)
    assert clock.has_lived(T0 + DAY, T0 + 39 * DAY)
    for hour in range(26):
        clock = clock.advanced(T0 + 41 * DAY + hour * HOUR, HOUR)
    assert clock.time == T0 + 42 * DAY + HOUR
    assert clock.has_lived(T0 + DAY, T0 + 42 * DAY)
    for hour in range(26):
        clock = clock.advanced(T0 + 100 * DAY + hour * HOUR, HOUR)
    assert not clock.has_lived(T0 + DAY, T0 + 42 * DAY)
    assert clock.has_lived(T0 + 100 * DAY, T0 + 101 * DAY)


# The clock of the history


def test_the_clock_follows_the_wall_clock_while_that_goes_evenly():
    clock = HistoryClock(time=T0, wall=T0)
    for hour in range(1, 5):
        clock = clock.advanced(T0 + hour * HOUR, HOUR)
        assert (clock.time, clock.doubted_at) == (T0 + hour * HOUR, None)
    clock = clock.advanced(T0, HOUR)
    assert clock.time == T0, "it is set back with the wall clock"


def test_a_jump_ahead_is_believed_after_a_day():
    clock = HistoryClock(time=T0, wall=T0)
    start = T0 + 100 * DAY
    clock = clock.advanced(start, 0)
    for hour in range(1, 24):
        clock = clock.advanced(start + hour * HOUR, HOUR)
        assert clock.time == T0 + hour * HOUR
    clock = clock.advanced(start + DAY, HOUR)
    assert (clock.time, clock.jumped_to, clock.doubted_at) == (start + DAY, start, None)


def test_a_program_that_is_started_again_each_hour_believes_it_too():
    clock = HistoryClock(time=T0, wall=T0)
    for hour in range(26):
        clock = clock.advanced(T0 + 10 * DAY + hour * HOUR, 0)
    assert clock.time == T0 + 10 * DAY + 25 * HOUR - HOUR


def test_a_program_that_runs_for_an_hour_a_week_believes_the_time_of_the_week_before():
    clock = HistoryClock(announced_at=T0, time=T0, wall=T0)
    for week in range(1, 10):
        shown = clock.wall
        clock = clock.advanced(T0 + 7 * DAY * week, 0)
        assert clock.time == (shown if week > 1 else T0)
        for _ in range(6):
            clock = clock.advanced(clock.wall + 10 * MINUTE, 10 * MINUTE)
    assert clock.may_delete
    assert clock.jumped_to == T0 + 7 * DAY * 8


def test_a_running_program_believes_no_jump_because_of_a_second_one():
    clock = HistoryClock(time=T0, wall=T0).advanced(T0 + 1_000 * DAY, MINUTE)
    clock = clock.advanced(T0 + 2_000 * DAY, MINUTE)
    assert clock.time == T0 + 2 * MINUTE


def test_a_second_jump_is_not_believed_because_of_the_first():
    clock = HistoryClock(time=T0, wall=T0).advanced(T0 + HOUR, 0)
    for hour in range(2, 24):
        clock = clock.advanced(T0 + hour * HOUR, HOUR)
    clock = clock.advanced(T0 + 1_000 * DAY, HOUR)
    assert clock.time == T0 + 23 * HOUR


def test_a_jump_ahead_that_is_taken_back_leaves_nothing():
    clock = HistoryClock(time=T0, wall=T0).advanced(T0 + DAY, MINUTE).advanced(T0 + 2 * MINUTE, MINUTE)
    assert clock == HistoryClock(time=T0 + 2 * MINUTE, wall=T0 + 2 * MINUTE, lived_since=T0 + MINUTE, lived_until=T0 + 2 * MINUTE)


def test_two_schedulers_do_not_add_up_their_times():
    clock = HistoryClock(time=T0, wall=T0)
    clock = clock.advanced(T0 + 10 * DAY, HOUR)
    for _ in range(10):
        clock = clock.advanced(clock.wall + MINUTE, HOUR)
    assert clock.time == T0 + HOUR + 10 * MINUTE


# Explain


def test_a_pruned_moment_is_explained_as_before_the_history_that_is_kept(world):
    job = world.add(Cron("* * * * *"))
    run_minutes(world, 10)
    explained = {minute: shown(world, job, T0 + minute * MINUTE) for minute in (5, 10, 11)}
    assert [each.outcome for each in explained.values()] == [Fate.PRUNED, Fate.RUN, Fate.WILL_RUN]
    assert "before the history that is kept" in explained[5].text
    between = shown(world, job, T0 + 5 * MINUTE + SECOND)
    assert between.outcome == Fate.NO_MOMENT


def test_a_time_before_the_job_was_added_was_not_planned_also_after_pruning(world):
    job = world.add(Cron("* * * * *"))
    run_minutes(world, 10)
    assert shown(world, job, T0 - 30 * DAY).outcome is Fate.NOT_PLANNED


def test_the_rows_that_are_kept_are_explained_by_themselves(world):
    job = world.add(Cron("* * * * *"))
    world.pass_time(10 * MINUTE)
    world.finish(world.claim_one())
    run_minutes(world, 1)
    world.prune(NEWEST_MOMENT)
    world.prune(History(days=None, per_job=1, keep_last=0))
    assert world.job(job).pruned_until == T0 + 10 * MINUTE
    found = shown(world, job, T0 + 11 * MINUTE)
    assert found.outcome == Fate.RUN
