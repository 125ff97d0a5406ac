"""Tasks that users start in our nurseries, through `trio.lowlevel`, and that raise: whose failure that is, and that we go on."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
import trio

from cronactors import (
    Cause,
    CronConfig,
    CronJob,
    CronRun,
    GiveUp,
    Interval,
    JobContext,
    OneShot,
    Retry,
    RunStatus,
    now,
    open_scheduler,
)
from cronactors.testing import VirtualClock
from tests.workers import Sleeper, after, nothing, start_jobs


def nursery_around() -> trio.Nursery:
    nursery = trio.lowlevel.current_task().parent_nursery
    assert nursery is not None
    return nursery


async def fail_after(seconds: float, error: BaseException) -> None:
    await trio.sleep(seconds)
    raise error


async def fail_when_cancelled(error: BaseException) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise error


async def ignores_cancelling(seconds: float) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)


async def outcomes(act, *, retries: int = 0) -> list[tuple[RunStatus, Cause | None, str | None]]:
    """Let ``act`` carry out a job at 00:01 beside a neighbour in the same and in another slot; answer its runs."""

    async def executor(context: JobContext) -> str:
        if context.job_name == "bad":
            return await act()
        await trio.sleep(0.5)
        return "fine"

    with trio.fail_after(10_000):
        async with open_scheduler(":memory:", executor, config=CronConfig(max_concurrent_runs=2)) as scheduler:
            bad = await scheduler.store.add_job("bad", "it", OneShot(now() + timedelta(minutes=1)), max_retries=retries)
            good = await scheduler.store.add_job("good", "it", Interval(30_000))
            await trio.sleep(295)
            runs = (await scheduler.store.list_runs(bad))[::-1]
            assert scheduler.health().free_slots == 2
            assert {run.status for run in await scheduler.store.list_runs(good, 100)} == {RunStatus.SUCCESS}
            assert len(await scheduler.store.list_runs(good, 100)) >= 9
    return [(run.status, run.cause, run.error) for run in runs]


@pytest.mark.parametrize("seconds", [0, 1])
async def test_a_task_beside_a_run_that_raises_is_the_failure_of_the_run(virtual_clock: VirtualClock, seconds: float) -> None:
    async def act() -> str:
        nursery_around().start_soon(fail_after, seconds, ValueError("beside"))
        await trio.sleep(5)
        return "done"

    assert await outcomes(act) == [(RunStatus.FAILED, Cause.ERROR, "ValueError: beside")]


async def test_so_is_one_that_raises_in_the_moment_in_which_the_executor_returns(virtual_clock: VirtualClock) -> None:
    async def fail_then(event: trio.Event) -> None:
        await event.wait()
        raise ValueError("beside")

    async def act() -> str:
        event = trio.Event()
        nursery_around().start_soon(fail_then, event)
        await trio.sleep(1)
        event.set()
        return "done"

    assert await outcomes(act) == [(RunStatus.FAILED, Cause.ERROR, "ValueError: beside")]


async def test_it_may_ask_for_a_retry_or_give_up(virtual_clock: VirtualClock) -> None:
    async def asks() -> str:
        nursery_around().start_soon(fail_after, 0, Retry("later", after=10))
        await trio.sleep(5)
        return "done"

    async def gives_up() -> str:
        nursery_around().start_soon(fail_after, 0, GiveUp("no use"))
        await trio.sleep(5)
        return "done"

    assert await outcomes(asks, retries=1) == [(RunStatus.FAILED, Cause.ERROR, "Retry: later")] * 2
    assert await outcomes(gives_up, retries=1) == [(RunStatus.FAILED, Cause.GAVE_UP, "GiveUp: no use")]


async def test_one_that_raises_after_the_executor_returned_and_before_the_nursery_is_gone_fails_the_run(
    virtual_clock: VirtualClock,
) -> None:
    async def act() -> str:
        nursery_around().start_soon(fail_when_cancelled, ValueError("cleaning up"))
        await trio.sleep(1)
        return "done"

    assert await outcomes(act) == [(RunStatus.FAILED, Cause.ERROR, "ValueError: cleaning up")]


async def test_the_run_is_recorded_when_the_tasks_beside_it_have_ended(virtual_clock: VirtualClock) -> None:
    async def act() -> str:
        nursery_around().start_soon(ignores_cancelling, 20)
        await trio.sleep(1)
        ended.append(trio.current_time())
        return "done"

    async def on_finish(job: CronJob, run: CronRun) -> None:
        told.append(trio.current_time())

    async def executor(context: JobContext) -> str:
        return await act()

    ended: list[float] = []
    told: list[float] = []
    async with open_scheduler(":memory:", executor, on_finish=on_finish) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(1)))
        await trio.sleep(60)
        (run,) = await scheduler.store.list_runs()
    assert run.status is RunStatus.SUCCESS
    assert told == [pytest.approx(ended[0] + 19)]


async def test_one_that_does_not_end_is_reported_with_its_stack(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def executor(context: JobContext) -> None:
        nursery_around().start_soon(ignores_cancelling, 50)

    async with open_scheduler(":memory:", executor, config=CronConfig(cancel_grace=2), shutdown_grace=1) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(1)))
        await trio.sleep(2)
    (report,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "in ignores_cancelling" in report


async def test_an_error_of_the_executor_comes_before_those_of_tasks_beside_it(virtual_clock: VirtualClock) -> None:
    async def act() -> str:
        nursery_around().start_soon(fail_when_cancelled, ValueError("second"))
        await trio.sleep(1)
        raise LookupError("first")

    assert await outcomes(act) == [(RunStatus.FAILED, Cause.ERROR, "LookupError: first")]


async def test_a_timeout_stays_a_timeout(virtual_clock: VirtualClock) -> None:
    async def executor(context: JobContext) -> None:
        nursery_around().start_soon(fail_when_cancelled, ValueError("second"))
        await trio.sleep_forever()

    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(1)), timeout_secs=5, max_retries=0)
        await trio.sleep(60)
        (run,) = await scheduler.store.list_runs()
    assert (run.status, run.cause) == (RunStatus.FAILED, Cause.TIMEOUT)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=lambda error: type(error).__name__)
async def test_what_is_meant_for_the_program_leaves_as_itself(virtual_clock: VirtualClock, error: BaseException) -> None:
    async def executor(context: JobContext) -> None:
        nursery_around().start_soon(fail_after, 1, error)
        await trio.sleep_forever()

    caught: BaseException | None = None
    try:
        async with open_scheduler(":memory:", executor, shutdown_grace=0) as scheduler:
            await scheduler.store.add_job("job", "it", OneShot(after(1)))
            await trio.sleep_forever()
    except BaseException as leaving:
        caught = leaving
    assert caught is error
    assert trio.current_time() < 10


async def test_one_that_comes_when_no_run_goes_on_is_logged_and_the_slot_goes_on(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    nurseries: list[trio.Nursery] = []

    async def executor(context: JobContext) -> None:
        nurseries.append(nursery_around())

    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(10_000))
        await trio.sleep(15)
        nurseries[0].start_soon(fail_after, 0, ValueError("late"))  # as a callback would that fires some time later
        await trio.sleep(10)
        runs = await scheduler.store.list_runs()
    assert [run.status for run in runs] == [RunStatus.SUCCESS] * 2
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "a task that an executor left in its nursery failed: ValueError: late" in line


async def test_cancelled_from_outside_the_run_beside_which_a_task_raises_is_recorded(
    virtual_clock: VirtualClock, tmp_path
) -> None:
    async def executor(context: JobContext) -> None:
        nursery_around().start_soon(fail_when_cancelled, ValueError("cleaning up"))
        await trio.sleep_forever()

    with trio.move_on_after(5) as scope:
        async with open_scheduler(tmp_path / "a.db", executor) as scheduler:
            await start_jobs(scheduler)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    async with open_scheduler(tmp_path / "a.db", nothing) as scheduler:
        assert scheduler.recovered == ()
        first = (await scheduler.store.list_runs())[-1]
    assert (first.status, first.cause) == (RunStatus.FAILED, Cause.INTERRUPTED)


# The notifier


@pytest.mark.parametrize("seconds", [0, 1])
async def test_a_task_beside_a_notifier_that_raises_is_the_failure_of_the_call(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    calls: list[str] = []

    async def notifier(job: str, session: str, text: str, success: bool) -> None:
        calls.append(job)
        nursery_around().start_soon(fail_after, seconds, ValueError("beside"))
        await trio.sleep(2)

    async with open_scheduler(":memory:", nothing, notifier=notifier) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(10_000))
        await trio.sleep(25)
    assert calls == ["job"] * 2
    lines = [record.getMessage() for record in caplog.records if "failed for run" in record.getMessage()]
    assert [line.partition(": ")[2] for line in lines] == ["ValueError: beside"] * 2


async def test_a_task_beside_a_notifier_ends_with_the_call(virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    ended: list[float] = []

    async def stray() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async def notifier(job: str, session: str, text: str, success: bool) -> None:
        nursery_around().start_soon(stray)
        await trio.sleep(1)

    async with open_scheduler(":memory:", nothing, notifier=notifier) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(1)))
        await trio.sleep(25)
    assert ended == [pytest.approx(2, abs=0.1)]
    assert caplog.records == []


# The block


@pytest.mark.parametrize("depth", [-1, -2], ids=["the clock's nursery", "the runners' nursery"])
async def test_a_task_that_the_block_starts_in_a_nursery_of_ours_is_an_error_of_the_block(
    virtual_clock: VirtualClock, depth: int
) -> None:
    error = ValueError("mine")
    sleeper = Sleeper(3)
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_scheduler(":memory:", sleeper) as scheduler:
            await start_jobs(scheduler)
            trio.lowlevel.current_task().child_nurseries[depth].start_soon(fail_after, 0.5, error)
            await trio.sleep_forever()
    assert caught.value is error
    assert sleeper.exits == [("cancelled", pytest.approx(1.5))]  # without grace: it has cancelled what is in the nursery
