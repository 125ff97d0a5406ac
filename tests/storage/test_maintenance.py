"""Maintenance of the file while jobs run: VACUUM, a copy, a checkpoint, a lock of seconds. In real time."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import trio

from cronactors import CronConfig, Interval, JobContext, JobSpec, OneShot, RunStatus, now, open_scheduler
from tests.chaos.judge import Ledger, judge, read_database

pytestmark = pytest.mark.slow

JOBS = 5
EVERY = 100  # ms

# Each statement in a process and a connection of its own, as the shell of SQLite or a backup script does it.
SCRIPTS = {
    "VACUUM": "db.execute('VACUUM')",
    "VACUUM INTO": "db.execute('VACUUM INTO ?', (target + str(number),))",
    "backup at once": "copy = sqlite3.connect(target + str(number)); db.backup(copy); copy.close()",
    "backup page by page": (
        "copy = sqlite3.connect(target + str(number)); db.backup(copy, pages=1, sleep=0.001); copy.close()"  # starts again at each commit
    ),
    "wal_checkpoint(TRUNCATE)": "db.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()",
    "wal_checkpoint(RESTART)": "db.execute('PRAGMA wal_checkpoint(RESTART)').fetchone()",
    "a lock of 3 s": "db.execute('BEGIN EXCLUSIVE'); time.sleep(3); db.execute('COMMIT')",
    "a reader of 2 s": "db.execute('BEGIN'); db.execute('SELECT count(*) FROM runs').fetchone(); time.sleep(2); db.execute('COMMIT')",
}
OTHER = """
import sqlite3, sys, time
file, target, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(times):
    db = sqlite3.connect(file, isolation_level=None, timeout=10)
    {script}
    db.close()
    time.sleep(0.02)
"""


async def other_process(script: str, file: Path, times: int) -> None:
    """Do it that many times in another process; an error there is a failure here."""
    code = OTHER.format(script=script)
    command = [sys.executable, "-c", code, str(file), f"{file}.copy", str(times)]
    done = await trio.run_process(command, capture_stderr=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("what", SCRIPTS)
async def test_maintenance_while_jobs_run_loses_nothing_and_repeats_nothing(what: str, tmp_path: Path) -> None:
    file, ledger = tmp_path / "agent.db", Ledger(tmp_path / "ledger")

    async def executor(ctx: JobContext) -> str:
        ledger.write("start", ctx)
        await trio.sleep(0.01)
        ledger.write("end", ctx)
        return "x" * 5000  # so that the file and its log grow

    specs = [JobSpec(f"interval {n}", "it", Interval(EVERY)) for n in range(JOBS)]
    async with open_scheduler(file, executor, config=CronConfig(max_concurrent_runs=JOBS), jobs=specs) as scheduler:
        await trio.sleep(0.3)
        with trio.fail_after(30):
            await other_process(SCRIPTS[what], file, 1 if what.startswith("a ") else 5)
        added = await scheduler.store.add_job("afterwards", "it", OneShot(now()))
        await trio.sleep(0.3)
        acknowledged = [job.id for job in await scheduler.store.list_jobs()]
        assert added in acknowledged
    judge(file, ledger, acknowledged=acknowledged)
    _, rows = read_database(file)
    assert {row.status for row in rows} <= {RunStatus.SUCCESS, RunStatus.SKIPPED}
    assert [row.status for row in rows if row.job == added] == ["success"]
    copies = sorted(tmp_path.glob("*.copy[0-9]"))
    assert len(copies) == (5 if "target" in SCRIPTS[what] else 0)
    for copy in copies:
        await check_copy(copy, file)


async def check_copy(copy: Path, file: Path) -> None:
    """Check that a copy shows one instant: each moment is in one row, and a scheduler that opens it recovers the runs of then."""
    jobs, rows = read_database(copy)
    original = {(row.job, row.at): row for row in read_database(file)[1]}
    assert len(jobs) == JOBS
    assert all(original[row.job, row.at].coalesced == row.coalesced for row in rows)
    again = Counter[tuple[str, str]]()

    async def executor(ctx: JobContext) -> None:
        again[ctx.job_id, ctx.scheduled_at.isoformat()] += 1

    async with open_scheduler(copy, executor, config=CronConfig(max_concurrent_runs=JOBS)) as scheduler:
        await scheduler.wait_idle()
    assert max(again.values(), default=1) == 1
    assert len(read_database(copy)[1]) >= len(rows)
