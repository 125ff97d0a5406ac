"""Hostile executors: each run gets one final status with a readable cause, and other jobs are not affected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn, cast

import pytest
import trio

from cronactors import (
    Cause,
    Cron,
    CronConfig,
    CronRun,
    CronScheduler,
    GiveUp,
    Interval,
    JobContext,
    JobExecutor,
    JobResult,
    Retry,
    RunStatus,
    open_scheduler,
    open_store,
)
from cronactors.actors.outcomes import INTERRUPTED
from cronactors.testing import VirtualClock
from tests.chaos.mischief import raise_cancelled

START = datetime(2026, 1, 1, tzinfo=UTC)
Act = Callable[[JobContext], object]


class BadText(Exception):
    """An error that cannot be shown."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("x")
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__


class Unshowable:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class Unbound:
    """A proxy without its object: even isinstance raises."""

    @property
    def __class__(self) -> NoReturn:  # type: ignore[misc, override]
        raise RuntimeError("working outside of a context")


class Foreign:
    """Awaits an object that trio does not know, such as a future of another framework."""

    def __await__(self) -> Generator[str, None, None]:
        yield "foreign"


class LyingText(str):
    """Text whose length raises."""

    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError("no length")


def raiser(error: BaseException) -> Act:
    async def act(context: JobContext) -> None:
        raise error

    return act


def returner(value: object) -> Act:
    async def act(context: JobContext) -> object:
        return value

    return act


def nested(depth: int) -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("group", [error])
    return error


async def raises_a_cancelled_of_its_own(context: JobContext) -> None:
    await raise_cancelled()


async def raises_a_wrong_retry(context: JobContext) -> None:
    raise Retry("soon", after=cast(float, "seven"))


async def leaves_a_scope_open(context: JobContext) -> None:
    trio.CancelScope().__enter__()


async def awaits_a_foreign_thing(context: JobContext) -> None:
    await Foreign()


async def awaits_asyncio(context: JobContext) -> None:
    await asyncio.sleep(0.1)


async def yields(context: JobContext) -> AsyncIterator[str]:
    yield "an async generator"


def is_no_coroutine(context: JobContext) -> str:
    return "plain text"


def raises_at_once(context: JobContext) -> NoReturn:
    raise LookupError("plain function")


@asynccontextmanager
async def beside_a_neighbour(act: Act) -> AsyncIterator[tuple[CronScheduler, str, str]]:
    """Open a scheduler with a job of ``act`` at 00:01:00 without retries, and a well-behaved job at the same time."""

    def executor(context: JobContext) -> object:
        return act(context) if context.job_name == "bad" else good(context)

    async def good(context: JobContext) -> str:
        await trio.sleep(1)
        return "fine"

    async with open_scheduler(":memory:", cast(JobExecutor, executor), config=CronConfig(max_concurrent_runs=2)) as scheduler:
        bad = await scheduler.store.add_job("bad", "it", Interval(60_000), max_retries=0, timeout_secs=20)
        neighbour = await scheduler.store.add_job("neighbour", "it", Interval(60_000))
        yield scheduler, bad, neighbour
        runs = await scheduler.store.list_runs(neighbour)
        assert {run.status for run in runs} == {RunStatus.SUCCESS}


async def twice(act: Act) -> CronRun:
    """Let a job run twice, check that both have the same outcome and that the neighbour succeeded, and return the second run."""
    async with beside_a_neighbour(act) as (scheduler, bad, neighbour):
        await trio.sleep(150)
        second, first = await scheduler.store.list_runs(bad)
        assert (first.status, first.cause) == (second.status, second.cause)
        assert (await scheduler.store.get_job(bad)).last_error == second.error
        assert len(await scheduler.store.list_runs(neighbour)) == 2
    return second


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (raiser(ValueError("bug")), "ValueError: bug"),
        (raiser(ValueError()), "ValueError"),
        (raiser(ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [KeyError("b")])])), "ValueError: a; KeyError: 'b'"),
        (raiser(ValueError("a\0b\ud800c\nd")), "ValueError: a\ufffdb?c\nd"),
        (raiser(GeneratorExit("mine")), "GeneratorExit: mine"),
        (raiser(asyncio.CancelledError()), "CancelledError"),
        (raiser(StopIteration(1)), "RuntimeError: coroutine raised StopIteration"),
        (raiser(StopAsyncIteration()), "StopAsyncIteration"),
        (raiser(BadText(ValueError("no text"))), "BadText: (its text cannot be shown)"),
        (raiser(ExceptionGroup("g", [BadText(ValueError("no text"))])), "BadText: (its text cannot be shown)"),
        (raiser(Retry("soon", after=0)), "Retry: soon"),
        (raises_a_wrong_retry, "InvalidJob: after must be a number of seconds, 0 or more, not 'seven'"),
        (raises_a_cancelled_of_its_own, "Cancelled: "),
        (raises_at_once, "LookupError: plain function"),
        (is_no_coroutine, "TypeError: "),
        (yields, "TypeError: "),
        (awaits_asyncio, "RuntimeError: no running event loop"),
        (awaits_a_foreign_thing, "TypeError: trio.run received unrecognized yield message"),
        (returner(5), "TypeError: the executor returned int, not JobResult, str or None"),
        (returner(b"bytes"), "TypeError: the executor returned bytes"),
        (returner(["list"]), "TypeError: the executor returned list"),
        (returner(Unshowable()), "TypeError: the executor returned Unshowable"),
        (returner(JobResult(summary=cast(str, None))), "TypeError: the executor returned a summary of type NoneType"),
        (returner(JobResult(session_id=cast(str, Unshowable()))), "TypeError: the executor returned a session_id of type"),
        pytest.param(returner(Unbound()), "RuntimeError: working outside of a context", id="proxy"),
        pytest.param(returner(LyingText("x")), "RuntimeError: no length", id="lying text"),
        pytest.param(leaves_a_scope_open, "RuntimeError: Cancel scope stack corrupted", id="open scope"),
    ],
)
async def test_each_hostile_executor_is_one_failure_with_a_readable_cause(
    virtual_clock: VirtualClock, act: Act, text: str
) -> None:
    run = await twice(act)
    assert (run.status, run.cause, run.result_summary, run.session_id) == (RunStatus.FAILED, Cause.ERROR, None, "")
    assert run.error
    assert run.error.startswith(text)
    run.error.encode()


def test_a_group_nested_deeper_than_python_can_follow_is_one_failure() -> None:
    async def main() -> CronRun:
        return await twice(raiser(nested(3000)))

    try:  # not even pytest could show the exception
        error = trio.run(main, clock=VirtualClock()).error
    except BaseException as leaving:
        error = type(leaving).__name__
    assert error == "ValueError: innermost"


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (SystemExit, [(1, RunStatus.FAILED, Cause.ERROR, "SystemExit: stop")]),
        # Ctrl-C is meant for the program and is raised wherever it is: the run is interrupted, and runs again.
        (KeyboardInterrupt, [(2, RunStatus.PENDING, None, None), (1, RunStatus.FAILED, Cause.INTERRUPTED, INTERRUPTED.error)]),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
async def test_exceptions_for_the_whole_program_stop_it_in_order(
    virtual_clock: VirtualClock, tmp_path: Path, kind: type[BaseException], grouped: bool, bad: object
) -> None:
    error = kind("stop")

    async def executor(context: JobContext) -> None:
        if context.job_name == "bad":
            raise BaseExceptionGroup("g", [error]) if grouped else error
        await trio.sleep(3)

    with pytest.raises(kind) as caught:
        async with open_scheduler(tmp_path / "a.db", executor, config=CronConfig(max_concurrent_runs=2)) as scheduler:
            for name in ("bad", "neighbour"):
                await scheduler.store.add_job(name, "it", Interval(60_000), max_retries=0)
            await trio.sleep_forever()
    assert caught.value is error
    assert trio.current_time() == pytest.approx(63)  # the neighbour had its grace
    async with open_store(tmp_path / "a.db") as store:
        runs = await store.list_runs()
    assert [(run.attempt, run.status, run.cause, run.error) for run in runs if run.job_name == "bad"] == bad
    assert [run.status for run in runs if run.job_name == "neighbour"] == [RunStatus.SUCCESS]


async def test_an_error_whose_str_raises_system_exit_does_not_stop_the_program(virtual_clock: VirtualClock) -> None:
    assert (await twice(raiser(BadText(SystemExit(3))))).error == "BadText: (its text cannot be shown)"


@pytest.mark.parametrize(
    ("value", "summary"),
    [
        (None, ""),
        ("", ""),
        ("text", "text"),
        ("x" * 10_000_000, "x" * 9_999 + "…"),
        ("a\0b\ud800c\udfff", "a\ufffdb?c?"),
        (JobResult(summary="\0"), "\ufffd"),
        (RunStatus.SUCCESS, "success"),
    ],
    ids=["None", "empty", "text", "10 MB", "NUL and surrogates", "NUL in a result", "subclass of str"],
)
async def test_odd_results_are_stored_as_far_as_possible(virtual_clock: VirtualClock, value: object, summary: str) -> None:
    run = await twice(returner(value))
    assert (run.status, run.result_summary, run.error) == (RunStatus.SUCCESS, summary, None)


async def test_an_error_of_10_megabytes_is_truncated(virtual_clock: VirtualClock) -> None:
    run = await twice(raiser(ValueError("x" * 10_000_000)))
    assert run.error == "ValueError: " + "x" * 1987 + "…"


async def test_a_long_session_id_is_truncated(virtual_clock: VirtualClock) -> None:
    run = await twice(returner(JobResult(session_id="s\0" * 10_000)))
    assert (run.status, len(run.session_id)) == (RunStatus.SUCCESS, 200)
    assert "\0" not in run.session_id


@pytest.mark.parametrize("way", ["raise", "group", "swallow forever"])
async def test_hiding_a_cancellation_does_not_hide_the_timeout(virtual_clock: VirtualClock, way: str) -> None:
    async def act(context: JobContext) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if way == "raise":
                raise ValueError("hidden") from None
            if way == "group":
                raise ExceptionGroup("hidden", [ValueError("a")]) from None
        for _ in range(5):  # each sleep is cancelled at once
            with suppress(trio.Cancelled):
                await trio.sleep(1)
        await trio.sleep(1)

    async with beside_a_neighbour(act) as (scheduler, bad, _):
        await trio.sleep(90)
        (run,) = await scheduler.store.list_runs(bad)
        assert (run.status, run.cause, run.error) == (RunStatus.FAILED, Cause.TIMEOUT, "timed out after 20 s")
        assert run.completed_at is not None
        assert (run.completed_at - START).total_seconds() == 80


async def test_an_executor_that_returns_after_its_timeout_has_timed_out(virtual_clock: VirtualClock) -> None:
    async def act(context: JobContext) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(30)
        return "late, but whole"

    async with beside_a_neighbour(act) as (scheduler, bad, _):
        await trio.sleep(100)
        (run,) = await scheduler.store.list_runs(bad)
        assert (run.status, run.cause, run.result_summary) == (RunStatus.SUCCESS, None, "late, but whole")


@pytest.mark.parametrize(
    ("error", "cause", "again"),
    [(GiveUp("no use"), Cause.GAVE_UP, None), (Retry("busy", after=7), Cause.ERROR, 7), (ValueError("no"), Cause.ERROR, 30)],
)
async def test_an_exception_in_a_nursery_counts_like_a_bare_one(
    virtual_clock: VirtualClock, error: Exception, cause: Cause, again: float | None
) -> None:
    async def executor(context: JobContext) -> None:
        async def fail() -> None:
            raise error

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()

    async with open_scheduler(":memory:", executor) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Cron("@daily"))
        run = await scheduler.run_now(job_id)
        assert run.cause is cause
        assert run.completed_at is not None
        job = await scheduler.store.get_job(job_id)
        assert job.retry_at == (None if again is None else run.completed_at + timedelta(seconds=again))
