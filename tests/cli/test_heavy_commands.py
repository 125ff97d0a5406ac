"""Shell commands that do not end or print too much, and the slot, the memory and the other jobs of their scheduler. In real time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from cronactors import Cause, CronConfig, Interval, JobSpec, RunStatus, open_scheduler
from cronactors.shell.executor import SHELL_OUTPUT, shell_executor
from tests.test_executors import gone, pid_in, posix, wait_for
from tests.workers import runs_in

pytestmark = [posix, pytest.mark.slow]

GRACE = 0.3
STUBBORN = "trap '' TERM INT HUP; echo $$ >pid; while :; do sleep 0.05; done"
"""A command that traps SIGTERM, as do its children."""
YEARLY = Interval.every(hours=8760)
MEGABYTES = 50
MAX_MEMORY = 4_000_000
"""How much memory (bytes) a long output may take: pieces that are read, and both ends of it."""


async def test_a_command_that_traps_sigterm_is_killed_at_its_timeout_and_its_slot_is_free_again(tmp_path: Path) -> None:
    config = CronConfig(max_concurrent_runs=1)
    async with open_scheduler(tmp_path / "a.db", shell_executor(tmp_path, grace=GRACE), config=config) as scheduler:
        stubborn = await scheduler.store.add_job("stubborn", STUBBORN, YEARLY, timeout_secs=0.3, max_retries=0)
        run = await scheduler.run_now(stubborn)
        assert (run.status, run.cause) == (RunStatus.FAILED, Cause.TIMEOUT)
        assert gone(await pid_in(tmp_path / "pid"))
        good = await scheduler.run_now(await scheduler.store.add_job("good", "echo good", YEARLY))
        assert (good.status, good.result_summary) == (RunStatus.SUCCESS, "good")
        assert run.completed_at is not None
        assert good.started_at is not None
        assert good.started_at >= run.completed_at


async def test_a_command_that_traps_sigterm_does_not_hold_up_the_shutdown_and_is_put_back(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_scheduler(tmp_path / "a.db", shell_executor(tmp_path, grace=GRACE), shutdown_grace=0.1) as scheduler:
            await scheduler.run_now(await scheduler.store.add_job("stubborn", STUBBORN, YEARLY), wait=False)
            process = await pid_in(tmp_path / "pid")
        await wait_for(lambda: gone(process))
    first, again = await runs_in(tmp_path / "a.db")
    assert (first.status, first.cause) == (RunStatus.FAILED, Cause.INTERRUPTED)
    assert again.status is RunStatus.PENDING


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("exit_command", ["exit 0", "exit 3"])
@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
async def test_50_megabytes_of_output_are_cut_and_take_little_memory(
    traced: None, tmp_path: Path, stream: str, exit_command: str
) -> None:
    redirection = {"stdout": "", "stderr": ">&2", "both": "| tee /dev/stderr"}[stream]
    flood = f"{{ echo first; head -c {MEGABYTES}000000 /dev/zero | tr '\\0' x; echo; echo last; }} {redirection}; {exit_command}"
    async with open_scheduler(tmp_path / "a.db", shell_executor(tmp_path, grace=GRACE)) as scheduler:
        job_id = await scheduler.store.add_job("flood", flood, YEARLY, max_retries=0)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        with trio.fail_after(60):
            run = await scheduler.run_now(job_id)
        _, peak = tracemalloc.get_traced_memory()
    assert peak - before < MAX_MEMORY
    if exit_command == "exit 3":
        assert run.status is RunStatus.FAILED
        assert run.error is not None
        assert run.error.startswith("CommandFailed: exit status 3")
        assert run.error.endswith("last") == (stream != "stdout")
        assert len(run.error) < 600
    else:
        assert run.status is RunStatus.SUCCESS
        assert run.result_summary is not None
        assert run.result_summary.startswith("first\nxxx" if stream != "stderr" else "")
        assert len(run.result_summary) <= 10_000


async def test_four_floods_at_once_take_little_memory_and_do_not_hold_up_a_neighbour(traced: None, tmp_path: Path) -> None:
    flood = f"head -c {MEGABYTES}000000 /dev/zero"
    specs = [JobSpec("neighbour", "echo here", Interval(200), max_retries=0)]
    config = CronConfig(max_concurrent_runs=5)
    async with open_scheduler(tmp_path / "a.db", shell_executor(tmp_path), config=config, jobs=specs) as scheduler:
        ids = [await scheduler.store.add_job(f"flood {n}", flood, YEARLY, max_retries=0) for n in range(4)]
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for job_id in ids:
                    nursery.start_soon(scheduler.run_now, job_id)
            await trio.sleep(0.3)  # real time, until the neighbour's next moment
        _, peak = tracemalloc.get_traced_memory()
    assert peak - before < 4 * MAX_MEMORY
    runs = await runs_in(tmp_path / "a.db")
    assert [run.status for run in runs if run.job_id in ids] == [RunStatus.SUCCESS] * 4
    neighbours = [run for run in runs if run.job_name == "neighbour" and run.status is not RunStatus.SKIPPED]
    assert neighbours
    assert {run.result_summary for run in neighbours if run.status is RunStatus.SUCCESS} == {"here"}
    assert SHELL_OUTPUT * 4 < MAX_MEMORY
