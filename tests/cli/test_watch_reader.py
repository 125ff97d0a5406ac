"""What `watch` reads of a store, and how it continues while it cannot be read."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from cronactors import (
    CronConfig,
    CronScheduler,
    Interval,
    JobContext,
    JobSpec,
    RetryPolicy,
    RunStatus,
    StoreUnavailable,
    current_run,
    open_scheduler,
    open_store,
)
from cronactors.cli import run_changes, watch_store
from cronactors.cli.run_query import RunQuery, Subject, find_subject
from cronactors.cli.watch_reader import Filter, Snapshot
from cronactors.cli.watch_store import StoreReader
from cronactors.storage.sqlite import SqliteStorage
from cronactors.testing import VirtualClock
from tests.cli_history import START, address

__all__ = ["address"]


async def execute(context: JobContext) -> str:
    if context.job_name == "slow":
        for number in range(10):
            current_run().report_progress(number / 10, f"step {number}")
            await trio.sleep(10)
    await trio.sleep(1)
    if context.job_name == "bad":
        raise OSError("the disk is full")
    return "fine"


EVERYTHING = RunQuery()
JOBS = [
    JobSpec("slow", "it", Interval.every(hours=1), tags=["long"]),
    JobSpec("bad", "it", Interval.every(hours=2), max_retries=1, user_id="ann", tags=["flaky"]),
    JobSpec("later", "it", Interval.every(hours=3), user_id="bob"),
]


@asynccontextmanager
async def scheduler_with_reader(
    file: Path, query: RunQuery = EVERYTHING
) -> AsyncIterator[tuple[CronScheduler, dict[str, str], StoreReader]]:
    config = CronConfig(retry=RetryPolicy(delays=[300]), max_concurrent_runs=5)
    async with open_scheduler(file, execute, config=config, jobs=JOBS) as scheduler, open_store(file, create=False) as store:
        ids = {job.name: job.id for job in await scheduler.store.list_jobs()}
        yield scheduler, ids, StoreReader(store, Filter(query, await find_subject(store, query)), for_view=True)


async def inspect(reader: StoreReader) -> Snapshot:
    seen, problem = await reader.read()
    assert seen is not None
    assert (problem, seen.known.complete) == ("", True)
    return seen


def changes(seen: Snapshot) -> list[tuple[str, str]]:
    return [(change.run.job_name, str(change.run.status)) for change in seen.changes]


def next_names(seen: Snapshot) -> list[str]:
    return [start.name for start in seen.next]


async def test_a_snapshot_has_what_is_running_with_its_progress_and_what_is_next(virtual_clock: VirtualClock, tmp_path: Path):
    virtual_clock.set_wall(START)
    async with scheduler_with_reader(tmp_path / "a.db") as (scheduler, ids, reader):
        seen = await inspect(reader)
        assert (seen.schedulers, seen.running_count, seen.due, seen.retries) == (1, 0, 0, 0)
        assert next_names(seen) == ["slow", "bad", "later"]
        assert (changes(seen), reader.name) == ([], "a.db")

        await scheduler.run_now(ids["slow"], wait=False)
        await scheduler.run_now(ids["bad"])
        await trio.sleep(35)
        seen = await inspect(reader)
        assert changes(seen) == [("slow", "running"), ("bad", "failed"), ("bad", "pending")]
        (slow,) = seen.running
        assert slow.progress is not None
        assert (slow.run.job_name, slow.is_orphan, slow.progress.fraction, slow.progress.note) == ("slow", False, 0.3, "step 3")
        assert (seen.running_count, seen.retries, seen.due) == (1, 1, 0)
        assert [(start.name, start.is_retry, start.is_busy) for start in seen.next] == [
            ("bad", True, False), ("slow", False, True), ("later", False, False),
        ]  # fmt: skip
        assert seen.changes[2].ready_at == seen.next[0].at

        await trio.sleep(400)
        seen = await inspect(reader)
        assert changes(seen) == [("slow", "success"), ("bad", "failed")]
        assert (await inspect(reader)).changes == []


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (RunQuery(name="bad"), ["bad"]),
        (RunQuery(user="ann"), ["bad"]),
        (RunQuery(user=""), ["slow"]),
        (RunQuery(tag="long"), ["slow"]),
        (RunQuery(tag="flaky", user="ann"), ["bad"]),
        (RunQuery(tag="none"), []),
    ],
    ids=str,
)
async def test_a_filter_leaves_other_jobs_out(virtual_clock: VirtualClock, tmp_path: Path, query: RunQuery, names: list[str]):
    virtual_clock.set_wall(START)
    async with scheduler_with_reader(tmp_path / "a.db", query) as (scheduler, ids, reader):
        assert next_names(await inspect(reader)) == names
        for name in ("slow", "bad", "later"):
            await scheduler.run_now(ids[name], wait=False)
        await trio.sleep(0.5)
        seen = await inspect(reader)
        assert [each.run.job_name for each in seen.running] == names
        assert (seen.running_count, seen.due, seen.retries) == (len(names), None, None)
        await trio.sleep(120)
        assert {change.run.job_name for change in (await inspect(reader)).changes} == set(names)
        assert [run.job_name for run in reader.last or ()] == names


async def test_a_job_that_is_added_or_paused_shows_also_where_the_jobs_are_listed_now_and_then(
    virtual_clock: VirtualClock, tmp_path: Path
):
    async with scheduler_with_reader(tmp_path / "a.db", RunQuery(user="bob")) as (scheduler, ids, reader):
        assert next_names(await inspect(reader)) == ["later"]
        await scheduler.store.pause_job(ids["later"])
        assert next_names(await inspect(reader)) == []
        await scheduler.store.add_job("new", "it", Interval.every(hours=5), user_id="bob")
        await trio.sleep(watch_store._LIST_EVERY)
        assert next_names(await inspect(reader)) == ["new"]


async def test_a_paused_job_has_no_next_start_though_it_has_a_retry(virtual_clock: VirtualClock, tmp_path: Path):
    async with scheduler_with_reader(tmp_path / "a.db", RunQuery(name="bad")) as (scheduler, ids, reader):
        await scheduler.run_now(ids["bad"])
        assert [(start.name, start.is_retry) for start in (await inspect(reader)).next] == [("bad", True)]
        await scheduler.store.pause_job(ids["bad"])
        assert next_names(await inspect(reader)) == []


async def test_a_run_whose_scheduler_is_gone_is_an_orphan(tmp_path: Path):
    async with open_store(tmp_path / "a.db") as store:
        job_id = await store.add_job("job", "it", Interval.every(hours=1))
        await store.record_run_start(job_id)
        reader = StoreReader(store, Filter(RunQuery(), Subject()), for_view=True)
        assert [each.is_orphan for each in (await inspect(reader)).running] == [False]
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("UPDATE runs SET status = 'running', owner = 77, completed_at = NULL")
        connection.commit()
    async with open_store(tmp_path / "a.db") as store:
        reader = StoreReader(store, Filter(RunQuery(), Subject()), for_view=True)
        seen = await inspect(reader)
        assert [each.is_orphan for each in seen.running] == [True]
        assert seen.schedulers == 0


async def test_both_stores_are_read(address: str):
    async with open_store(address) as store:
        reader = StoreReader(store, Filter(RunQuery(), Subject()), for_view=True)
        assert next_names(await inspect(reader)) == []
        job_id = await store.add_job("job", "it", Interval.every(hours=1), tags=["t"])
        await store.record_run_complete(await store.record_run_start(job_id), RunStatus.SUCCESS, "fine")
        started = await store.record_run_start(job_id)
        seen = await inspect(reader)
        assert changes(seen) == [("job", "success"), ("job", "running")]
        assert [each.run.id for each in seen.running] == [started]
        assert (next_names(seen), seen.next[0].is_busy) == (["job"], True)
        of_tag = StoreReader(store, Filter(RunQuery(tag="t"), Subject()), for_view=True)
        assert next_names(await inspect(of_tag)) == ["job"]


async def test_very_many_new_runs_are_passed_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_changes, "PAGE", 3)
    async with open_store(tmp_path / "a.db") as store:
        job_id = await store.add_job("job", "it", Interval.every(hours=1))
        reader = StoreReader(store, Filter(RunQuery(), Subject()), for_view=True)
        await inspect(reader)
        for _ in range(7):
            await store.record_run_complete(await store.record_run_start(job_id), RunStatus.SUCCESS, "fine")
            await trio.sleep(0.002)  # moments of runs of one job differ
        pages = []
        for _ in range(3):
            seen, _ = await reader.read()
            assert seen is not None
            pages.append(([change.run.id for change in seen.changes], seen.known.complete))
        assert pages == [(["1", "2", "3"], False), (["4", "5", "6"], False), (["7"], True)]
        assert [run.id for run in reader.last or ()] == ["7", "6", "5", "4", "3", "2", "1"]


async def test_the_last_runs_are_in_order_of_their_finish_also_one_that_was_long(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch_store, "MOST_LAST", 2)
    async with scheduler_with_reader(tmp_path / "a.db", RunQuery(limit=2)) as (scheduler, ids, reader):
        await scheduler.run_now(ids["slow"], wait=False)
        for _ in range(3):
            await scheduler.run_now(ids["later"])
        await inspect(reader)
        assert [(run.job_name, run.id) for run in reader.last or ()] == [("later", "4"), ("later", "3")]
        await trio.sleep(200)
        await inspect(reader)
        assert [(run.job_name, run.id) for run in reader.last or ()] == [("slow", "1"), ("later", "4")]


async def test_an_inspection_reads_few_rows_of_a_large_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Counted, not timed: each row that SQLite returns is one that we fetch."""
    fetched = 0
    fetch = SqliteStorage._fetch

    def count(self: SqliteStorage, *args: object) -> list[tuple[object, ...]]:
        nonlocal fetched
        rows: list[tuple[object, ...]] = fetch(self, *args)  # type: ignore[arg-type]
        fetched += len(rows)
        return rows

    async with open_store(tmp_path / "a.db") as store:
        ids = await store.add_jobs([JobSpec(f"job {number}", "it", Interval.every(hours=1)) for number in range(500)])
        for job_id in ids[:200]:
            await store.record_run_complete(await store.record_run_start(job_id), RunStatus.SUCCESS, "fine")
        reader = StoreReader(store, Filter(RunQuery(), Subject()), for_view=True)
        await inspect(reader)
        monkeypatch.setattr(SqliteStorage, "_fetch", count)
        await inspect(reader)
    assert 0 < fetched < 50


async def test_a_locked_store_is_a_problem_and_then_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch_store, "PATIENCE", 0.1)
    locked = True
    begin = SqliteStorage.begin

    def maybe(self: SqliteStorage, *, write: bool, alone: bool = True) -> bool:
        return not locked and begin(self, write=write, alone=alone)

    async with open_store(tmp_path / "a.db") as store:
        reader = StoreReader(store, Filter(RunQuery(), Subject()), for_view=True)
        monkeypatch.setattr(SqliteStorage, "begin", maybe)
        assert await reader.read() == (None, f"{store.path} is locked, or has not answered for 0 s")
        locked = False
        await inspect(reader)


async def test_a_server_that_is_away_is_a_problem_and_a_deleted_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_self: SqliteStorage, *, write: bool, alone: bool = True) -> bool:
        raise StoreUnavailable("the server is gone")

    file = tmp_path / "a.db"
    async with open_store(file) as store:
        reader = StoreReader(store, Filter(RunQuery(tag="t"), Subject()), for_view=True)
        with monkeypatch.context() as patch:
            patch.setattr(SqliteStorage, "begin", fail)
            assert await reader.read() == (None, "the server is gone")
        await inspect(reader)
        file.unlink()
        with pytest.raises(StoreUnavailable, match=r"a\.db was deleted or replaced"):
            await reader.read()
