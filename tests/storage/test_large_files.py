"""An ``agent.toml`` of 10,000 jobs, as many as one may hold."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import trio

from cronactors import JobContext, RunStatus, load_config, open_scheduler
from cronactors.spec import MAX_JOBS
from cronactors.testing import VirtualClock
from tests.cli_command import Command, start

__all__ = ["start"]

pytestmark = pytest.mark.slow

SOON = 100
"""Each job whose number is a multiple of this is due in the first hour, the others on later days."""


def schedule_of(number: int) -> str:
    if number % SOON == 0:
        return f'cron = "{number // SOON % 60} 0 * * *"' if number % 200 else f"every_ms = {1_800_000 + number}"
    return ['cron = "0 9 2 * *"', "every_ms = 864000000", 'at = "2026-12-24 09:00"'][number % 3]


def write(file: Path, numbers: Iterable[int], *, prompt: str = "true") -> None:
    jobs = (f'[[cron.jobs]]\nname = "job {n}"\nprompt = "{prompt}"\n{schedule_of(n)}\n' for n in numbers)
    file.write_text("\n".join(['timezone = "Europe/Rome"', '[cron]\ndatabase = "agent.db"\nexecutor = "shell"', *jobs]))


async def test_10000_jobs_of_one_file_are_stored_run_and_replaced_by_a_shorter_list(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    file, database = tmp_path / "agent.toml", tmp_path / "agent.db"
    write(file, range(MAX_JOBS))
    config = load_config(file)
    assert len(config.jobs) == MAX_JOBS
    ran = Counter[str]()

    async def executor(ctx: JobContext) -> None:
        ran[ctx.job_name] += 1

    virtual_clock.set_wall("2025-12-31T23:00Z")  # midnight in Rome
    async with open_scheduler(database, executor, config=config) as scheduler:
        before = await scheduler.store.list_jobs()
        assert len(before) == MAX_JOBS
        assert all(job.next_run_at is not None for job in before)

    async with open_scheduler(database, executor, config=config) as scheduler:
        assert await scheduler.store.list_jobs() == before, "an unchanged list changes nothing"
        await trio.sleep(3599)
    assert ran == {f"job {n}": 1 for n in range(0, MAX_JOBS, SOON)}

    write(file, range(1, MAX_JOBS, 2), prompt="echo changed")
    async with open_scheduler(database, executor, config=load_config(file)) as scheduler:
        left = await scheduler.store.list_jobs()
        assert [(job.name, job.prompt) for job in left] == [(f"job {n}", "echo changed") for n in range(1, MAX_JOBS, 2)]
        kept = {job.name: (job.id, job.next_run_at) for job in before}
        assert all(kept[job.name] == (job.id, job.next_run_at) for job in left)
        runs = await scheduler.store.list_runs(limit=1000)
        assert {run.status for run in runs} == {RunStatus.SUCCESS}
        assert len(runs) == ran.total(), "the history of removed jobs stays"


def test_the_command_line_copes_with_10000_jobs(start: Callable[..., Command], tmp_path: Path) -> None:
    write(tmp_path / "agent.toml", range(MAX_JOBS))
    running = start("run", "--for", "0.5")
    assert re.search(r"… and 9,950 more", running.wait_for("more$", 50))
    status, text = running.end(50)
    assert status == 0, text
    status, text = start("list", "--json").end(50)
    assert status == 0
    assert len(json.loads(text)) == MAX_JOBS
    status, text = start("runs", "job 9999", "--limit", "5").end(50)
    assert (status, text) == (0, "no runs of job 9999 yet")
