"""Who killed the process: jobs whose last two runs ended with it start one at a time, so that the next crash tells."""

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


@pytest.fixture(params=KINDS)
def world(request):
    with closing(World(request.param)) as made:
        yield made


def make_suspects(world: World, *jobs: str) -> None:
    """Let the jobs, all of which are due, go down with their process as often as costs nothing."""
    for _ in range(FREE_CRASHES):
        assert {claimed.run.job_id for claimed in world.claim()} >= set(jobs)
        world.crash()
    assert all(world.job(job).crashes == FREE_CRASHES for job in jobs)


@pytest.mark.parametrize(("crashes", "suspect"), [(0, False), (1, False), (2, True), (3, True), (1_000, True)])
def test_a_job_is_a_suspect_from_the_last_crash_on_that_costs_nothing(crashes, suspect):
    assert in_crash_loop(crashes) is suspect


def test_suspects_start_one_at_a_time_and_others_beside_them(world):
    suspects = [world.add(at(T0 + number)) for number in range(3)]
    world.pass_time(10)
    make_suspects(world, *suspects)
    others = [world.add(at(world.now + number)) for number in range(2)]
    world.pass_time(10)
    first, *beside = world.claim()
    assert first.run.job_id == suspects[0]
    assert [claimed.run.job_id for claimed in beside] == others
    assert [world.history(job)[-1].waits_for for job in suspects[1:]] == [CRASH_LOOP] * 2
    for claimed in beside:
        world.finish(claimed.run)
    assert world.claim() == []
    world.finish(first.run)
    for job in suspects[1:]:
        run = world.begin()
        assert (run.job_id, run.attempt) == (job, FREE_CRASHES + 1)
        world.finish(run)
    assert [world.job(job).crashes for job in suspects] == [0] * 3
    assert world.claim() == []


def test_a_long_run_beside_a_job_that_kills_its_process_loses_nothing(world):
    long = world.add(at(T0), max_retries=0)
    killer = world.add(at(T0 + 1), max_retries=3)
    world.pass_time(1)
    make_suspects(world, long, killer)
    run = world.begin()  # without the killer, and so to its end
    assert run.job_id == long
    world.pass_time(HOUR)
    assert world.claim() == []
    world.finish(run)
    while world.job(killer).enabled:
        assert world.begin().job_id == killer
        world.crash()
        world.pass_time(HOUR)
    assert "6 times in a row" in (world.job(killer).last_error or "")
    assert [told[:2] for told in world.told(long)] == [("failed", "interrupted")] * 2 + [("success", None)]


def test_the_runs_of_one_job_that_one_crash_ends_count_once(world):
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
def test_whatever_becomes_of_a_suspect_the_next_one_starts(world, end):
    first, second, third = (world.add(at(T0 + number)) for number in range(3))
    world.pass_time(10)
    make_suspects(world, first, second, third)
    run = world.begin()
    assert run.job_id == first
    if end == "removed":
        world.remove(first)
        world.finish(run)
    elif end == "edited":
        world.update(first, {"schedule": at(world.now + DAY)})
    elif end == "paused":
        world.finish(run)
        world.pause(second)  # whose turn it is
        assert world.begin().job_id == third
        return
    elif end == "cancelled":
        world.cancel(world.history(second)[-1])
        world.finish(run)
        assert world.begin().job_id == third
        return
    elif end == "failed":
        world.finish(run, FAILURE)
    else:
        world.pause(first)
        world.resume(first)
    assert world.begin().job_id == second


def test_a_suspect_waits_for_its_session_and_for_other_suspects_and_loses_no_turn(world):
    main = {"session_mode": SessionMode.MAIN, "user_id": "ann"}
    in_session, alone = world.add(at(T0), **main), world.add(at(T0 + 1))
    world.pass_time(10)
    make_suspects(world, in_session, alone)
    other = world.add(at(world.now - MINUTE // 2), **main)
    first, beside = world.claim()
    assert (first.run.job_id, beside.run.job_id) == (other, alone)
    assert world.history(in_session)[-1].waits_for == "session:ann"
    world.finish(first.run)
    assert world.claim() == []
    assert world.history(in_session)[-1].waits_for == CRASH_LOOP
    another = world.add(at(world.now), **main)
    (third,) = world.claim()  # the session is not kept for one that waits for something else
    assert third.run.job_id == another
    world.finish(third.run)
    world.finish(beside.run)
    assert world.begin().job_id == in_session


def test_a_job_pays_although_its_run_was_to_be_replaced_when_it_ended_its_process(world):
    job = world.add(overlap=Overlap.CANCEL_OTHER, max_retries=2)
    for _ in range(60):
        world.pass_time(MINUTE)
        world.do(cancel_overlapped)
        if not world.claim():
            continue
        world.pass_time(MINUTE)
        world.do(cancel_overlapped)  # which it does not heed
        world.crash()
    row = world.job(job)
    assert (row.enabled, row.crashes) == (0, 5)
    assert "5 times in a row" in (row.last_error or "")


def test_suspects_start_one_at_a_time_over_all_owners(world):
    first, second = world.add(at(T0)), world.add(at(T0 + 1))
    world.pass_time(10)
    make_suspects(world, first, second)
    there = world.register(process("there"))
    (claimed,) = world.claim(owner=there)
    assert claimed.run.job_id == first
    assert world.claim() == []
    world.finish(claimed.run, owner=there)
    assert world.begin().job_id == second


def test_an_own_loop_is_told_that_a_suspect_has_to_wait(world):
    first, second = world.add(at(T0)), world.add(at(T0 + 1))
    world.pass_time(10)
    make_suspects(world, first, second)
    run = world.start(first)
    with pytest.raises(JobBusy, match="ended with their process"):
        world.start(second)
    world.complete(run)
    assert world.start(second).attempt == FREE_CRASHES + 1


class Load:
    """Jobs of any length in four slots; some kill their process each time. Time jumps to whatever comes next."""

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
        waits.append(world.do(lambda storage: storage.next_times().cancelling))
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
        """How many retries the most unlucky of the others has spent on crashes; each moment has a budget of its own."""
        others = [job for job in self.lengths if job not in self.killers]
        assert all(
            "times in a row" not in (self.world.job(job).last_error or "") or self.world.job(job).enabled for job in others
        )
        return max((run.failures for job in others for run in self.world.history(job)), default=0)


@pytest.mark.parametrize("seed", range(40))
def test_only_a_job_that_kills_its_process_each_time_pays_and_it_stops(seed):
    with closing(Load(seed, killers=1)) as load:
        load.run()
        assert load.crashes > FREE_CRASHES
        assert load.paid() == 0


@pytest.mark.parametrize("seed", range(40))
def test_jobs_that_kill_their_process_each_time_stop_all_and_others_pay_little(seed):
    with closing(Load(seed, killers=3)) as load:
        load.run()
        assert load.paid() <= 2 * FREE_CRASHES


def test_what_comes_due_while_a_job_waits_for_its_backoff_is_one_row_at_the_first_of_its_moments(world):
    """A job that cancels its other, and ends its process: nothing ran for five minutes before its retry was to start."""
    job = world.add(MINUTELY, overlap=Overlap.CANCEL_OTHER, max_retries=3)
    world.pass_time(MINUTE)
    make_suspects(world, job)
    world.begin()
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
