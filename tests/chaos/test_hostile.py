"""Executors and notifiers that break trio's own state, and all hostile ones at once on a file; see also tests/test_hostile.py.

The judge checks that each run has the outcome that its mischief must have, and that neighbours are not affected.
"""

from __future__ import annotations

import logging
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import cast

import pytest
import trio

from cronactors import (
    Cause,
    Cron,
    CronConfig,
    Interval,
    JobContext,
    JobExecutor,
    JobResult,
    JobSpec,
    OneShot,
    Receiver,
    RunStatus,
    now,
    open_scheduler,
)
from cronactors.actors import inbox
from cronactors.testing import VirtualClock
from tests.chaos.judge import Ledger, judge
from tests.chaos.mischief import MISCHIEF, NOTIFYING, Zoo, leak_nursery, stubborn
from tests.chaos.sizes import quick_and_full
from tests.workers import after, nothing

YEARLY = Cron("@yearly")
TIMED = ("ignores its cancellation", "shields itself")  # runs must not time out because neighbours block the loop
SLOW = ("hangs and ignores the cancellation", "removes the jobs", "edits the jobs")  # the last two: every job, at each end


# trio's warning about a generator that is dropped before its end.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")


# Nurseries and scopes that are left open


@pytest.mark.parametrize("kept", [True, False], ids=["generator kept", "generator dropped"])
@pytest.mark.parametrize("lasting", [0, 3], ids=["tasks end at once", "tasks take their time"])
async def test_a_nursery_that_is_left_open_is_a_failure_and_its_tasks_end_first(
    virtual_clock: VirtualClock, kept: bool, lasting: float
) -> None:
    ended: list[float] = []
    generators: list[object] = []

    async def executor(context: JobContext) -> str:
        if context.job_name == "bad":
            await leak_nursery(generators if kept else None, lasting, ended)
        return "fine"

    async with open_scheduler(":memory:", executor) as scheduler:
        bad, good = await scheduler.store.add_jobs(JobSpec(name, "it", YEARLY, max_retries=0) for name in ("bad", "good"))
        for job_id in (bad, good, bad, good):
            began = trio.current_time()
            run = await scheduler.run_now(job_id)
            if job_id == good:
                assert (run.status, run.result_summary) == (RunStatus.SUCCESS, "fine")
            else:
                assert (run.status, run.cause, run.result_summary) == (RunStatus.FAILED, Cause.ERROR, None)
                assert str(run.error).startswith("RuntimeError: Cancel scope stack corrupted")
                assert ended
                assert ended[-1] == pytest.approx(began + lasting, abs=0.2)
    assert len(ended) == 2


async def test_a_nursery_that_is_left_open_is_contained_while_every_slot_is_busy_and_at_the_end(
    virtual_clock: VirtualClock,
) -> None:
    generators: list[object] = []

    async def executor(context: JobContext) -> None:
        await trio.sleep(1)
        if context.job_name.startswith("bad"):
            await leak_nursery(generators)

    names = [f"{kind} {n}" for n in range(20) for kind in ("bad", "good")]
    specs = [JobSpec(name, "it", OneShot(after(1)), max_retries=0) for name in names]
    with trio.move_on_after(7.5) as scope:  # in the middle of it
        async with open_scheduler(":memory:", executor, jobs=specs, config=CronConfig(max_concurrent_runs=5)) as scheduler:
            await trio.sleep(6.5)
            runs = await scheduler.store.list_runs(limit=100, status=RunStatus.SUCCESS)
            assert len(runs) == 12
            assert len(await scheduler.store.list_runs(limit=100, status=RunStatus.FAILED)) == 13
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_context_variables_of_a_run_do_not_reach_the_next_one(virtual_clock: VirtualClock) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="clean")
    seen: list[str] = []

    async def executor(context: JobContext) -> None:
        seen.append(variable.get())
        variable.set(context.job_name)
        await trio.sleep(0)
        variable.set(context.job_name)

    specs = [JobSpec(name, "it", OneShot(after(1))) for name in "abcd"]  # one slot: one after the other in one runner
    async with open_scheduler(":memory:", executor, jobs=specs) as scheduler:
        await trio.sleep(2)
        await scheduler.wait_idle()
    assert seen == ["clean"] * 4


async def test_a_run_that_does_not_end_is_reported_with_the_stacks_of_its_own_tasks(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def executor(context: JobContext) -> None:
        if context.job_name == "job":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stubborn, 60)

    config = CronConfig(max_concurrent_runs=2)
    async with open_scheduler(":memory:", executor, config=config) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(1)), timeout_secs=10, max_retries=0)
        await scheduler.store.add_job("neighbour", "it", Interval(1000))  # on virtual time there is no tick
        await trio.sleep(100)
    (report,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "in a task of it, tests.chaos.mischief.stubborn" in report
    assert "in stubborn" in report


# Notifiers


@pytest.mark.parametrize("name", NOTIFYING)
async def test_whatever_a_notifier_does_it_gets_each_run_once_and_jobs_keep_running(
    virtual_clock: VirtualClock, name: str
) -> None:
    notified: list[str] = []

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        notified.append(job_name)
        answer: object = NOTIFYING[name](scheduler)
        await answer  # type: ignore[misc]  # some are no coroutine: that is the mischief

    async with open_scheduler(":memory:", nothing, notifier=Receiver(notifier, attempts=1)) as scheduler:
        await scheduler.store.add_jobs(JobSpec(name, "it", OneShot(after(1)), max_retries=0) for name in "abc")
        await trio.sleep(100)
        runs = await scheduler.store.list_runs(limit=100)
    assert sorted(notified) == ["a", "b", "c"]
    assert {run.status for run in runs} == {RunStatus.SUCCESS}


@pytest.mark.parametrize("closing", [False, True], ids=["in a call that takes too long", "when the scheduler closes"])
async def test_a_notifier_that_shields_itself_is_reported_with_its_stack(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, closing: bool
) -> None:
    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        await stubborn(25 if closing else 60)

    async with open_scheduler(":memory:", nothing, notifier=notifier) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(1)))
        await trio.sleep(2 if closing else 100)
        reports = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(reports) == (0 if closing else 1)
    (report,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "notifier is still running for run 1 5 s after it was cancelled" in report
    assert "in stubborn" in report
    assert trio.current_time() == pytest.approx(26 if closing else 100)  # delayed, and never abandoned


# All at once, in real time, on a file


@quick_and_full("rounds", 4, 200)
async def test_a_zoo_of_hostile_executors_and_notifiers_harms_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, figures: Callable[[str], None], rounds: int
) -> None:
    monkeypatch.setattr(inbox, "PAUSE_AFTER", 10**9)
    chance = random.Random(seed)
    db, ledger = tmp_path / "a.db", Ledger(tmp_path / "ledger")
    zoo, notified = Zoo(ledger), Counter[str]()

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        notified[job_name] += 1
        name = chance.choice(list(NOTIFYING))
        if name not in SLOW:
            answer: object = NOTIFYING[name](scheduler)
            await answer  # type: ignore[misc]  # some are no coroutine: that is the mischief

    prompts = [*MISCHIEF, *["good"] * len(MISCHIEF)] * rounds
    chance.shuffle(prompts)
    began = time.monotonic()
    config = CronConfig(max_concurrent_runs=16, cancel_grace=0.1)
    once = Receiver(notifier, attempts=1)
    async with open_scheduler(db, cast(JobExecutor, zoo), notifier=once, config=config) as scheduler:
        zoo.scheduler = scheduler
        shot = OneShot(now())
        specs = [
            JobSpec(f"{n} {prompt}", prompt, shot, max_retries=0, timeout_secs=0.2 if prompt in TIMED else None)
            for n, prompt in enumerate(prompts)
        ]
        for start in range(0, len(specs), 10_000):
            await scheduler.store.add_jobs(specs[start : start + 10_000])
        await scheduler.wait_idle()
        runs = await scheduler.store.list_runs(limit=100_000)
        assert scheduler.health().runs_in_flight == 0
    took = time.monotonic() - began
    assert len(runs) == len({run.job_id for run in runs}) == len(prompts)
    for run in runs:
        act = MISCHIEF.get(run.job_name.partition(" ")[2])
        text = (run.result_summary if run.status is RunStatus.SUCCESS else run.error) or ""
        expected = (RunStatus.SUCCESS, None, "fine") if act is None else (act.status, act.cause, act.text)
        assert (run.status, run.cause, text[: len(expected[2])]) == expected, run
    assert Counter(run.job_name for run in runs) == notified
    figures(f"{judge(db, ledger)}; {notified.total()} notifications, in {took:.1f} s")


@quick_and_full("seconds", 1, 5)
async def test_an_executor_that_blocks_the_loop_only_delays_its_neighbours(
    tmp_path: Path, figures: Callable[[str], None], seconds: float
) -> None:
    db, ledger = tmp_path / "a.db", Ledger(tmp_path / "ledger")

    async def executor(context: JobContext) -> None:
        ledger.write("start", context)
        if context.job_name == "block":
            time.sleep(seconds)
        ledger.write("end", context)

    async with open_scheduler(db, executor, config=CronConfig(max_concurrent_runs=4)) as scheduler:
        neighbours = [await scheduler.store.add_job(f"neighbour {n}", "it", Interval(100)) for n in range(3)]
        began = now()
        job_id = await scheduler.store.add_job("block", "it", OneShot(now()))
        await trio.sleep(2 * seconds)
        for neighbour in neighbours:
            await scheduler.store.pause_job(neighbour)
        await scheduler.wait_idle()
        length = now() - began
        (blocked,) = await scheduler.store.list_runs(job_id)
        runs = [run for neighbour in neighbours for run in await scheduler.store.list_runs(neighbour, limit=10_000)]
    assert blocked.status is RunStatus.SUCCESS
    # A neighbour whose own run was running when the loop was blocked has skipped moments meanwhile; so has one that was paused
    # between the coming of a moment and its claim.
    skipped = {(RunStatus.SKIPPED, Cause.OVERLAP), (RunStatus.SKIPPED, Cause.CANCELLED)}
    assert {(run.status, run.cause) for run in runs} - skipped == {(RunStatus.SUCCESS, None)}
    moments = sum(run.coalesced for run in runs)  # moments of the blocked time are merged or skipped, none is lost
    assert abs(moments - 30 * length.total_seconds()) <= 6
    most = max(run.coalesced for run in runs)
    assert most >= 10 * seconds - 3
    figures(f"{judge(db, ledger)}; loop blocked for {seconds} s, {moments} moments of neighbours, up to {most} in one row")


@pytest.mark.parametrize("how", ["result", "session_id", "error", "in a group"])
async def test_100_megabytes_are_cut_without_a_copy(
    virtual_clock: VirtualClock, figures: Callable[[str], None], how: str
) -> None:
    huge = "x" * 100_000_000

    async def executor(context: JobContext) -> JobResult:
        tracemalloc.start()
        if how == "error":
            raise ValueError(huge)
        if how == "in a group":
            raise ExceptionGroup("g", [ValueError(huge)] * 1000)
        return JobResult(summary=huge if how == "result" else "", session_id=huge if how == "session_id" else "")

    async with open_scheduler(":memory:", executor) as scheduler:
        run = await scheduler.run_now(await scheduler.store.add_job("job", "it", YEARLY, max_retries=0))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    kept = {"result": run.result_summary, "session_id": run.session_id}.get(how, run.error)
    assert kept is not None
    assert kept.startswith("x" * 100 if how in ("result", "session_id") else "ValueError: xxx")
    assert len(kept) == {"result": 10_000, "session_id": 200}.get(how, 2_000)
    assert run.status is (RunStatus.SUCCESS if how in ("result", "session_id") else RunStatus.FAILED)
    assert peak < 10_000_000
    figures(f"100 MB as {how}: {peak / 1e6:.1f} MB at most beside it")
