"""Overlap and misfire policies end to end, on virtual time: the record of each moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from cronactors import (
    Coalesce,
    CronConfig,
    CronRun,
    Interval,
    JobContext,
    Misfire,
    OneShot,
    Overlap,
    RunStatus,
    SessionMode,
    open_scheduler,
    open_store,
)
from cronactors.testing import VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


class Slow:
    """Takes its time, and notes when it starts and ends (minutes)."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.noted: list[tuple[float, str]] = []

    async def __call__(self, context: JobContext) -> None:
        self.noted.append((trio.current_time() / 60, f"{minute(context.scheduled_at):g} starts"))
        try:
            await trio.sleep(self.seconds)
            self.noted.append((trio.current_time() / 60, f"{minute(context.scheduled_at):g} ends"))
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(6)  # a cancelled task takes a while to exit
            self.noted.append((trio.current_time() / 60, f"{minute(context.scheduled_at):g} is cancelled"))
            raise


def minute(moment: datetime) -> float:
    return (moment - START) / timedelta(minutes=1)


def summary(runs: Sequence[CronRun]) -> list[tuple[float, str, str | None, int]]:
    """Moment in minutes, status, cause and how many moments it stands for, oldest first."""
    return [(minute(run.scheduled_at), run.status.value, run.cause and run.cause.value, run.coalesced) for run in reversed(runs)]


async def history(
    overlap: Overlap, seconds: float, minutes: float, slots: int = 4
) -> tuple[Slow, list[tuple[float, str, str | None, int]]]:
    slow = Slow(seconds)
    async with open_scheduler(":memory:", slow, config=CronConfig(max_concurrent_runs=slots), shutdown_grace=10**6) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Interval(60_000), overlap=overlap)
        await trio.sleep(minutes * 60)
        await scheduler.store.pause_job(job_id)
        await trio.sleep(3600)
        return slow, summary(await scheduler.store.list_runs(job_id, 100))


async def test_skip_records_the_moments_that_overlap(virtual_clock: VirtualClock) -> None:
    _, runs = await history(Overlap.SKIP, seconds=150, minutes=4.1)
    assert runs == [(1, "success", None, 1), (2, "skipped", "overlap", 2), (4, "success", None, 1)]


async def test_buffer_one_runs_the_first_moment_that_overlaps(virtual_clock: VirtualClock) -> None:
    slow, runs = await history(Overlap.BUFFER_ONE, seconds=150, minutes=5)
    assert runs == [
        (1, "success", None, 1),
        (2, "success", None, 1),
        (3, "skipped", "overlap", 1),
        (4, "skipped", "cancelled", 2),
    ]
    assert slow.noted[:4] == [(1, "1 starts"), (3.5, "1 ends"), (3.5, "2 starts"), (6, "2 ends")]


async def test_buffer_all_runs_every_moment_that_overlaps(virtual_clock: VirtualClock) -> None:
    slow, runs = await history(Overlap.BUFFER_ALL, seconds=90, minutes=4.1)
    assert [run[:2] for run in runs[:2]] == [(1, "success"), (2, "success")]
    assert slow.noted[:6] == [
        (1, "1 starts"),
        (2.5, "1 ends"),
        (2.5, "2 starts"),
        (4, "2 ends"),
        (4, "3 starts"),
        (5.5, "3 ends"),
    ]
    assert [run[0] for run in runs] == [1, 2, 3, 4]


@pytest.mark.parametrize("slots", [1, 4])
async def test_cancel_other_replaces_the_running_run(virtual_clock: VirtualClock, slots: int) -> None:
    slow, runs = await history(Overlap.CANCEL_OTHER, seconds=150, minutes=3.5, slots=slots)
    assert runs == [(1, "cancelled", "replaced", 1), (2, "cancelled", "replaced", 1), (3, "success", None, 1)]
    assert slow.noted == [
        (1, "1 starts"),
        (2.1, "1 is cancelled"),
        (2.1, "2 starts"),  # when the old task has exited
        (3.1, "2 is cancelled"),
        (3.1, "3 starts"),
        (5.6, "3 ends"),
    ]


async def test_allow_all_starts_every_moment_at_once(virtual_clock: VirtualClock) -> None:
    slow, runs = await history(Overlap.ALLOW_ALL, seconds=150, minutes=3.1)
    assert runs == [(1, "success", None, 1), (2, "success", None, 1), (3, "success", None, 1)]
    assert [at for at, what in slow.noted if "starts" in what] == [1, 2, 3]


async def test_a_new_moment_replaces_a_run_that_waits_for_its_session(virtual_clock: VirtualClock) -> None:
    slow = Slow(1000)
    async with open_scheduler(":memory:", slow, config=CronConfig(max_concurrent_runs=4)) as scheduler:
        main = SessionMode.MAIN
        await scheduler.store.add_job("first", "it", OneShot("2026-01-01T00:00:30Z"), session_mode=main)
        job_id = await scheduler.store.add_job("job", "it", Interval(60_000), overlap=Overlap.CANCEL_OTHER, session_mode=main)
        await trio.sleep(200)
        assert summary(await scheduler.store.list_runs(job_id)) == [
            (1, "cancelled", "replaced", 1),
            (2, "cancelled", "replaced", 1),
            (3, "pending", None, 1),
        ]


async def test_the_policies_are_stored_and_can_be_changed(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    misfire = Misfire(window=timedelta(hours=1), coalesce=Coalesce.ALL, max_runs=7)
    async with open_store(tmp_path / "a.db") as store:
        job_id = await store.add_job("job", "it", Interval(60_000), overlap=Overlap.BUFFER_ONE, misfire=misfire)
    async with open_store(tmp_path / "a.db") as store:
        job = await store.get_job(job_id)
        assert (job.overlap, job.misfire) == (Overlap.BUFFER_ONE, misfire)
        job = await store.update_job(job_id, overlap=Overlap.SKIP, misfire=Misfire())
        assert (job.overlap, job.misfire) == (Overlap.SKIP, Misfire())


@pytest.mark.parametrize(
    ("misfire", "expected"),
    [
        (Misfire(), [(4320, "success", None, 1000)]),
        (Misfire(coalesce=Coalesce.EARLIEST), [(2, "success", None, 1000)]),
        (Misfire(window=timedelta(minutes=3)), [(2, "skipped", "misfire", 1000), (4320, "success", None, 3)]),
        (
            Misfire(coalesce=Coalesce.ALL, max_runs=3),
            [(2, "skipped", "misfire", 1000), (4318, "success", None, 1), (4319, "success", None, 1), (4320, "success", None, 1)],
        ),
    ],
)
async def test_each_misfire_policy_after_a_laptop_was_asleep_for_three_days(
    virtual_clock: VirtualClock, misfire: Misfire, expected: object
) -> None:
    async with open_scheduler(":memory:", Slow(1)) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Interval(60_000), misfire=misfire)
        await trio.sleep(90)
        virtual_clock.set_wall(START + timedelta(days=3, seconds=10))
        await trio.sleep(10)
        runs = summary(await scheduler.store.list_runs(job_id, 100))
        assert runs == [(1, "success", None, 1), *expected]  # type: ignore[misc]


async def test_moments_missed_in_a_week_without_a_scheduler_follow_their_misfire_policy(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    async with open_scheduler(tmp_path / "a.db", Slow(1)) as scheduler:
        await scheduler.store.add_job("daily", "it", Interval.every(hours=24))
        await scheduler.store.add_job(
            "once", "it", OneShot(START + timedelta(days=2)), misfire=Misfire(window=timedelta(hours=1))
        )
    await trio.sleep(7 * 86_400 + 60)
    async with open_scheduler(tmp_path / "a.db", Slow(1)) as scheduler:
        await trio.sleep(5)
        runs = {run.job_name: run for run in await scheduler.store.list_runs()}
        assert (runs["daily"].status, runs["daily"].coalesced) == (RunStatus.SUCCESS, 7)
        assert (runs["once"].status, runs["once"].cause) == (RunStatus.SKIPPED, "misfire")
        once = await scheduler.store.get_job_by_name("once")
        assert once is not None
        assert not once.enabled
