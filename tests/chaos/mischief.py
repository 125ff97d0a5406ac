"""Hostile executors and notifiers, and the outcome that their runs must have."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress

import attrs
import trio

from cronactors import (
    Cause,
    CronScheduler,
    GiveUp,
    Interval,
    JobContext,
    JobNotFound,
    JobResult,
    JobSpec,
    Overlap,
    RunStatus,
    WouldDeadlock,
)
from tests.chaos.judge import Ledger


class BadText(Exception):
    """An error whose text cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


async def stubborn(seconds: float) -> None:
    """Sleep where no cancellation arrives."""
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)


async def _holding(lasting: float, ended: list[float]) -> AsyncIterator[int]:
    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            await stubborn(lasting)
            ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        await trio.lowlevel.checkpoint()
        yield 1
        yield 2


async def leak_nursery(kept: list[object] | None = None, lasting: float = 0, ended: list[float] | None = None) -> None:
    """Break out of a generator that holds a nursery, and keep the generator alive or drop it."""
    generator = _holding(lasting, [] if ended is None else ended)
    if kept is not None:
        kept.append(generator)
    async for _ in generator:
        break


async def leave_scope_open() -> None:
    trio.CancelScope().__enter__()


async def raise_cancelled() -> None:
    stored: BaseException | None = None
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep(1)
        except trio.Cancelled as cancelled:
            stored = cancelled
            raise
    assert stored is not None
    raise stored


async def ignore_cancellation() -> None:
    for _ in range(3):
        with suppress(trio.Cancelled):
            await trio.sleep_forever()
    await trio.sleep_forever()


async def wait_for_itself(scheduler: CronScheduler, job_id: str) -> None:
    with suppress(WouldDeadlock):
        await scheduler.run_now(job_id)
        raise AssertionError("run_now must not wait inside a run")
    with suppress(WouldDeadlock):
        await scheduler.wait_idle()
        raise AssertionError("wait_idle must not wait inside a run")


def raising(error: BaseException) -> Callable[..., Awaitable[object]]:
    async def act(*_: object) -> None:
        raise error

    return act


def nested(depth: int) -> ExceptionGroup[Exception]:
    error: Exception = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("group", [error])
    assert isinstance(error, ExceptionGroup)
    return error


# Notifiers

KEPT: list[object] = []


async def remove_everything(scheduler: CronScheduler) -> None:
    for job in await scheduler.store.list_jobs():
        with suppress(JobNotFound):
            await scheduler.store.remove_job(job.id)


async def edit_everything(scheduler: CronScheduler) -> None:
    for job in await scheduler.store.list_jobs():
        await scheduler.store.update_job(job.id, prompt=job.prompt + "!", max_retries=7)


async def wait_for_a_run(scheduler: CronScheduler) -> None:
    await wait_for_itself(scheduler, "whatever")


async def hang(_: CronScheduler) -> None:
    await ignore_cancellation()


async def block(_: CronScheduler) -> None:
    time.sleep(0.05)  # the loop is to be blocked


NOTIFYING: Mapping[str, Callable[[CronScheduler], object]] = {
    "raises": raising(ValueError("bug\n\x1b[31m")),
    "raises a nested group": raising(nested(50)),
    "raises GeneratorExit": raising(GeneratorExit()),
    "raises an error that cannot be shown": raising(BadText()),
    "raises a Cancelled of its own": lambda _: raise_cancelled(),
    "is no coroutine": lambda _: 5,
    "leaves a scope open": lambda _: leave_scope_open(),
    "leaves a nursery open": lambda _: leak_nursery(KEPT),
    "drops a nursery": lambda _: leak_nursery(),
    "hangs and ignores the cancellation": hang,
    "blocks the loop": block,
    "removes the jobs": remove_everything,
    "edits the jobs": edit_everything,
    "waits for a run": wait_for_a_run,
}


# Executors, and the outcomes of their runs


@attrs.frozen
class Act:
    """A mischief.

    Attributes:
        do: Does it, in the executor.
        status: The status that the run must have.
        cause: Its cause.
        text: The beginning of the error, or of the summary of a success.
    """

    do: Callable[[CronScheduler, JobContext], Awaitable[object]]
    status: RunStatus = RunStatus.FAILED
    cause: Cause | None = Cause.ERROR
    text: str = ""


def _returning(value: object) -> Callable[[CronScheduler, JobContext], Awaitable[object]]:
    async def act(_scheduler: CronScheduler, _ctx: JobContext) -> object:
        await trio.sleep(0)
        return value

    return act


async def _shield(_scheduler: CronScheduler, ctx: JobContext) -> str:
    await stubborn(0.4)
    return "late, but whole"


async def _remove_itself(scheduler: CronScheduler, ctx: JobContext) -> str:
    await scheduler.store.remove_job(ctx.job_id)
    return "gone"


async def _edit_itself(scheduler: CronScheduler, ctx: JobContext) -> str:
    await scheduler.store.update_job(ctx.job_id, name=f"{ctx.job_name} edited", overlap=Overlap.BUFFER_ALL, max_retries=9)
    return "edited"


async def _pause_itself(scheduler: CronScheduler, ctx: JobContext) -> str:
    await scheduler.store.pause_job(ctx.job_id)
    return "paused"


async def _cancel_itself(scheduler: CronScheduler, ctx: JobContext) -> None:
    await scheduler.cancel_run(ctx.run_id)


async def _breed(scheduler: CronScheduler, ctx: JobContext) -> str:
    await scheduler.store.add_jobs([JobSpec(f"{ctx.job_name} child {n}", "p", Interval.every(hours=1)) for n in range(3)])
    return "three"


async def _block(_scheduler: CronScheduler, ctx: JobContext) -> str:
    time.sleep(0.02)  # the loop is to be blocked
    return "blocked"


async def _wait_for_itself(scheduler: CronScheduler, ctx: JobContext) -> str:
    await wait_for_itself(scheduler, ctx.job_id)
    return "refused"


_OK = RunStatus.SUCCESS
MISCHIEF: Mapping[str, Act] = {
    "raises": Act(raising(ValueError("bug")), text="ValueError: bug"),
    "raises hostile text": Act(raising(ValueError("a\0b\ud800\x1b[31m\n%s{}")), text="ValueError: a\ufffdb?\x1b[31m\n%s{}"),
    "raises a nested group": Act(raising(nested(50)), text="ValueError: innermost"),
    "raises GeneratorExit": Act(raising(GeneratorExit("mine")), text="GeneratorExit: mine"),
    "raises an error that cannot be shown": Act(raising(BadText()), text="BadText: (its text cannot be shown)"),
    "raises a Cancelled of its own": Act(lambda *_: raise_cancelled(), text="Cancelled: "),
    "gives up": Act(raising(GiveUp("no use")), cause=Cause.GAVE_UP, text="GiveUp: no use"),
    "returns a number": Act(_returning(5), text="TypeError: the executor returned int"),
    "returns bytes": Act(_returning(b"x"), text="TypeError: the executor returned bytes"),
    "returns a megabyte": Act(_returning("x" * 1_000_000), _OK, None, "xxx"),
    "returns odd text": Act(_returning(JobResult(summary="a\0b\ud800")), _OK, None, "a\ufffdb?"),
    "leaves a scope open": Act(lambda *_: leave_scope_open(), text="RuntimeError: Cancel scope stack corrupted"),
    "leaves a nursery open": Act(lambda *_: leak_nursery(KEPT), text="RuntimeError: Cancel scope stack corrupted"),
    "drops a nursery": Act(lambda *_: leak_nursery(), text="RuntimeError: Cancel scope stack corrupted"),
    "ignores its cancellation": Act(lambda *_: ignore_cancellation(), cause=Cause.TIMEOUT, text="timed out"),
    "shields itself": Act(_shield, _OK, None, "late"),
    "blocks the loop": Act(_block, _OK, None, "blocked"),
    "removes itself": Act(_remove_itself, _OK, None, "gone"),
    "edits itself": Act(_edit_itself, _OK, None, "edited"),
    "pauses itself": Act(_pause_itself, _OK, None, "paused"),
    "cancels itself": Act(_cancel_itself, RunStatus.CANCELLED, Cause.CANCELLED, "cancelled on request"),
    "adds jobs": Act(_breed, _OK, None, "three"),
    "waits for itself": Act(_wait_for_itself, _OK, None, "refused"),
}


class Zoo:
    """An executor whose prompts name a mischief; others behave well. The ledger has each start, and each end that returned."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.scheduler: CronScheduler | None = None

    async def __call__(self, ctx: JobContext) -> object:
        self._ledger.write("start", ctx)
        act = MISCHIEF.get(ctx.prompt)
        if act is None:
            await trio.sleep(0.01)
            result: object = "fine"
        else:
            assert self.scheduler is not None
            result = await act.do(self.scheduler, ctx)
        self._ledger.write("end" if act is None or act.status is RunStatus.SUCCESS else "raise", ctx)
        return result
