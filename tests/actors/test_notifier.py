"""Telling users of ends: who is told what, in order, one at a time, and that no callback can stop the scheduler."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from cronactors import (
    Cause,
    Cron,
    CronConfig,
    CronJob,
    CronRun,
    Interval,
    JobContext,
    JobNotFound,
    JobResult,
    JobSpec,
    OneShot,
    Receiver,
    RunStatus,
    open_scheduler,
    open_store,
)
from cronactors.actors.stopping import SIGN_OFF_SHARE, STOP_LIMIT
from cronactors.testing import VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)
Told = tuple[str, str, str, bool]


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def shots(*names: str, at: float = 1) -> list[JobSpec]:
    return [JobSpec(name, "it", OneShot(after(at)), max_retries=0) for name in names]


class Listener:
    """A notifier that takes ``seconds`` and notes what it is told, and whether two calls ever overlapped."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.told: list[Told] = []
        self.going = False

    async def __call__(self, job_name: str, session_id: str, result: str, success: bool) -> None:
        assert not self.going
        self.going = True
        try:
            await trio.sleep(self.seconds)
            self.told.append((job_name, session_id, result, success))
        finally:
            self.going = False

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.told]


async def good(context: JobContext) -> JobResult:
    return JobResult(session_id=f"session of {context.job_name}", summary=f"did {context.prompt}")


async def test_success_failure_and_retry_are_told_with_their_sessions(virtual_clock: VirtualClock) -> None:
    listener = Listener()

    async def executor(context: JobContext) -> JobResult:
        if context.attempt == 1:
            raise ValueError("no luck")
        return await good(context)

    async with open_scheduler(":memory:", executor, notifier=listener) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(1)))
        await trio.sleep(2)
        assert listener.told == [("job", "", "ValueError: no luck", False)]
        await trio.sleep(100)
        assert listener.told[1:] == [("job", "session of job", "did it", True)]


async def test_what_has_run_out_of_retries_is_told_each_time(virtual_clock: VirtualClock) -> None:
    listener = Listener()

    async def executor(context: JobContext) -> None:
        await trio.sleep_forever()

    async with open_scheduler(":memory:", executor, notifier=listener) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(1)), timeout_secs=3, max_retries=2)
        await trio.sleep(1000)
        assert listener.told == [("job", "", "timed out after 3 s", False)] * 3


async def test_calls_come_in_order_and_one_at_a_time(virtual_clock: VirtualClock) -> None:
    listener = Listener(5)
    lengths = {"slow": 3.0, "quick": 1.0, "middle": 2.0}

    async def executor(context: JobContext) -> None:
        await trio.sleep(lengths[context.job_name])

    async with open_scheduler(":memory:", executor, notifier=listener, config=CronConfig(max_concurrent_runs=3)) as scheduler:
        await scheduler.store.add_jobs(shots(*lengths))
        await scheduler.wait_idle()
        await trio.sleep(30)
        assert listener.names == ["quick", "middle", "slow"]


async def test_text_is_cut_to_500_characters(virtual_clock: VirtualClock) -> None:
    listener = Listener()

    async def executor(context: JobContext) -> str:
        if context.job_name == "fails":
            raise ValueError("ü" * 3000)
        return "ü" * 3000

    async with open_scheduler(":memory:", executor, notifier=listener) as scheduler:
        await scheduler.store.add_jobs(shots("fails", "works"))
        await trio.sleep(10)
        texts = {name: text for name, _, text, _ in listener.told}
        assert texts == {"fails": "ValueError: " + "ü" * 488, "works": "ü" * 500}
        assert {len(run.result_summary or run.error or "") for run in await scheduler.store.list_runs()} == {2000, 3000}


async def test_the_record_is_durable_before_the_call(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    seen: list[RunStatus] = []

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        async with open_store(tmp_path / "a.db", create=False) as other:
            seen.extend(run.status for run in await other.list_runs())

    async with open_scheduler(tmp_path / "a.db", good, notifier=notifier) as scheduler:
        await scheduler.store.add_jobs(shots("job"))
        await trio.sleep(2)
        assert seen == [RunStatus.SUCCESS]


async def test_on_finish_gets_the_records_also_of_a_job_that_is_gone(virtual_clock: VirtualClock) -> None:
    got: list[tuple[CronJob, CronRun]] = []

    async def on_finish(job: CronJob, run: CronRun) -> None:
        got.append((job, run))

    async with open_scheduler(":memory:", good, on_finish=on_finish) as scheduler:
        once = await scheduler.store.add_job("once", "it", OneShot(after(1)), delete_after_run=True)
        often = await scheduler.store.add_job("often", "it", Interval(2000), user_id="ann")
        await trio.sleep(3)
        with pytest.raises(JobNotFound):
            await scheduler.store.get_job(once)
        assert [(job.id, job.name, job.user_id, run.job_id, run.status) for job, run in got] == [
            (once, "once", None, once, RunStatus.SUCCESS),
            (often, "often", "ann", often, RunStatus.SUCCESS),
        ]
        assert got[1] == (await scheduler.store.get_job(often), (await scheduler.store.list_runs(often))[0])


async def test_skipped_and_interrupted_notify_nobody_and_cancelled_does(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    listener = Listener()

    async def executor(context: JobContext) -> None:
        await trio.sleep(150)

    async with open_scheduler(tmp_path / "a.db", executor, notifier=listener, shutdown_grace=5) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Interval(60_000))
        await trio.sleep(250)  # 60 to 210, two moments skipped, and the next at 240
        assert [run.status for run in await scheduler.store.list_runs(job_id)] == [
            RunStatus.RUNNING,
            RunStatus.SKIPPED,
            RunStatus.SUCCESS,
        ]
        await scheduler.cancel_run((await scheduler.store.list_runs(job_id))[0].id)
        await trio.sleep(60)
    assert listener.told == [("job", "", "", True), ("job", "", "cancelled on request", False)]
    async with open_store(tmp_path / "a.db") as store:
        causes = [run.cause for run in await store.list_runs(job_id)]
        assert causes == [None, Cause.INTERRUPTED, Cause.CANCELLED, Cause.OVERLAP, None]


@pytest.mark.parametrize(
    "error",
    [ValueError("bug"), ExceptionGroup("many", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])]), GeneratorExit()],
    ids=["Exception", "group", "GeneratorExit"],
)
async def test_a_notifier_that_raises_is_logged_and_called_again(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    told: list[str] = []

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        told.append(job_name)
        raise error

    async with open_scheduler(":memory:", good, notifier=notifier) as scheduler:
        await scheduler.store.add_jobs(shots("a", "b"))
        await trio.sleep(2)
        assert sorted(told) == ["a", "b"]
        assert {run.status for run in await scheduler.store.list_runs()} == {RunStatus.SUCCESS}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all("notifier failed for run" in text and "\n" not in text for text in warnings)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_a_notifier_that_ends_the_program_does(virtual_clock: VirtualClock, kind: type[BaseException]) -> None:
    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        raise kind

    with pytest.raises(kind):
        async with open_scheduler(":memory:", good, notifier=notifier) as scheduler:
            await scheduler.store.add_jobs(shots("a"))
            await trio.sleep(100)
    assert trio.current_time() < 50


async def test_a_call_that_hangs_is_cancelled_after_30_seconds(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, float]] = []

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        told.append((job_name, trio.current_time()))
        await trio.sleep_forever()

    once = Receiver(notifier, attempts=1)
    async with open_scheduler(":memory:", good, notifier=once) as scheduler:
        await scheduler.store.add_jobs(shots("a", "b"))
        await trio.sleep(100)
        assert [at for _, at in told] == pytest.approx([1, 31])
        assert caplog.text.count("notifier took longer than 30 s for run") == 2


@pytest.mark.parametrize("hurried", [True, False])
async def test_a_call_that_the_end_of_the_scheduler_cuts_off_is_not_said_to_have_taken_30_seconds(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, hurried: bool
) -> None:
    with trio.move_on_after(3) as scope:
        async with open_scheduler(":memory:", good, notifier=Listener(29)) as scheduler:
            await scheduler.store.add_jobs(shots("a"))
            await trio.sleep(2)
            if not hurried:
                scope.deadline = 100
            else:
                await trio.sleep_forever()
    assert "30 s" not in caplog.text
    assert caplog.text.count("notifier was cancelled before it returned for run 1") == 1


async def test_leaving_waits_for_calls_but_not_without_bound(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    listener = Listener(4)
    async with open_scheduler(":memory:", good, notifier=listener) as scheduler:
        await scheduler.store.add_jobs(shots(*"abcdef"))
        await trio.sleep(1.5)
    assert len(listener.names) == 2
    assert trio.current_time() == pytest.approx(1.5 + STOP_LIMIT - SIGN_OFF_SHARE)
    assert "4 notifications are pending; the next scheduler with their receivers delivers them" in caplog.text


async def test_leaving_tells_of_runs_that_end_in_the_grace(virtual_clock: VirtualClock) -> None:
    listener = Listener(2)

    async def executor(context: JobContext) -> None:
        await trio.sleep(5)

    async with open_scheduler(":memory:", executor, notifier=listener) as scheduler:
        await scheduler.store.add_jobs(shots("a"))
        await trio.sleep(2)
    assert listener.names == ["a"]
    assert trio.current_time() == pytest.approx(8)


async def test_a_store_call_of_a_notifier_works_also_while_leaving(virtual_clock: VirtualClock) -> None:
    found: list[int] = []

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        await trio.sleep(1)
        found.append(len(await scheduler.store.list_jobs()))

    async with open_scheduler(":memory:", good, notifier=notifier) as scheduler:
        await scheduler.store.add_job("job", "it", Cron("@daily"))
        await scheduler.store.add_jobs(shots("a"))
        await trio.sleep(1.5)
    assert found == [2]


async def test_cancelled_from_outside_nobody_is_told_and_nothing_is_waited_for(virtual_clock: VirtualClock) -> None:
    listener = Listener(4)
    with trio.move_on_after(3):
        async with open_scheduler(":memory:", good, notifier=listener) as scheduler:
            await scheduler.store.add_jobs(shots(*"abcdef"))
            await trio.sleep_forever()
    assert listener.told == []
    assert trio.current_time() == pytest.approx(3)


async def test_a_cancellation_ends_the_notifying_too(virtual_clock: VirtualClock) -> None:
    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        await trio.sleep(25)

    with trio.move_on_after(70) as scope:
        async with open_scheduler(":memory:", good, notifier=notifier) as scheduler:
            await scheduler.store.add_job("job", "it", Interval(60_000))
            await trio.sleep(65)
    assert scope.cancelled_caught
    assert trio.current_time() == 70
