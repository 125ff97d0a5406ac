"""The wall clock being set under a scheduler, or while none runs."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

import cronactors
from cronactors import (
    Cron,
    CronConfig,
    Fate,
    Interval,
    JobContext,
    OneShot,
    Retry,
    RunStatus,
    open_scheduler,
    open_store,
)
from cronactors.instants import from_millis
from cronactors.testing import VirtualClock
from cronactors.wallclock import system_wall
from tests.workers import START, after, history


class Times:
    """An executor that notes its moments and when they ran, on the wall clock, in seconds since the start."""

    def __init__(self) -> None:
        self.ran: list[float] = []
        self.moments: list[float] = []

    async def __call__(self, context: JobContext) -> None:
        self.ran.append((cronactors.now() - START).total_seconds())
        self.moments.append((context.scheduled_at - START).total_seconds())


async def test_a_jump_forward_makes_one_late_run_of_all_that_was_missed(virtual_clock: VirtualClock) -> None:
    times = Times()
    async with open_scheduler(":memory:", times) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(60_000))
        await trio.sleep(90)
        virtual_clock.set_wall(after(3630))
        await trio.sleep(60)
        runs = await history(scheduler)
        assert [run.coalesced for run in runs] == [1, 59, 1]
        assert times.moments == [60, 3600, 3660]
        assert times.ran == [60, 3630, 3660]


async def test_a_jump_forward_does_not_move_a_timeout(virtual_clock: VirtualClock) -> None:
    async def executor(context: JobContext) -> None:
        await trio.sleep(20)

    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(10)), timeout_secs=30)
        await trio.sleep(15)
        virtual_clock.set_wall(after(100_000))
        await trio.sleep(30)
        (run,) = await history(scheduler)
        assert (run.status, run.started_at) == (RunStatus.SUCCESS, after(10))


@pytest.mark.parametrize("back", [5, 45, 3600, 20_000])
async def test_a_jump_back_runs_no_moment_twice_and_silences_no_job(virtual_clock: VirtualClock, back: float) -> None:
    times = Times()
    async with open_scheduler(":memory:", times) as scheduler:
        await scheduler.store.add_job("interval", "it", Interval(60_000))
        await scheduler.store.add_job("cron", "it", Cron("* * * * *"))
        await scheduler.store.add_job("once", "it", OneShot(after(7230)))
        await trio.sleep(7250)
        assert len(times.ran) == 2 * 120 + 1
        virtual_clock.set_wall(after(7250 - back))
        before = len(times.ran)
        await trio.sleep(back + 130)
        runs = await history(scheduler)
        keys = [(run.job_name, run.scheduled_at) for run in runs]
        assert len(set(keys)) == len(keys)
        for job in await scheduler.store.list_jobs():
            assert job.name == "once" or (
                job.next_run_at is not None and job.next_run_at <= cronactors.now() + timedelta(minutes=1)
            )
        # No moment comes a second time, so for the length of the jump there is nothing new, unless it goes before the first run.
        new = [name for name, _ in keys[before:]]
        assert new.count("interval") >= 2
        assert new.count("cron") >= 2


async def test_a_jump_back_found_at_the_next_start_silences_no_job(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    times = Times()
    async with open_scheduler(tmp_path / "a.db", times) as scheduler:
        await scheduler.store.add_job("job", "it", Cron("0 * * * *"))
        await trio.sleep(7201)
    virtual_clock.set_wall(after(-86_400 * 30))
    async with open_scheduler(tmp_path / "a.db", times) as scheduler:
        await trio.sleep(7201)
        assert len(times.ran) == 4
        moments = [run.scheduled_at for run in await history(scheduler)]
        assert len(set(moments)) == 4


@pytest.mark.parametrize("schedule", [Interval(60_000), Cron("* * * * *")], ids=["interval", "cron"])
async def test_what_was_entered_while_the_clock_was_ahead_does_not_wait_for_that_time(
    virtual_clock: VirtualClock, tmp_path: Path, schedule: Interval | Cron
) -> None:
    times = Times()
    virtual_clock.set_wall(after(30 * 86_400))
    async with open_store(tmp_path / "a.db") as store:
        await store.add_job("ahead", "it", schedule)
        asked = await store.request_run(await store.add_job("asked for", "it", OneShot(after(31 * 86_400))))
    virtual_clock.set_wall(after(0))
    async with open_store(tmp_path / "a.db") as store:
        await store.add_job("neighbour", "it", Interval(86_400_000))
    async with open_scheduler(tmp_path / "a.db", times) as scheduler:
        await trio.sleep(150)
        assert [run.job_name for run in await history(scheduler)] == ["asked for", "ahead", "ahead"]
        assert (await scheduler.store.get_run(asked)).started_at == after(0)
        assert all(job.created_at <= cronactors.now() for job in await scheduler.store.list_jobs())


async def test_a_retry_waits_its_time_though_a_job_was_added_while_the_clock_was_ahead(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    async def executor(context: JobContext) -> None:
        raise Retry(after=3600)

    async with open_scheduler(tmp_path / "a.db", executor) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(10)))
        await trio.sleep(20)
    virtual_clock.set_wall(after(30 * 86_400))
    async with open_store(tmp_path / "a.db") as store:
        await store.add_job("ahead", "it", Interval(60_000))
    virtual_clock.set_wall(after(20))
    for _ in range(3):
        async with open_scheduler(tmp_path / "a.db", executor) as scheduler:
            await trio.sleep(10)
            job = await scheduler.store.get_job_by_name("job")
            assert job is not None
            assert job.retry_at == after(3610)


async def test_a_retry_is_not_put_off_by_a_jump_back(virtual_clock: VirtualClock) -> None:
    ran: list[float] = []

    async def executor(context: JobContext) -> None:
        ran.append(trio.current_time())
        if len(ran) == 1:
            raise ValueError("no luck")

    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(10)))
        await trio.sleep(15)
        virtual_clock.set_wall(after(-86_400))
        await trio.sleep(100)
        assert ran == pytest.approx([10, 40], abs=1.1)


@pytest.mark.parametrize("schedulers", [1, 2, 3])
async def test_a_retry_is_moved_once_however_many_schedulers_see_the_clock_set_back(
    virtual_clock: VirtualClock, schedulers: int
) -> None:
    ran: list[float] = []

    async def executor(context: JobContext) -> None:
        ran.append(trio.current_time())
        raise Retry(after=3600)

    async with open_store(":memory:") as store, AsyncExitStack() as stack:
        for _ in range(schedulers):
            await stack.enter_async_context(open_scheduler(store, executor))
        await store.add_job("job", "it", OneShot(after(10)), max_retries=1)
        await trio.sleep(20)
        virtual_clock.set_wall(after(-1800))
        await trio.sleep(5000)
        assert ran == pytest.approx([10, 3610], abs=1.1)


async def test_small_steps_of_the_wall_clock_are_followed_without_a_word(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    times = Times()
    async with open_scheduler(":memory:", times) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(60_000))
        for _ in range(5):
            await trio.sleep(55)
            virtual_clock.set_wall(virtual_clock.now() - timedelta(milliseconds=400))
        await trio.sleep(30)
        assert times.ran == times.moments == [60, 120, 180, 240, 300]
        assert caplog.text == ""


class HeldWall:
    """The system's wall clock, held still at an instant (ns since 1970) until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.at: int | None = at
        self._real = time.time_ns
        monkeypatch.setattr(time, "time_ns", self._shown)
        monkeypatch.setattr(time, "time", lambda: self._shown() / 1e9)

    def _shown(self) -> int:
        return self._real() if self.at is None else self.at


@pytest.mark.parametrize("overlap", ["skip", "cancel_other"])
@pytest.mark.parametrize("ahead_ms", [1, 2.4])
async def test_nothing_spins_just_before_a_moment_of_a_wall_clock_that_is_held(
    monkeypatch: pytest.MonkeyPatch, ahead_ms: float, overlap: str
) -> None:
    started: list[str] = []

    async def executor(context: JobContext) -> None:
        started.append(context.run_id)
        if len(started) == 1 and overlap == "cancel_other":
            await trio.sleep_forever()

    due = time.time_ns() // 10**9 * 10**9 + 3_600 * 10**9
    async with open_scheduler(":memory:", executor, shutdown_grace=0) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", OneShot(from_millis(due // 10**6)), overlap=overlap)
        if overlap == "cancel_other":
            await scheduler.run_now(job_id, wait=False)
        wall = HeldWall(monkeypatch, due - round(ahead_ms * 10**6))
        scheduler._actors.clock.queue.value = attrs.evolve(scheduler._actors.clock.queue.value)
        await trio.sleep(0.1)
        turns, runs = scheduler._actors.clock.wakes, len(started)
        await trio.sleep(0.5)
        assert scheduler._actors.clock.wakes - turns < 100, "ten times as many as one each 50 ms"
        assert len(started) == runs
        wall.at = due
        with trio.fail_after(10):
            while len(started) == runs:
                await trio.sleep(0.01)
        wall.at = None


def set_unseen(clock: VirtualClock, seconds: float) -> None:
    """Set the wall clock as somebody sets the system's: no one reports it, and the scheduler sees it at its next look."""
    listeners, clock.set_listeners = clock.set_listeners, []
    clock.set_wall(after(seconds))
    clock.set_listeners = listeners


DAY = 86_400.0
NINE = 9 * 3600.0


@pytest.mark.parametrize("schedulers", [1, 2])
async def test_a_moment_between_a_jump_back_and_the_look_that_sees_it_is_run(
    virtual_clock: VirtualClock, schedulers: int
) -> None:
    """The clock was three days ahead; it is set right half a second before nine, and a wake sees that after nine."""
    times = Times()
    async with open_store(":memory:") as store, AsyncExitStack() as stack:
        started = [await stack.enter_async_context(open_scheduler(store, times)) for _ in range(schedulers)]
        daily = await store.add_job("daily", "it", Cron("0 9 * * *"))
        often = await store.add_job("often", "it", Interval(1_000))
        await trio.sleep(10.1)
        virtual_clock.set_wall(after(3 * DAY + NINE + 60))
        await trio.sleep(5.05)
        assert [run.scheduled_at for run in await history(started[0]) if run.job_id == daily] == [after(3 * DAY + NINE)]
        set_unseen(virtual_clock, DAY + NINE - 0.5)
        await trio.sleep(5)
        await store.remove_job(often)
        await trio.sleep(2 * DAY)
        runs = [run for run in await history(started[0]) if run.job_id == daily]
        # The moment of the fourth day has its row already.
        assert sorted(run.scheduled_at for run in runs) == [after(day * DAY + NINE) for day in (1, 2, 3)]
        assert min(run.started_at for run in runs if run.started_at) == pytest.approx(after(DAY + NINE), abs=timedelta(seconds=1))


async def test_what_a_run_that_ends_claims_before_the_jump_is_seen_leaves_no_moment_out(virtual_clock: VirtualClock) -> None:
    """One slot that is never free: the store claims at each end of a run, and no wake of the clock comes before it."""
    moments: dict[str, list[float]] = {"a": [], "b": []}

    async def executor(context: JobContext) -> None:
        moments[context.job_name].append((context.scheduled_at - START).total_seconds())
        await trio.sleep(0.4)

    async with open_scheduler(":memory:", executor) as scheduler:
        for name in moments:
            await scheduler.store.add_job(name, "it", Interval(500))
        await trio.sleep(60.2)
        virtual_clock.set_wall(after(1000))
        await trio.sleep(1.7)
        set_unseen(virtual_clock, 100.2)
        for _ in range(3):
            await trio.sleep(0.9)
            set_unseen(virtual_clock, 100.2)
        await trio.sleep(30)
        for job in await scheduler.store.list_jobs():
            rows = [run for run in await history(scheduler) if run.job_id == job.id]
            shown = [await scheduler.explain(job.id, after(100.5 + 0.5 * step)) for step in range(50)]
            assert {each.outcome.value for each in shown} <= {"run", "merged", "skipped"}, shown
            assert len({run.scheduled_at for run in rows}) == len(rows)
            assert moments[job.name][-1] >= 128


async def test_small_steps_back_add_up_within_a_tick(virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    times = Times()
    async with open_scheduler(":memory:", times) as scheduler:
        await scheduler.store.add_job("often", "it", Interval(1_000))
        await trio.sleep(10.5)
        for _ in range(4):
            set_unseen(virtual_clock, (virtual_clock.now() - START).total_seconds() - 0.6)
            await trio.sleep(0.5)
        await trio.sleep(10)
        assert times.moments == list(map(float, range(1, 21)))
    assert "the wall clock was set by" in caplog.text


@pytest.mark.slow
async def test_the_system_clock_set_right_in_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days ahead for a second, under load of one slot and by two schedulers of the file: each moment after it is in a row."""
    ahead = 0
    monkeypatch.setattr("cronactors.actors.store_lifetime.system_wall", lambda: system_wall() + ahead)

    async def executor(context: JobContext) -> None:
        await trio.sleep(0.03)

    config = CronConfig(max_concurrent_runs=1)
    path = tmp_path / "a.db"
    async with open_scheduler(path, executor, config=config) as scheduler, open_scheduler(path, executor, config=config):
        ids = [await scheduler.store.add_job(f"job {ms}", "it", Interval(ms)) for ms in (100, 130, 170, 1_100)]
        await trio.sleep(0.5)
        ahead = 3 * 86_400_000
        await trio.sleep(1.2)
        ahead = 0
        set_back_at = cronactors.now()
        await trio.sleep(2.5)
        for job_id in ids:
            every = timedelta(milliseconds=int((await scheduler.store.get_job(job_id)).name.split()[1]))
            rows = await scheduler.store.list_runs(job_id, limit=1_000)
            moment = min(run.scheduled_at for run in rows)
            while moment < set_back_at:
                moment += every
            while moment < set_back_at + timedelta(seconds=2):
                found = await scheduler.explain(job_id, moment)
                by = next((run for run in rows if run.id == found.run_id), None)
                assert by is None or by.scheduled_at < set_back_at + timedelta(days=1), found.text
                assert found.outcome in {Fate.RUN, Fate.MERGED, Fate.SKIPPED, Fate.WAITING}, found.text
                moment += every
