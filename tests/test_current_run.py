"""The run that an executor carries out: where it is found, the run before it, and what it refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import trio

from cronactors import (
    Cause,
    CronError,
    CurrentRun,
    InvalidJob,
    JobContext,
    JobSpec,
    OneShot,
    RunNotFound,
    RunStatus,
    current_run,
    now,
    open_scheduler,
    open_store,
)
from cronactors.testing import VirtualClock, fake_run, make_context
from tests.bad_input import LONE, NOT_TEXT, NUL, cases, check
from tests.workers import MINUTE, history, once, run_once, slots

# Where it is


def test_outside_of_a_run_there_is_none() -> None:
    with pytest.raises(LookupError, match=r"there is no current run here.*fake_run"):
        current_run()
    assert current_run(default=None) is None
    assert current_run(default=5) == 5


async def test_an_executor_its_tasks_and_its_threads_have_it(virtual_clock: VirtualClock) -> None:
    seen: dict[str, CurrentRun] = {}

    async def deeper(name: str) -> None:
        seen[name] = current_run()
        current_run().log(name)

    def in_thread() -> None:
        seen["thread"] = current_run()
        current_run().log("thread")
        trio.from_thread.run(deeper, "from the thread")

    async def executor(ctx: JobContext) -> None:
        run = seen["executor"] = current_run()
        assert (run.run_id, run.job_id, run.job_name, run.attempt) == (ctx.run_id, ctx.job_id, ctx.job_name, ctx.attempt)
        async with trio.open_nursery() as outer:
            outer.start_soon(deeper, "task")
            async with trio.open_nursery() as inner:
                inner.start_soon(deeper, "nested task")
        await trio.to_thread.run_sync(in_thread)

    run, text = await run_once(executor)
    assert run.status is RunStatus.SUCCESS, run.error
    assert len(seen) == 5
    assert len(set(map(id, seen.values()))) == 1
    assert sorted(text.splitlines()) == ["from the thread", "nested task", "task", "thread"]


async def test_threads_that_log_at_once_lose_and_mix_nothing() -> None:
    threads, count = 4, 500

    def in_thread(name: int) -> None:
        for number in range(count):
            current_run().log(f"{name} {number}")

    async def executor(ctx: JobContext) -> None:
        async with trio.open_nursery() as nursery:
            for name in range(threads):
                nursery.start_soon(trio.to_thread.run_sync, in_thread, name)

    async with open_scheduler(":memory:", executor, jobs=[once()]) as scheduler:
        with trio.fail_after(30):
            while not (runs := await scheduler.store.list_runs(status=RunStatus.SUCCESS)):
                await trio.sleep(0.05)
        lines = (await scheduler.store.get_run_output(runs[0].id)).text.splitlines()
    for name in range(threads):
        assert [line for line in lines if line.startswith(f"{name} ")] == [f"{name} {number}" for number in range(count)]
    assert len(lines) == threads * count


async def test_each_run_has_its_own(virtual_clock: VirtualClock) -> None:
    async def executor(ctx: JobContext) -> None:
        for number in range(3):
            assert current_run().run_id == ctx.run_id
            current_run().log(f"{ctx.job_name} {number}")
            await trio.sleep(0.7)

    async with open_scheduler(":memory:", executor, config=slots(2)) as scheduler:
        at = OneShot(now() + timedelta(seconds=1))
        await scheduler.store.add_jobs([JobSpec(name, "it", at) for name in "abcdef"])
        await trio.sleep(60)
        for run in await history(scheduler):
            text = (await scheduler.store.get_run_output(run.id)).text
            assert text == "".join(f"{run.job_name} {number}\n" for number in range(3))
        assert current_run(default=None) is None


async def test_a_notifier_has_none(virtual_clock: VirtualClock) -> None:
    seen: list[object] = []

    async def executor(ctx: JobContext) -> None: ...

    async def on_finish(job: object, run: object) -> None:
        seen.append(current_run(default=None))

    async with open_scheduler(":memory:", executor, on_finish=on_finish, jobs=[once()]):
        await trio.sleep(10)
    assert seen == [None]


# The run before


async def test_the_run_before(virtual_clock: VirtualClock) -> None:
    seen: list[tuple[int, object]] = []

    async def executor(ctx: JobContext) -> str:
        before = await current_run().previous()
        seen.append((ctx.attempt, before and (before.status, before.cause, before.result_summary, before.attempt)))
        if len(seen) == 2:
            raise ValueError("no")
        return f"result {len(seen)}"

    virtual_clock.set_wall("2026-01-01T00:00:00Z")
    async with open_scheduler(":memory:", executor, jobs=[JobSpec("job", "it", MINUTE)]):
        await trio.sleep(200)
    assert seen[:4] == [
        (1, None),
        (1, (RunStatus.SUCCESS, None, "result 1", 1)),
        (2, (RunStatus.FAILED, Cause.ERROR, None, 1)),
        (1, (RunStatus.SUCCESS, None, "result 3", 2)),
    ]


# Bad input


@pytest.mark.parametrize(
    ("field", "value"),
    cases(
        {
            "line": NOT_TEXT,
            "fraction": ("0.5", True, -0.1, 1.1, float("nan"), float("inf"), 10**400, b"1", []),
            "note": (*NOT_TEXT, NUL, LONE, "x" * 201),
        }
    ),
)
def test_a_bad_report_is_refused(field: str, value: Any) -> None:
    with fake_run() as run, pytest.raises(CronError) as caught:
        if field == "line":
            run.log(value)
        elif field == "fraction":
            run.report_progress(value)
        else:
            run.report_progress(0.5, value)
    check(caught.value, field, value)
    assert (run.lines, run.progress) == ([], [])


@pytest.mark.parametrize("since", [-1, True, 1.5, "1", None, 2**63])
async def test_a_bad_position_is_refused(virtual_clock: VirtualClock, since: Any) -> None:
    async with open_store(":memory:") as store:
        with pytest.raises(InvalidJob, match="since"):
            await store.get_run_output("1", since=since)


async def test_a_run_that_does_not_exist(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        for call in (store.get_run_output, store.get_progress):
            with pytest.raises(RunNotFound, match="no run has the id '7'"):
                await call("7")
            with pytest.raises(CronError, match="run_id"):
                await call("")


# Tests of executors


async def test_a_fake_run_collects_what_an_executor_reports() -> None:
    async def executor(ctx: JobContext) -> str:
        run = current_run()
        run.report_progress(None, "starting")
        run.log("one\ntwo\r\n")
        await trio.to_thread.run_sync(run.log, "a\0b")
        run.report_progress(1)
        before = await run.previous()
        return f"{run.job_name} {run.run_id} {run.attempt} {before}"

    context = make_context(job_name="mine", run_id="7", attempt=2)
    with fake_run(context) as run:
        assert await executor(context) == "mine 7 2 None"
    assert run.lines == ["one", "two", "a\ufffdb"]
    assert run.progress == [(None, "starting"), (1.0, "")]
    assert current_run(default=None) is None


async def test_a_fake_run_has_the_ids_of_a_context_by_default() -> None:
    context = make_context()
    with fake_run() as run:
        assert (run.run_id, run.job_id, run.job_name, run.attempt) == (
            context.run_id,
            context.job_id,
            context.job_name,
            context.attempt,
        )
