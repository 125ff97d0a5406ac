"""Four web workers: processes of one program that open one new file at the same instant, each with the same list of jobs."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from cronactors import CronJob, open_store
from tests.chaos.judge import Ledger, judge, read_database
from tests.cli_command import ROOT
from tests.web_worker_child import of_the_call, of_the_file

WORKERS = 4


@pytest.mark.slow
def test_four_web_workers_on_one_new_file_add_each_job_once_and_run_each_moment_once(tmp_path: Path) -> None:
    file, ledger = tmp_path / "agent.db", Ledger(tmp_path / "ledger")
    command = [sys.executable, "-W", "error", "-m", "tests.web_worker_child", str(file), str(ledger.file)]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(WORKERS)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        shots_at = datetime.now(UTC) + timedelta(seconds=0.8)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{shots_at.isoformat()}\n")
            worker.stdin.flush()
        ends = [worker.communicate(timeout=30) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    specs = [*of_the_file(), *of_the_call(shots_at)]
    assert [worker.returncode for worker in workers] == [0] * WORKERS, ends
    assert ends == [(f"{len(specs)}\n", "")] * WORKERS

    jobs = trio.run(jobs_in, file)
    assert sorted(job.name for job in jobs) == sorted(spec.name for spec in specs)
    judge(file, ledger, acknowledged=[job.id for job in jobs])
    _, rows = read_database(file)
    assert {row.status for row in rows} <= {"success", "skipped"}
    assert max(Counter((row.job, row.at) for row in rows).values()) == 1
    ran = Counter(entry.job for entry in ledger.read() if entry.what == "end")
    for job in jobs:
        assert ran[job.id] == 1 if job.name.startswith("once") else ran[job.id] >= 1, job.name
    assert len({entry.pid for entry in ledger.read()}) > 1, "more than one worker ran jobs"


async def jobs_in(file: Path) -> list[CronJob]:
    async with open_store(file, create=False) as store:
        return await store.list_jobs()
