"""Crash loops: jobs whose last two runs ended with their process start one at a time, so that the next crash shows which job it was."""

from __future__ import annotations

import random
from contextlib import closing

import pytest

from cronactors.errors import JobBusy
from cronactors.instants import Millis
from cronactors.ledger.cancel_other import cancel_overlapped
from cronactors.model import Overlap, SessionMode
from cronactors.policy import FREE_CRASHES, in_crash_loop
from cronactors.schedules.schedule import Interval
from cronactors.storage.rows import CRASH_LOOP, RunRow
from tests.ledger_world import DAY, FAILURE, HOUR, KINDS, MINUTE, MINUTELY, T0, World, at, process


def crash_for_free(world: World, *jobs: str) -> None:
    """Crash while the jobs, which are all due, are running, as often as that costs no retry."""
    for _ in range(FREE_CRASHES):
        assert {claimed.run.job_id for claimed in world.claim()} >= set(jobs)
        world.crash()
    assert all(world.job(job).crashes == FREE_CRASHES for job in jobs)


@pytest.mark.parametrize(("crashes", "in_loop"), [(0, False), (1, False), (2, True), (3, True), (1_000, True)])
def test_a_job_is_in_a_crash_loop_from_the_last_crash_on_that_costs_nothing(crashes, in_loop):
    assert in_crash_loop(crashes) is in_loop


def test_jobs_in_a_crash_loop_start_one_at_a_time_and_others_at_any_time(world):
    crash_loops = [world.add(at(T0 + number)) for number in range(3)]
    world.pass_time(10)
    crash_for_free(world, *crash_loops)
    others = [world.add(at(world.now + number)) for number in range(2)]
    world.pass_time(10)
    first, *beside = world.claim()
    assert first.run.job_id == crash_loops[0]
    assert [claimed.run.job_id for claimed in beside] == others
    assert [world.history(job)[-1].waits_for for job in crash_loops[1:]] == [CRASH_LOOP] * 2
    for claimed in beside:
        world.finish(claimed.run)
    assert world.claim() == []
    world.finish(first.run)
    for job in crash_loops[1:]:
        run = world.claim_one()
        assert (run.job_id, run.attempt) == (job, FREE_CRASHES + 1)
        world.finish(run)
    assert [world.job(job).crashes for job in crash_loops] == [0] * 3
    assert world.claim() == []


def test_a_long_run_loses_nothing_to_a_job_that_kills_the_process(world):
    long = world.add(at(T0), max_retries=0)
    killer = world.add(at(T0 + 1), max_retries=3)
    world.pass_time(1)
    crash_for_free(world, long, killer)
    run = world.claim_one()  # without the job that kills the process
    assert run.job_id == long
    world.pass_time(HOUR)
    assert world.claim() == []
    world.finish(run)
    while world.job(killer).enabled:
        assert world.claim_one().job_id == killer
        world.crash()
        world.pass_time(HOUR)
    assert "6 times in a row" in (world.job(killer).last_error or "")
    assert [summary[:2] for summary in world.summary(long)] == [("failed", "interrupted")] * 2 + [("success", None)]


def test_a_crash_counts_once_for_a_job_with_several_runs(world):
    job = world.add(MINUTELY, overlap=Overlap.ALLOW_ALL)
    for _ in range(5):
        world.pass_time(MINUTE)
        world.claim()
    assert len(world.crash()) == 5
    assert world.job(job).crashes == 1
    assert [claimed.run.failures for claimed in world.claim()] == [0] * 5
    world.crash()
    assert world.job(job).crashes == 2
    assert [claimed.run.failures for claimed in world.claim()] == [0]


@pytest.mark.parametrize("end", ["removed", "edited", "paused", "cancelled", "failed", "resumed"])
def test_the_next_job_in_a_crash_loop_starts_however_the_running_one_finishes(world, end):
    first, second, third = (world.add(at(T0 + number)) for number in range(3))
    world.pass_time(10)
    crash_for_free(world, first, second, third)
    run = world.claim_one()
    assert run.job_id == first
    if end == "removed":
        world.remove(first)
        world.finish(run)
    elif end == "edited":
        world.update(first, {"schedule": at(world.now + DAY)})
    elif end == "paused":
        world.finish(run)
        world.pause(second)  # the one that is next
        assert world.claim_one().job_id == third
        return
    elif end == "cancelled":
        world.cancel(world.history(second)[-1])
        world.finish(run)
        assert world.claim_one().job_id == third
        return
    elif end == "failed":
        world.finish(run, FAILURE)
    else:
        world.pause(first)
        world.resume(first)
    assert world.claim_one().job_id == second


def test_a_job_in_a_crash_loop_waits_for_its_session_and_for_other_such_jobs(world):
    main = {"session_mode": SessionMode.MAIN, "user_id": "ann"}
    in_session, alone = world.add(at(T0), **main), world.add(at(T0 + 1))
    world.pass_time(10)
    crash_for_free(world, in_session, alone)
    other = world.add(at(world.now - MINUTE // 2), **main)
    first, beside = world.claim()
    assert (first.run.job_id, beside.run.job_id) == (other, alone)
    assert world.history(in_session)[-1].waits_for == "session:ann"
    world.finish(first.run)
    assert world.claim() == []
    assert world.history(in_session)[-1].waits_for == CRASH_LOOP
    another = world.add(at(world.now), **main)
    (third,) = world.claim()  # the session is not reserved for a run that waits for a crash loop
    assert third.run.job_id == another
    world.finish(third.run)
    world.finish(beside.run)
    assert world.claim_one().job_id == in_session


def test_a_crash_costs_a_retry_although_the_run_was_to_be_replaced(world):
    job = world.add(overlap=Overlap.CANCEL_OTHER, max_retries=2)
    for _ in range(60):
        world.pass_time(MINUTE)
        world.do(cancel_overlapped)
        if not world.claim():
            continue
        world.pass_time(MINUTE)
        world.do(cancel_overlapped)  # which the running run ignores
        world.crash()
    row = world.job(job)
    assert (row.enabled, row.crashes) == (0, 5)
    assert "5 times in a row" in (row.last_error or "")


def test_jobs_in_a_crash_loop_start_one_at_a_time_over_all_owners(world):
    first, second = world.add(at(T0)), world.add(at(T0 + 1))
    world.pass_time(10)
    crash_for_free(world, first, second)
    there = world.register(process("there"))
    (claimed,) = world.claim(owner=there)
    assert claimed.run.job_id == first
    assert world.claim() == []
    world.finish(claimed.run, owner=there)
    assert world.claim_one().job_id == second


def test_an_own_loop_gets_an_error_where_a_job_in_a_crash_loop_has_to_wait(world):
    first, second = world.add(at(T0)), world.add(at(T0 + 1))
    world.pass_time(10)
    crash_for_free(world, first, second)
    run = world.start(first)
    with pytest.raises(JobBusy, match="ended with their process"):
        world.start(second)
    world.finish_own(run)
    assert world.start(second).attempt == FREE_CRASHES + 1


class Load:
    """Jobs of any length in four slots; some kill their process each time. Time jumps to the next thing to do."""

    def __init__(self, seed: int, killers: int) -> None:
        chance = random.Random(seed)
        self.world = World(KINDS[0])
        self.lengths: dict[str, Millis] = {}
        for number in range(killers + chance.randint(1, 10)):
            schedule = at(T0 + number) if chance.random() < 0.4 else Interval(chance.choice([10 * MINUTE, HOUR]))
            options = {"max_retries": chance.randint(0, 3) if number < killers else 3}
            job = self.world.add(schedule, overlap=chance.choice([*Overlap, Overlap.SKIP, Overlap.SKIP]), **options)
            self.lengths[job] = round(10 ** chance.uniform(0, 6.5))
        self.killers = set(list(self.lengths)[:killers])
        self.running: list[tuple[Millis, RunRow]] = []
        self.crashes = 0

    def close(self) -> None:
        self.world.close()

    def step(self) -> None:
        world = self.world
        world.do(cancel_overlapped)
        started = [claimed.run for claimed in world.claim(limit=4 - len(self.running))]
        self.running += [(world.now + self.lengths[run.job_id], run) for run in started]
        waits = [world.do(lambda storage: storage.next_times().due) if len(self.running) < 4 else None]
        waits.append(world.do(lambda storage: storage.next_times().slotless))
        world.now = max(
            world.now + 1, min(moment for moment in [*waits, *(end for end, _ in self.running)] if moment is not None)
        )
        self.running.sort(key=lambda each: each[0])
        while self.running and self.running[0][0] <= world.now:
            _, run = self.running.pop(0)
            if run.job_id in self.killers:
                self.running.clear()
                self.crashes += 1
                world.crash()
            else:
                world.finish(run)

    def run(self) -> None:
        for _ in range(3_000):
            if not any(self.world.job(job).enabled for job in self.killers):
                return
            self.step()
        raise AssertionError("a job that kills its process goes on")

    def paid(self) -> int:
        """Return the most retries that one moment of another job has spent on crashes."""
        others = [job for job in self.lengths if job not in self.killers]
        assert all(
            "times in a row" not in (self.world.job(job).last_error or "") or self.world.job(job).enabled for job in others
        )
        return max((run.failures for job in others for run in self.world.history(job)), default=0)


@pytest.mark.parametrize("seed", range(40))
def test_only_a_job_that_kills_its_process_each_time_pays_retries_and_is_disabled(seed):
    with closing(Load(seed, killers=1)) as load:
        load.run()
        assert load.crashes > FREE_CRASHES
        assert load.paid() == 0


@pytest.mark.parametrize("seed", range(40))
def test_all_jobs_that_kill_their_process_each_time_are_disabled_and_others_pay_little(seed):
    with closing(Load(seed, killers=3)) as load:
        load.run()
        assert load.paid() <= 2 * FREE_CRASHES


def test_moments_during_the_delay_of_a_crash_loop_make_one_row_at_the_first_of_them(world):
    """A job with CANCEL_OTHER that kills its process; no scheduler was running for the five minutes before its retry was due."""
    job = world.add(MINUTELY, overlap=Overlap.CANCEL_OTHER, max_retries=3)
    world.pass_time(MINUTE)
    crash_for_free(world, job)
    world.claim_one()
    world.crash()
    retry = world.history(job)[-1]
    assert (retry.status, retry.id) == ("pending", world.job(job).held_by)
    world.pass_time(5 * MINUTE)
    assert world.do(cancel_overlapped)
    row = world.history(job)[-1]
    assert (row.status, row.cause, row.scheduled_at, row.range_at, row.coalesced) == (
        "skipped",
        "overlap",
        T0 + 2 * MINUTE,
        T0 + 6 * MINUTE,
        5,
    )
    assert world.run(retry).status == "pending"
