"""Files that are deleted while they are open, and logs that do not belong to their file."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from cronactors import (
    Cron,
    Interval,
    JobContext,
    JobSpec,
    StoreCorrupt,
    StoreUnavailable,
    open_scheduler,
    open_store,
)
from tests.chaos import whole_file
from tests.chaos.faults import talking
from tests.chaos.judge import Ledger, judge
from tests.chaos.whole_file import IN_TIME, JUNK, of_others
from tests.storages import contents

whole = whole_file.whole


# Deleted while it is open


@pytest.mark.slow
@pytest.mark.parametrize("what", ["deleted", "deleted with its log", "replaced", "its log deleted", "its index deleted"])
async def test_a_file_that_is_deleted_while_it_is_open_is_reported_and_not_created_again(what: str, tmp_path: Path):
    file, away = tmp_path / "agent.db", tmp_path / "away"
    away.mkdir()
    alone = {"deleted": "agent.db", "its log deleted": "agent.db-wal", "its index deleted": "agent.db-shm"}
    gone = [alone[what]] if what in alone else ["agent.db", "agent.db-wal", "agent.db-shm"]
    ledger = Ledger(tmp_path / "ledger")

    async def execute(ctx: JobContext) -> None:
        ledger.write("start", ctx)
        ledger.write("end", ctx)

    async with open_scheduler(file, execute, tick_interval=0.1) as scheduler:
        kept = await scheduler.store.add_job("kept", "p", Interval.every(ms=50))
        await trio.sleep(0.2)  # real time, so that there are runs
        for name in gone:
            (tmp_path / name).rename(away / name)
        if what == "replaced":
            of_others("CREATE TABLE notes (text)")(file)
        there = contents(tmp_path).keys()
        with trio.fail_after(IN_TIME):
            with pytest.raises(StoreUnavailable, match=r"agent\.db was deleted or replaced"):
                await scheduler.store.add_job("lost", "p", Interval.every(ms=50))
            while "deleted" not in (scheduler.health().last_store_error or ""):
                await trio.sleep(0.01)
        await trio.sleep(0.3)  # real time, in which nothing must be created
        assert contents(tmp_path).keys() == there
        if what == "replaced":
            file.unlink()
        for name in gone:
            (away / name).rename(tmp_path / name)
        with trio.fail_after(IN_TIME):
            second = await scheduler.store.add_job("second", "p", Interval.every(ms=50))
            while not await scheduler.store.list_runs(second):
                await trio.sleep(0.02)
    judge(file, ledger, acknowledged=[kept, second])


@pytest.mark.slow
async def test_without_the_shared_index_two_processes_do_not_overwrite_each_other(tmp_path: Path):
    """The next process to open the file creates a new index, and does not know the locks in the old one."""
    file = tmp_path / "agent.db"
    async with open_store(file) as store:
        added = [await store.add_job(f"before {n}", "p" * 3_000, Cron("* * * * *")) for n in range(10)]
        (tmp_path / "agent.db-shm").unlink()
        with talking(str(Path(__file__).with_name("adding_child.py")), str(file)) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            for number in range(10):
                print(f"theirs {number}", file=other.stdin, flush=True)
                added.append(other.stdout.readline().strip())
                with pytest.raises(StoreUnavailable, match=r"agent\.db was deleted or replaced"):
                    await store.add_job(f"ours {number}", "p" * 3_000, Cron("* * * * *"))
            other.stdin.close()
            assert other.wait(timeout=30) == 0
    judge(file, Ledger(tmp_path / "ledger"), acknowledged=added)


# A log of another time or file


@pytest.mark.parametrize("log", [JUNK, bytes(9_000)], ids=["junk", "zeros"])
async def test_a_log_that_is_no_log_is_ignored(log: bytes, whole: bytes, tmp_path: Path):
    file = tmp_path / "agent.db"
    file.write_bytes(whole)
    (tmp_path / "agent.db-wal").write_bytes(log)
    async with open_store(file) as store:
        assert len(await store.list_jobs()) == 150


@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize("kind", ["of another file", "of an earlier time"])
async def test_a_log_of_another_file_is_reported_or_used(kind: str, reported: bool, whole: bytes, tmp_path: Path):
    """SQLite knows its own log by checksums, but not to which state of which file it belongs: docs/limits.md.

    Damage is reported if their pages do not fit together. Otherwise the file is as it was when the log was written.
    """
    file, other = tmp_path / "agent.db", tmp_path / "other.db"
    if kind == "of an earlier time" and reported:  # otherwise the log has every page that the file had then
        other.write_bytes(whole)
    async with open_store(other) as store:
        for number in range(1 if reported else 5):
            await store.add_job(f"other {number}", "p" * 9_000, Cron("* * * * *"))
        then = {job.name for job in await store.list_jobs()}
        log = other.with_name("other.db-wal").read_bytes()
    file.write_bytes(whole)
    if kind == "of an earlier time" and reported:  # the file was changed without that log
        of_others("UPDATE job_specs SET prompt = 'p' || prompt || prompt")(file)
    elif not reported:
        if kind == "of an earlier time":
            file.write_bytes(other.read_bytes())
        else:
            file.unlink()
        async with open_store(file) as store:
            await store.add_jobs([JobSpec(f"later {number}", "p" * 9_000, Cron("* * * * *")) for number in range(100)])
    (tmp_path / "agent.db-wal").write_bytes(log)

    async def read() -> set[str]:
        with trio.fail_after(IN_TIME):
            async with open_store(file) as store:
                await store.list_runs(limit=1000)
                return {job.name for job in await store.list_jobs()}

    if reported:
        with pytest.raises(StoreCorrupt, match=r"agent\.db"):
            await read()
    else:
        assert await read() == then
