"""Large stores: the cost of a run does not depend on how much is stored. Counted in steps of SQLite's virtual machine."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from cronactors import (
    Cron,
    CronStore,
    Interval,
    InvalidJob,
    JobSpec,
    Misfire,
    OneShot,
    RunStatus,
    open_scheduler,
    open_store,
)
from cronactors.instants import Millis, to_millis
from cronactors.ledger.zone_changes import mark_recomputed
from cronactors.schedules.schedule_json import schedule_to_json
from cronactors.spec import MAX_PROMPT
from cronactors.storage.rows import JobRow, RunRow
from cronactors.storage.sqlite import SqliteStorage
from cronactors.testing import VirtualClock
from tests.chaos.sizes import quick_and_full
from tests.workers import START, after, nothing

SMALL_JOBS, SMALL_HISTORY = 100, 500
RUNS = 50
AT = to_millis(START)
YEAR: Millis = 366 * 86_400_000


def storage_of(store: CronStore) -> Any:
    """Return the storage; on virtual time it runs in the thread of the loop."""
    return store._service.actor.storage


async def fill(file: Path, *, jobs: int, history: int, at: Millis = AT + YEAR) -> None:
    """Store jobs with next moments from ``at`` on, and their history."""
    async with open_store(file) as store:
        model_id = await store.add_job("model", "it", Interval(YEAR))
        model = storage_of(store).jobs([model_id])[model_id]
        await store.remove_job(model_id)
    storage = SqliteStorage(str(file), wall=lambda: AT)
    shot = schedule_to_json(OneShot(after(YEAR / 1000)))
    for first in range(0, max(jobs, history), 10_000):
        assert storage.begin(write=True)
        last = first + 10_000
        storage.insert_jobs([job(model, n, shot, at) for n in range(first, min(last, jobs))])
        storage.insert_runs([past_run(n, n % jobs) for n in range(first, min(last, history))])
        storage.commit()
    assert storage.begin(write=True)
    mark_recomputed(storage)  # the rules are stored, so a start computes nothing again
    storage.commit()
    storage.close()


def job(model: JobRow, number: int, schedule: str, at: Millis) -> JobRow:
    return model._replace(id=f"j{number}", name=f"stored {number}", next_run_at=at + number, schedule=schedule, origin=None)


def past_run(number: int, of: int) -> RunRow:
    at = AT - YEAR + number
    return RunRow(
        id=0,
        job_id=f"j{of}",
        job_name=f"stored {of}",
        user_id="",
        trigger="schedule",
        manual=0,
        scheduled_at=at,
        attempt=1,
        ready_at=at,
        status=RunStatus.SUCCESS.value,
        started_at=at,
        completed_at=at,
    )


@contextmanager
def steps(storage: Any) -> Iterator[list[int]]:
    """Count the steps that SQLite takes."""
    counted = [0]

    def step() -> int:
        counted[0] += 1
        return 0

    storage._db.set_progress_handler(step, 1)
    try:
        yield counted
    finally:
        storage._db.set_progress_handler(None, 0)


def resident() -> float:
    """Return the memory of the process (MB); 0 where that is unknown."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS")), 0.0)


async def cost_of_runs(file: Path) -> tuple[int, float]:
    """Let a scheduler run 50 jobs of the file; return steps for each, and the peak of Python's memory (MB)."""
    tracemalloc.start()
    async with open_scheduler(file, nothing) as scheduler:
        base = after(trio.current_time() + 10)
        specs = [JobSpec(f"measured {n}", "it", OneShot(base), delete_after_run=True) for n in range(RUNS)]
        await scheduler.store.add_jobs(specs)
        with steps(storage_of(scheduler.store)) as counted:
            await trio.sleep(20)
            runs = await scheduler.store.list_runs(limit=RUNS)
        assert [run.status for run in runs] == [RunStatus.SUCCESS] * RUNS
        assert all(run.job_name.startswith("measured") for run in runs)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return counted[0] // RUNS, peak


@quick_and_full("size", (10_000, 50_000), (100_000, 1_000_000))
async def test_stored_jobs_and_history_do_not_make_a_run_more_expensive(
    virtual_clock: VirtualClock, tmp_path: Path, figures: Callable[[str], None], size: tuple[int, int]
) -> None:
    jobs, history = size
    await fill(tmp_path / "small.db", jobs=SMALL_JOBS, history=SMALL_HISTORY)
    await fill(tmp_path / "large.db", jobs=jobs, history=history)
    await cost_of_runs(tmp_path / "small.db")  # the first one imports, and fills caches
    small_steps, small_peak = await cost_of_runs(tmp_path / "small.db")
    before = resident()
    large_steps, large_peak = await cost_of_runs(tmp_path / "large.db")
    grown = resident() - before
    assert 0 < large_steps <= 1.1 * small_steps
    assert large_peak <= small_peak + 1
    assert grown < 50
    figures(
        f"{jobs:,} jobs and {history:,} runs stored: {large_steps:,} steps of SQLite a run and {large_peak:.1f} MB, with "
        f"{SMALL_JOBS:,} and {SMALL_HISTORY:,}: {small_steps:,} and {small_peak:.1f} MB; resident +{grown:.0f} MB"
    )


@quick_and_full("due", 10_000, 100_000)
async def test_a_limit_bounds_the_work_however_much_is_due(
    virtual_clock: VirtualClock, tmp_path: Path, figures: Callable[[str], None], due: int
) -> None:
    steps_of: dict[int, list[int]] = {}
    for number in (SMALL_JOBS, due):
        file = tmp_path / f"{number}.db"
        await fill(file, jobs=number, history=0, at=AT - due)
        async with open_store(file) as store:
            ids = [await store.add_job(f"asked {n}", "it", Cron("@yearly")) for n in range(20)]
            for job_id in ids:
                await store.request_run(job_id)
            await trio.sleep(1)
            steps_of[number] = []
            for limit, call in ((10, store.get_due_jobs), (50, store.get_due_jobs), (10, store.get_retry_jobs)):
                with steps(storage_of(store)) as counted:
                    assert len(await call(limit=limit)) == limit
                steps_of[number].append(counted[0])
    (ten, fifty, retries), (ten_due, fifty_due, retries_due) = steps_of.values()
    assert 0 < ten_due <= 1.1 * ten
    assert 0 < fifty_due <= 1.1 * fifty
    assert 0 < retries_due <= 1.1 * retries
    figures(
        f"of {due:,} due jobs (of {SMALL_JOBS}): 10 in {ten_due:,} ({ten:,}) steps of SQLite, 50 in {fifty_due:,} ({fifty:,}); "
        f"10 attempts that wait behind them in {retries_due:,} ({retries:,})"
    )


async def test_a_prompt_of_100_megabytes_is_refused_and_one_of_the_limit_is_not(
    virtual_clock: VirtualClock, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    huge = "x" * 100_000_000
    message = f"prompt is too long: 100,000,000 characters, at most {MAX_PROMPT:,} are allowed"
    async with open_store(tmp_path / "a.db") as store:
        job_id = await store.add_job("old", "x" * MAX_PROMPT, Interval(1000), misfire=Misfire())
        before = (tmp_path / "a.db-wal").read_bytes()
        tracemalloc.start()
        for call in (
            lambda: store.add_job("new", huge, Interval(1000)),
            lambda: store.upsert_job("old", huge, Interval(1000)),
            lambda: store.update_job(job_id, prompt=huge),
        ):
            with pytest.raises(InvalidJob, match=message):
                await call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (tmp_path / "a.db-wal").read_bytes() == before
        assert peak < 1_000_000
        assert (await store.get_job(job_id)).prompt == "x" * MAX_PROMPT
    figures(f"a prompt of 100 MB is refused three ways with {peak / 1e6:.2f} MB beside it; nothing was written")
