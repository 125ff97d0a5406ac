"""`CronScheduler.explain` of moments that ran, were merged, skipped or cancelled, wait, or will run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from cronactors import (
    Cron,
    CronConfig,
    CronScheduler,
    Fate,
    Interval,
    InvalidJob,
    JobContext,
    JobNotFound,
    Misfire,
    Overlap,
    Pause,
    RunStatus,
    open_scheduler,
    open_store,
)
from cronactors.testing import VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


async def slow(context: JobContext) -> str:
    await trio.sleep(150 if context.job_name == "slow" else 0)
    if context.job_name == "bad":
        raise ValueError("no luck")
    return "done"


async def fates(scheduler: CronScheduler, job_id: str, *minutes: float) -> list[tuple[str, str | None]]:
    found = [await scheduler.explain(job_id, at(minute)) for minute in minutes]
    return [(each.outcome.value, each.cause and each.cause.value) for each in found]


async def test_each_moment_of_a_job_that_overlaps_is_explained(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", slow) as scheduler:
        job_id = await scheduler.store.add_job("slow", "it", Interval(60_000))
        await trio.sleep(4.2 * 60)
        assert await fates(scheduler, job_id, 1, 2, 3, 4, 5, 100) == [
            ("run", None),
            ("skipped", "overlap"),
            ("skipped", "overlap"),
            ("run", None),
            ("will_run", None),
            ("will_run", None),
        ]
        await trio.sleep(60)
        due = await scheduler.explain(job_id, at(5))
        assert (due.outcome, due.run_id) == (Fate.WAITING, None)
        assert "run 3 of the job is open" in due.text
        second = await scheduler.explain(job_id, at(2))
        assert (second.run_id, second.next) == ("2", at(5))
        assert second.text == "2026-01-01T00:02:00Z was skipped (overlap). It stands for 2 moments."
        between = await scheduler.explain(job_id, at(2.5))
        assert between.outcome is Fate.NO_MOMENT
        assert "the nearest before is 2026-01-01T00:02:00Z and the nearest after is 2026-01-01T00:03:00Z" in between.text


async def test_missed_moments_are_explained(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", slow) as scheduler:
        late = await scheduler.store.add_job("late", "it", Interval(60_000), misfire=Misfire(window=timedelta(minutes=3)))
        first = await scheduler.store.add_job("first", "it", Interval(60_000), misfire=Misfire(coalesce="earliest"))  # type: ignore[arg-type]
        await trio.sleep(90)
        virtual_clock.set_wall(at(10.1))
        await trio.sleep(5)
        assert await fates(scheduler, late, 1, 2, 6, 7, 8, 9, 10, 11) == [
            ("run", None),
            ("skipped", "misfire"),
            ("skipped", "misfire"),
            ("skipped", "misfire"),
            ("merged", None),
            ("merged", None),
            ("run", None),
            ("will_run", None),
        ]
        assert await fates(scheduler, first, 1, 2, 3, 10, 11) == [
            ("run", None),
            ("run", None),
            ("merged", None),
            ("merged", None),
            ("will_run", None),
        ]


async def test_retries_and_pauses_are_explained(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", slow) as scheduler:
        job_id = await scheduler.store.add_job("bad", "it", Interval(60_000), max_retries=1)
        await trio.sleep(61)
        waiting = await scheduler.explain(job_id, at(1))
        assert (waiting.outcome, waiting.text) == (
            Fate.WAITING,
            "2026-01-01T00:01:00Z is to start at 2026-01-01T00:01:30Z, attempt 2.",
        )
        await trio.sleep(40)
        spent = await scheduler.explain(job_id, at(1))
        assert (spent.outcome, spent.cause) == (Fate.RUN, "error")
        assert spent.text == "2026-01-01T00:01:00Z was run: failed (error), attempt 2."
        await scheduler.store.pause_job(job_id)
        await trio.sleep(600)
        assert await fates(scheduler, job_id, 5, 100) == [("not_planned", None), ("not_planned", None)]
        await scheduler.store.resume_job(job_id)
        assert await fates(scheduler, job_id, 5, 12) == [("not_planned", None), ("will_run", None)]
        before = await scheduler.explain(job_id, at(5))
        assert before.next == at(12)
        assert before.text.startswith("2026-01-01T00:05:00Z was not planned: the job was paused from 2026-01-01T00:01:41Z to ")


async def test_a_pause_that_ends_by_itself_is_explained(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", slow) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Interval(60_000))
        await trio.sleep(30)
        await scheduler.store.pause_job(job_id, until=at(5), note="moving")
        await trio.sleep(120)
        assert await fates(scheduler, job_id, 1, 4, 5, 6) == [("not_planned", None)] * 2 + [("will_run", None)] * 2
        now = await scheduler.explain(job_id, at(4))
        assert (
            now.text
            == "2026-01-01T00:04:00Z is not planned: the job is paused since 2026-01-01T00:00:30Z, until 2026-01-01T00:05:00Z (moving)."
        )
        assert now.pause == Pause(since=at(0.5), until=at(5), note="moving")
        coming = await scheduler.explain(job_id, at(5))
        assert coming.text == "2026-01-01T00:05:00Z will run: the pause of the job ends at 2026-01-01T00:05:00Z."
        await trio.sleep(300)
        assert [run.scheduled_at for run in reversed(await scheduler.store.list_runs())] == [at(5), at(6), at(7)]
        assert await fates(scheduler, job_id, 1, 4, 5, 6) == [("not_planned", None)] * 2 + [("run", None)] * 2
        later = await scheduler.explain(job_id, at(4))
        assert later.text == (
            "2026-01-01T00:04:00Z was not planned: the job was paused from 2026-01-01T00:00:30Z to 2026-01-01T00:05:00Z (moving)."
        )
        assert later.pause == Pause(since=at(0.5), until=at(5), note="moving", ended=at(5))
        await scheduler.store.update_job(job_id, schedule=Cron("0 5 * * *"))
        assert (await scheduler.explain(job_id, at(4))).text == later.text, "the schedule is another one now"
        other = await scheduler.explain(job_id, at(0.2))
        assert other.outcome is Fate.NO_MOMENT
        assert other.text.endswith(" Its schedule was changed at 2026-01-01T00:07:30Z.")


async def test_moments_after_a_pause_wait_for_a_scheduler(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        job_id = await store.add_job("job", "it", Interval(60_000))
        await store.pause_job(job_id, until=at(5))
        await trio.sleep(7 * 60)
        found = await store.explain(job_id, at(6))
        assert found.outcome is Fate.WAITING
        assert found.text.endswith("no scheduler is running; the pause of the job was to end at 2026-01-01T00:05:00Z.")
        (due,) = await store.get_due_jobs()
        assert (due.enabled, due.next_run_at, due.pause) == (True, at(5), None)


async def test_more_moments_than_are_counted_are_explained(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", slow) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Interval(60_000))
        virtual_clock.set_wall(at(3000.1))
        await trio.sleep(5)
        assert await fates(scheduler, job_id, 0, 1, 2999, 3000) == [
            ("no_moment", None),
            ("merged", None),
            ("merged", None),
            ("run", None),
        ]
        assert "stands for 1,000 or more moments" in (await scheduler.explain(job_id, at(1))).text
        cron = await scheduler.store.add_job("cron", "it", Cron("* * * * *"))
        virtual_clock.set_wall(at(9000.1))
        await trio.sleep(5)
        assert await fates(scheduler, cron, 1, 3000, 3002, 9000) == [
            ("not_planned", None),
            ("not_planned", None),
            ("merged", None),
            ("run", None),
        ]


async def test_a_moment_that_was_cancelled_before_it_started_is_explained(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", slow) as scheduler:
        job_id = await scheduler.store.add_job("slow", "it", Interval(60_000), overlap=Overlap.BUFFER_ALL)
        await trio.sleep(3.6 * 60)
        await scheduler.store.update_job(job_id, schedule=Interval(3_600_000))
        rows = [run for run in await scheduler.store.list_runs(job_id) if run.status is RunStatus.CANCELLED]
        assert rows != []
        assert all(run.started_at is None for run in rows)
        assert [await fates(scheduler, job_id, run.scheduled_at.minute) for run in rows] == [[("skipped", "replaced")]] * len(
            rows
        )


async def test_requests_do_not_hide_a_row(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", slow) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Interval(3_600_000))
        await trio.sleep(3601)
        virtual_clock.set_wall(at(5 * 60))
        await trio.sleep(2)
        for _ in range(60):
            await scheduler.run_now(job_id)
        assert await fates(scheduler, job_id, 60, 120, 300) == [("run", None), ("merged", None), ("run", None)]


async def test_a_moment_that_waits_for_a_slot_is_explained(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", slow, config=CronConfig(max_concurrent_runs=1)) as scheduler:
        await scheduler.store.add_job("slow", "it", Interval(59_000), overlap=Overlap.BUFFER_ONE)
        job_id = await scheduler.store.add_job("other", "it", Interval(60_000))
        await trio.sleep(62)
        found = await scheduler.explain(job_id, at(1))
        assert (found.outcome, "all slots are taken" in found.text) == (Fate.WAITING, True)


@pytest.mark.parametrize("junk", [None, "2026-01-01T00:00Z", datetime(2026, 1, 1), 5, datetime(9999, 1, 1, tzinfo=UTC)])
async def test_an_instant_that_is_no_moment_in_time_is_refused(virtual_clock: VirtualClock, junk: Any) -> None:
    async with open_scheduler(":memory:", slow) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Interval(60_000))
        with pytest.raises(InvalidJob, match="at must"):
            await scheduler.explain(job_id, junk)
        with pytest.raises(JobNotFound):
            await scheduler.explain("nobody", at(1))
