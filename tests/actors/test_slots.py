"""Whatever happens to a run, its slot comes back, nobody waits for it in vain, and the scheduler can be left."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from cronactors import (
    Cause,
    CronConfig,
    Interval,
    JobContext,
    OneShot,
    Retry,
    RunStatus,
    SchedulerCrashed,
    StoreUnavailable,
    now,
    open_scheduler,
    open_store,
)
from cronactors.actors import runner
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.output import OutputWriter
from cronactors.actors.run_in_hand import RunInHand, RunsInFlight
from cronactors.ledger import claim as ledger_claim, finish as ledger_finish
from cronactors.ledger.claim import Claims
from cronactors.storage import connection
from cronactors.testing import VirtualClock
from tests.ledger_world import KINDS, MINUTE, World
from tests.workers import after, nothing, raising


class HalfRetry(Retry):
    """A subclass that forgets its base."""

    def __init__(self, wait: float) -> None:
        self.wait = wait


class WrongRetry(Retry):
    """A subclass whose delay is none."""

    @property
    def after(self) -> float:  # type: ignore[override]
        raise RuntimeError("no delay")

    @after.setter
    def after(self, value: object) -> None:
        pass


class OddText(str):
    """A text that can be neither asked nor formatted."""

    __slots__ = ()

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __format__(self, spec: str) -> str:
        raise RuntimeError("no format")

    def __getitem__(self, index: object) -> OddText:
        return self


class OddlyTold(Exception):
    def __str__(self) -> str:
        return OddText("told")


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class Unnamed(Exception, metaclass=Nameless):
    pass


class Classless(Exception):
    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise RuntimeError("no class")


class Leaver:
    """A value that ends the program when it is looked at."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise SystemExit(3)


def returns(value: object) -> Callable[[JobContext], Awaitable[object]]:
    async def act(context: JobContext) -> object:
        return value

    return act


def raises(error: BaseException) -> Callable[[JobContext], Awaitable[object]]:
    async def act(context: JobContext) -> object:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "text"),
    [
        pytest.param(raises(HalfRetry(5)), "HalfRetry: 5", id="half a retry"),
        pytest.param(raises(WrongRetry("soon")), "WrongRetry: soon", id="a retry without a delay"),
        pytest.param(raises(OddlyTold()), "OddlyTold: told", id="odd text"),
        pytest.param(raises(Unnamed("x")), "Unnamed: x", id="unnamed"),
        pytest.param(raises(Classless("x")), "Classless: x", id="classless"),
        pytest.param(returns(Leaver()), "SystemExit: 3", id="leaver"),
    ],
)
async def test_odd_exceptions_and_values_are_failures_of_their_own_run(virtual_clock: VirtualClock, act, text: str) -> None:
    told: list[str] = []

    async def notifier(name: str, session: str, result: str, success: bool) -> None:
        told.append(result)

    async with open_scheduler(":memory:", act, notifier=notifier) as scheduler:
        job_id = await scheduler.store.add_job("odd", "it", OneShot(after(1)), max_retries=1)
        await trio.sleep(100)
        runs = await scheduler.store.list_runs(job_id)
    assert [(run.status, run.cause, run.error) for run in runs] == [(RunStatus.FAILED, Cause.ERROR, text)] * 2
    assert told == [text] * 2


@pytest.mark.parametrize("name", ["context_of", "success"])
async def test_a_bug_in_a_runner_leaves_as_scheduler_crashed(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bug = LookupError("bug")
    monkeypatch.setattr(runner, name, raising(bug))
    with pytest.raises(SchedulerCrashed) as caught, trio.fail_after(1000):
        async with open_scheduler(":memory:", nothing) as scheduler:
            await scheduler.store.add_job("job", "it", OneShot(after(1)))
            await trio.sleep_forever()
    assert caught.value.__cause__ is bug


async def test_an_executor_that_cancels_the_nursery_it_is_called_in_fails_and_the_slot_goes_on(
    virtual_clock: VirtualClock,
) -> None:
    async def executor(context: JobContext) -> str:
        if context.job_name == "bad":
            nursery = trio.lowlevel.current_task().parent_nursery
            assert nursery is not None
            nursery.cancel_scope.cancel()
            await trio.sleep(1)
        return "fine"

    async with open_scheduler(":memory:", executor) as scheduler:
        bad = await scheduler.store.add_job("bad", "it", OneShot(after(1)), max_retries=0)
        good = await scheduler.store.add_job("good", "it", Interval(10_000))
        await trio.sleep(35)
        (run,) = await scheduler.store.list_runs(bad)
        assert len(await scheduler.store.list_runs(good, status=RunStatus.SUCCESS)) == 3
    assert (run.status, run.cause) == (RunStatus.FAILED, Cause.ERROR)
    assert run.error == "RuntimeError: the executor cancelled the nursery that it was called in"


async def test_what_an_executor_starts_in_the_nursery_it_is_called_in_ends_with_the_scheduler(
    virtual_clock: VirtualClock,
) -> None:
    ended = []

    async def stray() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async def executor(context: JobContext) -> None:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        nursery.start_soon(stray)

    with trio.fail_after(1000):
        async with open_scheduler(":memory:", executor) as scheduler:
            await scheduler.store.add_job("job", "it", Interval(1000))
            await trio.sleep(2.5)
            assert len(ended) == 2
            runs = await scheduler.store.list_runs()
    assert [run.status for run in runs] == [RunStatus.SUCCESS] * 2


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own waiting for a lock is real time."""
    monkeypatch.setattr(connection, "_BUSY_MS", 0)


@pytest.mark.parametrize("how", ["cancelled", "left"])
async def test_leaving_a_locked_store_does_not_take_longer_with_more_runs(
    virtual_clock: VirtualClock, no_wait: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Their ends cannot be recorded: that is given up after 10 s for all of them together, and none of them is stuck."""
    caplog.set_level(logging.WARNING)
    config = CronConfig(max_concurrent_runs=20, cancel_grace=1.0)
    begun = 0

    async def executor(context: JobContext) -> None:
        nonlocal begun
        begun += 1
        await trio.sleep(500)

    async with open_store(tmp_path / "a.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other, trio.CancelScope() as outer:
        async with open_scheduler(tmp_path / "a.db", executor, config=config, shutdown_grace=0) as scheduler:
            for number in range(20):
                await scheduler.store.add_job(f"job {number}", "it", OneShot(after(1)))
            await trio.sleep(2)
            assert begun == 20
            other.execute("BEGIN IMMEDIATE")
            left_at = trio.current_time()
            if how == "cancelled":
                outer.cancel()
                await trio.lowlevel.checkpoint()
    assert trio.current_time() - left_at < 15
    assert not [record.message for record in caplog.records if "is still running" in record.message]


async def test_a_run_whose_end_waits_for_the_store_is_not_reported_as_stuck(
    virtual_clock: VirtualClock, no_wait: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_scheduler(tmp_path / "a.db", nothing_after_a_second) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", OneShot(after(1)), timeout_secs=5)
        await trio.sleep(1.5)
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await trio.sleep(20)
            virtual_clock.set_wall(now())  # lets the clock look around, as its tick does in real time
            await trio.sleep(5)
        await trio.sleep(5)
        (run,) = await scheduler.store.list_runs(job_id)
    assert (run.status, run.cause) == (RunStatus.SUCCESS, None)
    assert not [record.message for record in caplog.records if "is still running" in record.message]


async def nothing_after_a_second(context: JobContext) -> None:
    await trio.sleep(1)


async def test_one_that_cancels_its_nursery_costs_no_other_run(virtual_clock: VirtualClock) -> None:
    async def executor(context: JobContext) -> None:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        if context.job_name == "bad":
            nursery.cancel_scope.cancel()
        await trio.sleep(1)

    async with open_scheduler(":memory:", executor) as scheduler:  # one slot: the others follow in it
        for name in ("bad", "a", "b", "c"):
            await scheduler.store.add_job(name, "it", OneShot(after(1)), max_retries=0)
        await trio.sleep(60)
        runs = await scheduler.store.list_runs()
    assert {run.job_name for run in runs if run.status is RunStatus.SUCCESS} == {"a", "b", "c"}


async def test_a_nursery_left_open_whose_tasks_do_not_end_is_reported(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1000)

    async def executor(context: JobContext) -> None:
        nursery = await trio.open_nursery().__aenter__()
        nursery.start_soon(stubborn)
        await trio.sleep(1)

    async with open_scheduler(":memory:", executor, shutdown_grace=1) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(1)), timeout_secs=5, max_retries=0)
        await trio.sleep(100)
        assert scheduler.health().free_slots == 0
    assert len([record.message for record in caplog.records if "is still running" in record.message]) == 1


async def test_a_claim_that_nobody_took_up_does_not_hold_up_the_end_where_the_store_fails(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_due = ledger_claim.claim_due
    with trio.CancelScope() as outer:

        def claim_and_cancel(*args: object, **named: object) -> Claims:
            claims = claim_due(*args, **named)  # type: ignore[arg-type]
            if claims.runs:
                outer.cancel()
                monkeypatch.setattr(ledger_finish, "finish_runs", raising(StoreUnavailable("disk full")))
            return claims

        monkeypatch.setattr(ledger_claim, "claim_due", claim_and_cancel)
        config = CronConfig(max_concurrent_runs=5)
        async with open_scheduler(tmp_path / "a.db", nothing, config=config) as scheduler:
            for number in range(5):
                await scheduler.store.add_job(f"job {number}", "it", OneShot(after(1)))
            await trio.sleep_forever()
    assert outer.cancelled_caught
    assert trio.current_time() < 30


async def test_a_run_that_followed_while_runs_were_interrupted_is_recorded_however_late_it_ends(
    virtual_clock: VirtualClock, no_wait: None, tmp_path: Path
) -> None:
    """It was claimed by an end that waited for the lock, and whose patience must not be the limit of its own end."""

    async def executor(context: JobContext) -> str | None:
        if context.job_name == "first":
            await trio.sleep(2)
            return None
        with trio.CancelScope(shield=True):
            await trio.sleep(15)
        return "worked"

    async with open_store(tmp_path / "a.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        async with trio.open_nursery() as nursery:

            async def unlock() -> None:
                await trio.sleep(6)
                other.execute("ROLLBACK")

            with trio.CancelScope() as outer:
                async with open_scheduler(tmp_path / "a.db", executor) as scheduler:
                    await scheduler.store.add_job("first", "it", OneShot(after(1)))
                    await scheduler.store.add_job("second", "it", OneShot(after(1)))
                    await trio.sleep(2)
                    other.execute("BEGIN IMMEDIATE")
                    nursery.start_soon(unlock)
                    await trio.sleep(3)
                    outer.cancel()
                    await trio.lowlevel.checkpoint()
        rows = other.execute("SELECT job_name, status, result FROM runs").fetchall()
    assert ("second", "success", "worked") in rows


@pytest.mark.parametrize("over", [True, False], ids=["its end is on the way", "it is still running"])
async def test_a_run_that_two_looks_have_not_found_was_taken_over_unless_it_is_over(over: bool, caplog) -> None:
    with closing(World(KINDS[0])) as world:
        world.add()
        world.pass_time(MINUTE)
        (claimed,) = world.claim()
    mailbox = Mailbox()
    in_flight = RunsInFlight(mailbox, 1.0)
    running = RunInHand.start(claimed, OutputWriter(mailbox))
    running.is_finishing = over
    in_flight.add(running)
    for _ in range(3):
        in_flight.reconcile({})
    assert (running.cancel_called_at is None) == over
    assert ("was taken over" in caplog.text) != over
