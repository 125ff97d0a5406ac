"""Experiments in structured concurrency: break one part of a scheduler, and see in which order the others end.

    python examples/supervision.py

Each experiment opens a scheduler of two slots, waits until a run has started, and causes one event. An instrument of trio prints the
end of each actor. Nothing is left behind, whatever the event is: the block is left when every task has ended. The store ends last, because
the others record their last runs with it, unless it is the store itself that fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias
from unittest.mock import patch

import attrs
import trio

import cronactors
from cronactors import CronConfig, CronError, CronRun, CronScheduler, JobContext, OneShot, SchedulerCrashed
from cronactors.actors.mailbox import Request
from cronactors.storage.protocol import Storage

ACTORS = {
    "Clock.run": "clock",
    "Patrol.run": "patrol",
    "Runner.run": "runner",
    "Receivers.run": "receivers",
    "StoreActor.run": "store",
}


class WatchEnds(trio.abc.Instrument):
    """Print the end of each actor's task."""

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Print it, if the task is an actor; called by trio."""
        _, _, name = task.name.rpartition("actors.")
        actor = ACTORS.get(name.partition(".")[2])
        if actor is not None:
            say(f"the {actor} actor has ended")


@attrs.frozen
class Broken(Request[None]):
    """A request whose code has a bug."""

    def apply(self, storage: Storage) -> None:
        """Fail with an error that the store does not expect."""
        raise ZeroDivisionError(f"a bug met at {storage.now()}")


def say(line: str) -> None:
    """Print one event."""
    print(f"   {line}", flush=True)


async def executor(context: JobContext) -> str:
    """Do as the prompt says."""
    match context.prompt:
        case "fail":
            raise ValueError("the executor has failed")
        case "end the program":
            raise SystemExit(3)
        case _:
            try:
                await trio.sleep(0.5)
            except trio.Cancelled:
                say("the executor is cancelled")
                raise
            return "worked"


async def notifier(job_name: str, _session_id: str, result: str, success: bool) -> None:
    """Print a finished run."""
    say(f"notified: {job_name} {'ok' if success else 'FAILED'}: {result}")


async def request(scheduler: CronScheduler, prompt: str, *, wait: bool = False) -> CronRun:
    """Request a run of this prompt."""
    job_id = await scheduler.store.upsert_job(prompt, prompt, OneShot("9000-01-01T00:00Z"))
    return await scheduler.run_now(job_id, wait=wait)


# The experiments


async def the_body_returns(_: CronScheduler, __: trio.CancelScope) -> None:
    """Leave the block while a run is running: it gets its grace, and finishes by itself."""


async def the_body_raises(_: CronScheduler, __: trio.CancelScope) -> None:
    """Leave the block by an exception: the actors end in the same order, and the exception leaves as itself."""
    raise LookupError("the body has failed")


async def the_body_is_cancelled(_: CronScheduler, scope: trio.CancelScope) -> None:
    """Cancel the block from outside: no grace, the run is cancelled at once and put back."""
    scope.cancel()
    await trio.sleep(5)


async def an_executor_fails(scheduler: CronScheduler, _: trio.CancelScope) -> None:
    """Let an executor raise: its run fails, and nothing else ends."""
    await request(scheduler, "fail", wait=True)


async def an_executor_ends_the_program(scheduler: CronScheduler, _: trio.CancelScope) -> None:
    """Let an executor raise SystemExit: it leaves the block, after everything has ended in order."""
    await request(scheduler, "end the program")
    await trio.sleep(5)


async def the_clock_has_a_bug(scheduler: CronScheduler, _: trio.CancelScope) -> None:
    """Let the clock actor fail: no more runs start, and the running one is cancelled and put back."""
    with patch.object(scheduler._actors.clock, "_claim", side_effect=ZeroDivisionError("a bug in a claim")):
        await trio.sleep(5)


async def the_store_has_a_bug(scheduler: CronScheduler, _: trio.CancelScope) -> None:
    """Let the store actor fail: every caller that waits for it gets an error; the next start recovers the run."""
    try:
        await scheduler.store._service.mailbox.call(Broken())
    except SchedulerCrashed as error:
        say(f"the caller gets: {error!r}")
    await trio.sleep(5)


Experiment: TypeAlias = Callable[[CronScheduler, trio.CancelScope], Awaitable[None]]
EXPERIMENTS: tuple[Experiment, ...] = (
    the_body_returns,
    the_body_raises,
    the_body_is_cancelled,
    an_executor_fails,
    an_executor_ends_the_program,
    the_clock_has_a_bug,
    the_store_has_a_bug,
)


async def experiment(event: Experiment) -> None:
    """Open a scheduler, wait until a run has started, and cause the event."""
    config = CronConfig(max_concurrent_runs=2, default_max_retries=0)
    started = trio.Event()

    async def reporting_executor(context: JobContext) -> str:
        started.set()
        return await executor(context)

    with trio.CancelScope() as scope:
        async with cronactors.open_scheduler(
            ":memory:", reporting_executor, notifier=notifier, config=config, tick_interval=0.1
        ) as scheduler:
            await request(scheduler, "work")
            await started.wait()
            await event(scheduler, scope)
    if scope.cancelled_caught:
        say("left: by the cancellation")


def main() -> None:
    """Run all experiments."""
    for event in EXPERIMENTS:
        print(f"{event.__name__.replace('_', ' ')}:", flush=True)
        try:
            trio.run(experiment, event, instruments=[WatchEnds()])
        except (CronError, LookupError, SystemExit) as error:
            cause = f", because of {error.__cause__!r}" if error.__cause__ is not None else ""
            say(f"left: {error!r}{cause}")


if __name__ == "__main__":
    main()
