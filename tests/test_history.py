"""`list_runs` with filters and pages, `count_runs` and `run_stats`, as users call them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st

from cronactors import (
    Cause,
    CronConfig,
    CronRun,
    CronScheduler,
    CronStore,
    Interval,
    InvalidJob,
    JobContext,
    JobNotFound,
    OneShot,
    RetryPolicy,
    RunStatus,
    Trigger,
    open_scheduler,
    open_store,
)
from cronactors.run_stats import percentile, stats_of
from cronactors.storage.history import RunFigures
from cronactors.storage.rows import RunRow
from cronactors.storage.sqlite import SqliteStorage
from cronactors.testing import VirtualClock
from tests.storages import run

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = CronConfig(retry=RetryPolicy(delays=[30]), max_concurrent_runs=5)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


async def executor(context: JobContext) -> str:
    await trio.sleep(2)
    if context.job_name == "bad":
        raise ValueError("no luck")
    if context.job_name == "slow":
        await trio.sleep(100)
    return "done"


async def some_history(scheduler: CronScheduler) -> dict[str, str]:
    """Let four minutes pass: a good job, a bad one that is retried once, and a slow one with a timeout."""
    store = scheduler.store
    ids = {
        "good": await store.add_job("good", "it", Interval(60_000), user_id="u"),
        "bad": await store.add_job("bad", "it", Interval(60_000), max_retries=1),
        "slow": await store.add_job("slow", "it", Interval(120_000), max_retries=0, timeout_secs=10),
    }
    await trio.sleep(4 * 60 + 45)
    return ids


async def test_filters_are_combined(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor, config=SETTINGS) as scheduler:
        ids, store = await some_history(scheduler), scheduler.store
        everything = await store.list_runs(limit=100)
        assert len(everything) == 4 + 8 + 2

        async def check(expected: Callable[[CronRun], bool], **filters: Any) -> None:
            wanted = [run for run in everything if expected(run)]
            assert await store.list_runs(limit=100, **filters) == wanted
            assert await store.count_runs(**filters) == len(wanted)

        await check(lambda run: True)
        await check(lambda run: run.status is RunStatus.FAILED, status=RunStatus.FAILED)
        await check(lambda run: run.cause is Cause.TIMEOUT, cause=Cause.TIMEOUT)
        await check(lambda run: run.trigger is Trigger.RETRY, trigger=Trigger.RETRY)
        await check(lambda run: run.user_id == "u", user_id="u")
        await check(lambda run: run.user_id is None, user_id=None)
        await check(lambda run: run.job_id == ids["slow"], job_id=ids["slow"])
        await check(
            lambda run: run.job_id == ids["bad"] and run.attempt == 2 and run.started_at is not None and run.started_at < at(3),
            job_id=ids["bad"],
            trigger=Trigger.RETRY,
            until=at(3),
        )
        await check(lambda run: False, status=RunStatus.SKIPPED)


async def test_a_time_is_inclusive_at_since_and_exclusive_at_until(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor) as scheduler:
        job_id = await scheduler.store.add_job("good", "it", Interval(60_000))
        await trio.sleep(5 * 60 + 30)
        for job in (None, job_id):

            async def started(job: str | None = job, **times: datetime) -> list[datetime | None]:
                return [run.started_at for run in await scheduler.store.list_runs(job, **times)]

            assert await started(since=at(2), until=at(4)) == [at(3), at(2)]
            assert await started(since=at(4)) == [at(5), at(4)]
            assert await started(until=at(2)) == [at(1)]
            assert await started(since=at(2), until=at(2)) == []
            rome = at(4).astimezone(tz=None)
            assert await started(since=rome) == [at(5), at(4)]
        with pytest.raises(InvalidJob, match="until must not be before since"):
            await scheduler.store.list_runs(since=at(2), until=at(1))


async def test_a_pending_run_counts_from_when_it_may_start(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor, config=SETTINGS) as scheduler:
        await scheduler.store.add_job("bad", "it", OneShot(at(1)))
        await trio.sleep(70)
        (retry,) = await scheduler.store.list_runs(since=at(1.1))
        assert (retry.status, retry.started_at) == (RunStatus.PENDING, None)
        assert await scheduler.store.count_runs(since=at(1), until=at(1.1)) == 1


async def test_runs_are_found_by_a_tag_that_their_job_has_now(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        ids = [await store.add_job(name, "it", Interval(60_000)) for name in "abc"]
        runs = {job_id: await store.request_run(job_id) for job_id in ids}
        change(store, lambda storage: tag(storage, "nightly", ids[:2]))
        assert [run.id for run in await store.list_runs(tag="nightly")] == [runs[ids[1]], runs[ids[0]]]
        assert await store.count_runs(tag="nightly") == 2
        assert (await store.run_stats(tag="nightly")).runs == 2
        assert await store.list_runs(tag="other") == []
        await store.remove_job(ids[0])
        assert [run.job_id for run in await store.list_runs(tag="nightly")] == [ids[1]]


def change(store: CronStore, write: Callable[[SqliteStorage], object]) -> None:
    """Write to the storage of a store on virtual time, which has no thread of its own, in a transaction."""
    storage: Any = store._service.actor.storage
    assert storage.begin(write=True)
    write(storage)
    storage.commit()


def tag(storage: SqliteStorage, name: str, ids: list[str]) -> None:
    for job_id in ids:
        storage._execute("INSERT OR IGNORE INTO job_tags SELECT ?, number FROM jobs WHERE id = ?", (name, job_id))


# Pages


async def test_pages_follow_each_other_by_the_id_of_the_last_run(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor, config=SETTINGS) as scheduler:
        ids, store = await some_history(scheduler), scheduler.store
        for filters in ({}, {"job_id": ids["bad"]}, {"status": RunStatus.FAILED}, {"cause": Cause.ERROR, "since": at(2)}):
            whole = await store.list_runs(limit=100, **filters)  # type: ignore[arg-type]
            for size in (1, 2, 3):
                found: list[CronRun] = []
                while page := await store.list_runs(limit=size, after=found[-1].id if found else None, **filters):  # type: ignore[arg-type]
                    found += page
                assert found == whole


async def test_a_page_may_be_longer_than_one_transaction_reads(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        rows = [run(job_id=f"j{n % 2}", scheduled_at=n, user_id="" if n % 1_000 else "u") for n in range(6_001)]
        change(store, lambda storage: storage.insert_runs(rows))
        assert [run.id for run in await store.list_runs(limit=5_000)] == [str(n) for n in range(6_001, 1_001, -1)]
        assert [run.id for run in await store.list_runs(user_id="u", limit=9)] == [str(n) for n in range(6_001, 0, -1_000)]
        assert await store.count_runs() == 6_001
        assert await store.count_runs("j0", user_id="u") == 7
        assert await store.count_runs("j1", user_id="u") == 0


def moment_order(row: RunRow) -> tuple[int, int, int]:
    return row.scheduled_at, row.manual, row.attempt


@st.composite
def new_rows(draw: st.DrawFn, first: int) -> list[RunRow]:
    """Rows of two jobs whose moments grow, some of them with a retry."""
    rows = []
    for n in range(draw(st.integers(0, 5))):
        row = run(
            job_id=draw(st.sampled_from(["a", "b"])),
            scheduled_at=first + n,
            status=draw(st.sampled_from(["success", "failed", "pending"])),
            started_at=first + n,
        )
        rows += [row, row._replace(attempt=2, trigger="retry")][: draw(st.integers(1, 2))]
    return rows


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    st.sampled_from([None, "a"]),
    st.sampled_from(
        [{}, {"status": RunStatus.FAILED}, {"trigger": Trigger.RETRY}, {"since": datetime.fromtimestamp(0.004, UTC)}]
    ),
    st.integers(1, 4),
)
def test_pages_miss_and_repeat_nothing_while_rows_are_added_and_pruned(
    data: st.DataObject, job_id: str | None, filters: dict[str, Any], size: int
) -> None:
    """Pruning takes the oldest moments of a job, with all attempts of each."""

    async def main() -> None:
        async with open_store(":memory:") as store:
            storage: Any = store._service.actor.storage
            rows = data.draw(new_rows(0)) + data.draw(new_rows(10))
            change(store, lambda storage: storage.insert_runs(rows))
            before = await store.list_runs(job_id, 100, **filters)
            found: list[CronRun] = []
            for step in range(20, 1_000, 10):
                page = await store.list_runs(job_id, size, after=found[-1].id if found else None, **filters)
                if not page:
                    break
                found += page
                added = data.draw(new_rows(step))
                change(store, lambda storage: storage.insert_runs(added))  # noqa: B023
                pruned = data.draw(st.sampled_from(["a", "b"])), data.draw(st.integers(-5, 15))
                change(store, lambda storage: storage._execute("DELETE FROM runs WHERE job_id = ? AND scheduled_at < ?", pruned))  # noqa: B023
            left = {row[0] for row in storage._fetch("SELECT id FROM runs")}
            ids = [run.id for run in found]
            assert len(set(ids)) == len(ids)
            assert found == sorted(found, key=order(job_id), reverse=True)
            assert [run for run in before if int(run.id) in left and run.id not in ids] == []
            assert {run.id for run in found} <= {run.id for run in before}, "what is added later is newer"

    trio.run(main, clock=VirtualClock())


def order(job_id: str | None) -> Callable[[CronRun], Any]:
    return (lambda run: int(run.id)) if job_id is None else (lambda run: (run.scheduled_at, run.attempt))


# Figures


async def test_figures_about_a_job_a_tag_and_everything(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor, config=SETTINGS) as scheduler:
        ids, store = await some_history(scheduler), scheduler.store
        change(store, lambda storage: tag(storage, "x", [ids["bad"], ids["slow"]]))
        bad = await store.run_stats(ids["bad"])
        assert (bad.runs, bad.complete, bad.oldest) == (8, True, at(1))
        assert {status: count for status, count in bad.by_status.items() if count} == {RunStatus.FAILED: 8}
        assert {cause: count for cause, count in bad.by_cause.items() if count} == {Cause.ERROR: 8}
        assert (bad.duration_p50, bad.duration_p99, bad.lateness_p50, bad.lateness_p99) == (2.0, 2.0, 0.0, 0.0)
        slow = await store.run_stats(ids["slow"], since=at(3))
        assert (slow.runs, slow.by_cause[Cause.TIMEOUT], slow.duration_p50) == (1, 1, 10.0)
        tagged = await store.run_stats(tag="x")
        assert (tagged.runs, tagged.by_cause[Cause.ERROR], tagged.by_cause[Cause.TIMEOUT]) == (10, 8, 2)
        everything = await store.run_stats()
        assert everything.by_status == {**dict.fromkeys(RunStatus, 0), RunStatus.SUCCESS: 4, RunStatus.FAILED: 10}
        assert (everything.duration_p50, everything.duration_p99) == (2.0, 10.0)
        none = await store.run_stats(since=at(100))
        assert (none.runs, none.complete, none.oldest, none.duration_p50, none.lateness_max) == (0, True, None, None, None)


async def test_figures_are_about_the_newest_10_000_and_say_so(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        rows = [
            run(job_id="j", scheduled_at=n, status="success", started_at=n + 500, completed_at=n + 500 + n) for n in range(10_001)
        ]
        change(store, lambda storage: storage.insert_runs(rows[:10_000]))
        assert (await store.run_stats("j")).complete
        change(store, lambda storage: storage.insert_runs(rows[10_000:]))
        for stats in (await store.run_stats("j"), await store.run_stats()):
            assert (stats.runs, stats.complete, stats.by_status[RunStatus.SUCCESS]) == (10_000, False, 10_000)
            assert (stats.duration_p50, stats.duration_p95, stats.duration_p99, stats.duration_max) == (5.0, 9.5, 9.9, 10.0)
            assert (stats.lateness_p50, stats.lateness_p95, stats.lateness_p99, stats.lateness_max) == (0.5, 0.5, 0.5, 0.5)


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([], 50) is None
    assert [percentile([1000], percent) for percent in (50, 99)] == [1.0, 1.0]
    assert [percentile([1000, 2000, 3000, 4000], percent) for percent in (50, 75, 76, 99)] == [2.0, 3.0, 4.0, 4.0]


def test_lateness_is_that_of_first_attempts_and_duration_that_of_ended_runs() -> None:
    figures = [
        RunFigures("running", None, 1, scheduled_at=0, started_at=3_000, completed_at=None),
        RunFigures("failed", "error", 1, scheduled_at=0, started_at=1_000, completed_at=2_000),
        RunFigures("success", None, 2, scheduled_at=0, started_at=9_000, completed_at=11_000),
        RunFigures("skipped", "overlap", 1, scheduled_at=0, started_at=None, completed_at=50_000),
        RunFigures("odd", "odd", 1, scheduled_at=0, started_at=None, completed_at=None),
    ]
    stats = stats_of(figures, complete=True)
    assert (stats.lateness_p50, stats.lateness_p95, stats.lateness_p99, stats.lateness_max) == (1.0, 3.0, 3.0, 3.0)
    assert (stats.duration_p50, stats.duration_p95, stats.duration_p99, stats.duration_max) == (1.0, 2.0, 2.0, 2.0)
    assert sum(stats.by_status.values()) == 4


async def test_a_store_without_a_scheduler_explains_moments(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        job_id = await store.add_job("good", "it", Interval(60_000))
        assert (
            await store.explain(job_id, at(1))
        ).text == "2026-01-01T00:01:00Z will run, unless a run of the job is still running then."
        with pytest.raises(JobNotFound):
            await store.explain("no", at(1))
        with pytest.raises(InvalidJob, match="at must be an aware datetime"):
            await store.explain(job_id, datetime(2026, 1, 1))
