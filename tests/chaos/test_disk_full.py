"""A disk that fills up, a file that may not grow, a file that becomes read-only: nothing is half done, nothing is lost."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from cronactors import (
    Cause,
    CronConfig,
    CronScheduler,
    Interval,
    JobContext,
    JobSpec,
    OneShot,
    RunStatus,
    StoreUnavailable,
    now,
    open_scheduler,
)
from cronactors.storage.sqlite import SqliteStorage
from cronactors.testing import VirtualClock
from tests.chaos.disks import Disk, small_disk
from tests.chaos.judge import Ledger, judge
from tests.chaos.sizes import quick_and_full

SLOTS = 100
IN_FLIGHT, LATER = 90, 20
OUTAGE = 1_200  # virtual seconds


class World:
    """A scheduler of a hundred slots on a disk, with executors that wait for an event."""

    def __init__(self, disk: Disk, ledger: Ledger) -> None:
        self.disk = disk
        self.ledger = ledger
        self.sign = trio.Event()

    async def execute(self, ctx: JobContext) -> str:
        self.ledger.write("start", ctx)
        if ctx.prompt == "wait":
            await self.sign.wait()
        self.ledger.write("end", ctx)
        return "its result"

    async def add(self, scheduler: CronScheduler, name: str, count: int, prompt: str, secs: float = 0) -> list[str]:
        moment = datetime.now(UTC) + timedelta(seconds=secs)
        return await scheduler.store.add_jobs([JobSpec(f"{name} {n}", prompt, OneShot(moment)) for n in range(count)])

    def statuses(self) -> Counter[str]:
        """Count the runs by status, read without the library."""
        with closing(sqlite3.connect(f"{self.disk.db.as_uri()}?mode=ro", uri=True)) as connection:
            return Counter(status for (status,) in connection.execute("SELECT status FROM runs"))

    def jobs(self) -> set[str]:
        with closing(sqlite3.connect(f"{self.disk.db.as_uri()}?mode=ro", uri=True)) as connection:
            return {job_id for (job_id,) in connection.execute("SELECT id FROM jobs")}

    async def reach(self, **wanted: int) -> float:
        """Wait until the file has so many runs; return how long it took (s)."""
        begun = trio.current_time()
        with trio.fail_after(30):
            while any(self.statuses()[status] < count for status, count in wanted.items()):
                await trio.sleep(0.02)
        return trio.current_time() - begun

    async def add_until_refused(self, scheduler: CronScheduler) -> list[str]:
        """Add jobs until the last byte is used: acknowledged jobs are in the file, refused ones are not."""
        before = self.jobs()
        added: list[str] = []
        far = OneShot(datetime.now(UTC) + timedelta(days=1))
        with trio.fail_after(30), pytest.raises(StoreUnavailable, match=r"agent\.db") as caught:
            while True:
                added.append(await scheduler.store.add_job(f"more {len(added)}", "x" * 5_000, far))
        assert "\n" not in str(caught.value)
        with pytest.raises(StoreUnavailable):
            await scheduler.store.add_jobs([JobSpec(f"all or none {n}", "x" * 5_000, far) for n in range(500)])
        assert self.jobs() == before | set(added)
        return added


@pytest.mark.parametrize("kind", ["full", "file size", "read-only"])
@quick_and_full("seconds", 1.2, 60)
async def test_while_nothing_can_be_written_nothing_is_lost_and_afterwards_everything_continues(
    kind: str, seconds: float, figures: Callable[[str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "cronactors")
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(kind, folder) as disk:
        world = World(disk, Ledger(tmp_path / "ledger"))
        async with open_scheduler(disk.db, world.execute, config=CronConfig(max_concurrent_runs=SLOTS)) as scheduler:
            added = await world.add(scheduler, "in flight", IN_FLIGHT, "wait")
            await world.reach(running=IN_FLIGHT)
            added += await world.add(scheduler, "later", LATER, "go", secs=1)
            await disk.fill(scheduler.store)
            added += await world.add_until_refused(scheduler)
            world.sign.set()
            await trio.sleep(seconds)  # real time, in which a hundred runners keep retrying
            waiting = world.statuses()["running"]
            assert waiting or disk.what.startswith("PRAGMA max"), "every outcome could be stored: the test proves nothing"
            with trio.fail_after(5):
                while True:
                    with suppress(StoreUnavailable):  # it shared a batch with a finish that was tried again
                        assert len(await scheduler.store.list_jobs()) == len(added), "reading still works"
                        break
                    await trio.sleep(0.05)
            assert scheduler.health().last_store_error is not None
            lines = [record for record in caplog.records if record.name.startswith("cronactors")]
            assert len(lines) <= 1 + seconds / 10
            await disk.free(scheduler.store)
            took = await world.reach(success=IN_FLIGHT + LATER)
            added.append(await scheduler.store.add_job("at last", "go", OneShot(datetime.now(UTC))))
            await world.reach(success=IN_FLIGHT + LATER + 1)
            assert scheduler.health().last_store_error is None
            assert caplog.messages.count("the store is working again") == 1
        judgement = judge(disk.db, world.ledger, acknowledged=added)
    assert took < 20, "some 2 s are promised, which the test on virtual time checks"
    figures(
        f"{kind} ({disk.what}): for {seconds} s; {waiting} outcomes waited, {len(lines)} log lines; "
        f"all continued {took:.2f} s after there was room; {judgement}"
    )


@pytest.mark.slow
async def test_after_a_long_outage_everything_continues_within_two_seconds(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """On virtual time, where a bound is exact: a longer outage must not mean a longer wait after it."""
    full, begin = False, SqliteStorage.begin

    def start_if_there_is_room(storage: SqliteStorage, *, write: bool, alone: bool = True) -> bool:
        if full and write:
            raise StoreUnavailable("agent.db: the disk is full")
        return begin(storage, write=write, alone=alone)

    monkeypatch.setattr(SqliteStorage, "begin", start_if_there_is_room)
    start = now()

    async def execute(ctx: JobContext) -> str:
        await trio.sleep(float(ctx.prompt))
        return "its result"

    def count_lines(words: str) -> int:
        return sum(words in record.getMessage() for record in caplog.records)

    async with open_scheduler(":memory:", execute, config=CronConfig(max_concurrent_runs=SLOTS)) as scheduler:
        names = [
            await scheduler.store.add_job(name, prompt, OneShot(start + timedelta(seconds=secs)), timeout_secs=60, max_retries=0)
            for name, prompt, secs in [("ends", "30", 1), ("times out", "600", 1), ("comes due", "0", 120)]
        ]
        interval = await scheduler.store.add_job("interval", "0", Interval.every(seconds=300))
        await trio.sleep(10)
        full = True
        await trio.sleep(OUTAGE)
        assert [run.status for run in await scheduler.store.list_runs()] == [RunStatus.RUNNING] * 2
        assert scheduler.health().last_store_error is not None
        assert count_lines("the store is failing") == 1, "a line for each change"
        assert count_lines("the store is working again") == 0
        full = False
        await trio.sleep(2)
        runs = [(await scheduler.store.list_runs(name))[0] for name in [*names, interval]]
        assert [(run.status, run.cause) for run in runs] == [
            (RunStatus.SUCCESS, None),
            (RunStatus.FAILED, Cause.TIMEOUT),
            (RunStatus.SUCCESS, None),
            (RunStatus.SUCCESS, None),
        ]
        assert runs[0].result_summary == "its result"
        assert runs[3].coalesced == 4
        assert count_lines("the store is working again") == 1
        assert scheduler.health().last_store_error is None
        full = True
        await trio.sleep(OUTAGE)  # no run is left whose finish would claim another, so the clock has to retry
        full = False
        await trio.sleep(2)
        last, first = (await scheduler.store.list_runs(interval))[:2]
        assert (first.id, last.status, last.coalesced) == (runs[3].id, RunStatus.SUCCESS, 4)
