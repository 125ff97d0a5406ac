"""The exceptions that leave the block of a scheduler: of the body, of a crash, of opening; and the runs that a crash leaves."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from cronactors import (
    Cause,
    CronScheduler,
    OneShot,
    RunStatus,
    SchedulerCrashed,
    StoreCorrupt,
    StoreUnavailable,
    open_scheduler,
    open_store,
)
from cronactors.ledger import claim as ledger_claim, finish as ledger_finish, jobs as ledger_jobs
from cronactors.testing import VirtualClock
from tests.workers import Sleeper, after, nothing, raising, start_jobs


@pytest.mark.parametrize(
    "error",
    [
        ValueError("body"),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        StopAsyncIteration(),
        StoreUnavailable("the user's own"),
        ExceptionGroup("the body's", [ValueError("a"), KeyError("b")]),
        BaseExceptionGroup("the body's", [KeyboardInterrupt(), ValueError("a")]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_exception_of_the_body_is_raised_as_itself(virtual_clock: VirtualClock, error: BaseException) -> None:
    sleeper = Sleeper(3)
    caught: BaseException | None = None
    try:
        async with open_scheduler(":memory:", sleeper) as scheduler:
            await start_jobs(scheduler)
            raise error
    except BaseException as raised:
        caught = raised
    assert caught is error
    assert sleeper.exits == [("done", pytest.approx(3))]  # with the grace, as when leaving normally


async def test_a_group_of_a_nursery_in_the_body_is_not_wrapped_again(virtual_clock: VirtualClock) -> None:
    async def fail() -> None:
        raise ValueError("task")

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="task")):
        async with open_scheduler(":memory:", nothing), trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()


@pytest.mark.parametrize(
    ("module", "name"),
    [(ledger_claim, "claim_due"), (ledger_finish, "finish_runs"), (ledger_jobs, "pause_job")],
    ids=["claim", "finish", "request"],
)
async def test_a_bug_in_an_actor_is_raised_as_scheduler_crashed_and_all_callers_get_a_reply(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    bug = ZeroDivisionError("bug")
    replies: list[object] = []

    async def call() -> None:
        try:
            replies.append(await scheduler.store.list_jobs())
        except SchedulerCrashed as error:
            replies.append(error.__cause__)

    async with trio.open_nursery() as outside:
        with pytest.raises(SchedulerCrashed) as caught:
            async with open_scheduler(":memory:", nothing) as scheduler:
                job_id = await scheduler.store.add_job("job", "it", OneShot(after(5)))
                monkeypatch.setattr(module, name, raising(bug))
                if name == "pause_job":
                    for _ in range(5):
                        outside.start_soon(call)
                    outside.start_soon(pause, scheduler, job_id)
                    for _ in range(5):
                        outside.start_soon(call)
                await trio.sleep_forever()
        outside.cancel_scope.deadline = trio.current_time() + 60
    assert cause_of(caught.value) is bug
    assert "ZeroDivisionError" in str(caught.value) or "bug" in str(caught.value)
    if name == "pause_job":
        assert len(replies) == 10
        assert bug in replies


async def pause(scheduler: CronScheduler, job_id: str) -> None:
    with pytest.raises(SchedulerCrashed):
        await scheduler.store.pause_job(job_id)


def cause_of(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


async def test_a_crash_that_the_body_met_is_raised_once(virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_jobs, "pause_job", raising(ZeroDivisionError("bug")))
    with pytest.raises(SchedulerCrashed) as caught:
        async with open_scheduler(":memory:", nothing) as scheduler:
            await scheduler.store.pause_job("job")
    assert isinstance(cause_of(caught.value), ZeroDivisionError)


async def test_a_crash_that_tasks_of_the_body_met_is_raised_once(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_jobs, "pause_job", raising(ZeroDivisionError("bug")))
    with pytest.raises(SchedulerCrashed) as caught:
        async with open_scheduler(":memory:", nothing) as scheduler, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(scheduler.store.pause_job, "job")
    assert isinstance(cause_of(caught.value), ZeroDivisionError)


async def test_errors_of_the_body_and_of_an_actor_are_raised_as_a_group(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ValueError("mine")
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, check=lambda error: error is mine), SchedulerCrashed):
        async with open_scheduler(":memory:", nothing) as scheduler:
            await scheduler.store.add_job("job", "it", OneShot(after(5)))
            monkeypatch.setattr(ledger_claim, "claim_due", raising(ZeroDivisionError("bug")))
            try:
                await trio.sleep_forever()
            finally:
                raise mine


async def test_runs_that_a_crash_interrupted_are_run_again_by_the_same_process(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sleeper = Sleeper()
    with pytest.raises(SchedulerCrashed):
        async with open_scheduler(tmp_path / "a.db", sleeper) as scheduler:
            await start_jobs(scheduler)
            with monkeypatch.context() as patch:
                patch.setattr(ledger_jobs, "pause_job", raising(ZeroDivisionError("bug")))
                with pytest.raises(SchedulerCrashed):
                    await scheduler.store.pause_job("job")
                await trio.sleep_forever()
    sleeper.seconds = 1
    async with open_scheduler(tmp_path / "a.db", sleeper) as scheduler:
        assert [(run.status, run.cause) for run in scheduler.recovered] == [(RunStatus.FAILED, Cause.INTERRUPTED)]
        await trio.sleep(100)
    assert [context.attempt for context in sleeper.contexts] == [1, 2]


@pytest.mark.parametrize("handed_in", [False, True], ids=["file", "store"])
async def test_a_run_that_could_not_be_finished_is_recovered_by_the_next_scheduler_of_the_process(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, handed_in: bool
) -> None:
    sleeper = Sleeper(3)
    async with open_store(tmp_path / "a.db") as open_one:
        store = open_one if handed_in else tmp_path / "a.db"
        with monkeypatch.context() as patch:
            async with open_scheduler(store, sleeper) as scheduler:
                await start_jobs(scheduler)
                patch.setattr(ledger_finish, "finish_runs", raising(StoreUnavailable("disk full")))
        assert [run.status for run in await open_one.list_runs()] == [RunStatus.RUNNING]
        async with open_scheduler(store, sleeper) as scheduler:
            assert len(scheduler.recovered) == 1
            await trio.sleep(100)
        assert [context.attempt for context in sleeper.contexts] == [1, 2]


async def test_errors_of_opening_are_raised_as_themselves(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.commit()
    for file, kind in (
        (text, StoreCorrupt),
        (foreign, StoreCorrupt),
        (tmp_path, StoreUnavailable),
        (tmp_path / "missing" / "a.db", StoreUnavailable),
    ):
        before = file.read_bytes() if file.is_file() else None
        with pytest.raises(kind, match=file.name):
            async with open_scheduler(file, nothing):
                pytest.fail("the block must not start")
        assert before is None or file.read_bytes() == before
