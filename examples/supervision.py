"""An experiment in structured concurrency: end one part of a scheduler, and watch in which order the others end.

    python examples/supervision.py

Each experiment opens a scheduler of two slots, lets a run begin, and then something happens. An instrument of trio prints the end
of each actor. Whatever it is, nothing is left behind: the block is left when every task has ended, and the store goes last,
because the others record their ends with it; unless it is the store itself that fails.
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

ACTORS = {"Clock.run": "clock", "RunnerPool._runner": "runner", "Notifier.run": "notifier", "StoreActor.run": "store"}


class WatchEnds(trio.abc.Instrument):
    """Prints the end of each actor's task."""

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Be told by trio."""
        _, _, name = task.name.rpartition("actors.")
        actor = ACTORS.get(name.partition(".")[2])
        if actor is not None:
            say(f"the {actor} actor has ended")


@attrs.frozen
class Broken(Request[None]):
    """A request whose code has a bug."""

    def apply(self, storage: Storage) -> None:
        """Fail in a way that nobody has foreseen."""
        raise ZeroDivisionError(f"a bug met at {storage.now()}")


def say(what: str) -> None:
    """Print what happens."""
    print(f"   {what}", flush=True)


async def executor(context: JobContext) -> str:
    """Do what the prompt says."""
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
    """Be told of each end."""
    say(f"notified: {job_name} {'ok' if success else 'FAILED'}: {result}")


async def ask(scheduler: CronScheduler, prompt: str, *, wait: bool = False) -> CronRun:
    """Ask for a run."""
    job_id = await scheduler.store.upsert_job(prompt, prompt, OneShot("9000-01-01T00:00Z"))
    return await scheduler.run_now(job_id, wait=wait)


# The experiments


async def the_body_returns(_: CronScheduler, __: trio.CancelScope) -> None:
    """Leave the block while a run goes on: it gets its grace, and ends by itself."""


async def the_body_raises(_: CronScheduler, __: trio.CancelScope) -> None:
    """Leave the block by an exception: the same order, and the exception leaves as itself."""
    raise LookupError("the body has failed")


async def the_body_is_cancelled(_: CronScheduler, scope: trio.CancelScope) -> None:
    """Cancel the block from outside: no grace, the run is cancelled at once and put back."""
    scope.cancel()
    await trio.sleep(5)


async def an_executor_fails(scheduler: CronScheduler, _: trio.CancelScope) -> None:
    """Let an executor raise: its run has failed, and nothing else ends."""
    await ask(scheduler, "fail", wait=True)


async def an_executor_ends_the_program(scheduler: CronScheduler, _: trio.CancelScope) -> None:
    """Let an executor raise SystemExit: it is meant for all, so everything ends in order first."""
    await ask(scheduler, "end the program")
    await trio.sleep(5)


async def the_clock_has_a_bug(scheduler: CronScheduler, _: trio.CancelScope) -> None:
    """Let the clock actor end: no more runs begin, and the run that goes on is cancelled and put back."""
    with patch.object(scheduler._clock, "_tick", side_effect=ZeroDivisionError("a bug met in a tick")):
        await trio.sleep(5)


async def the_store_has_a_bug(scheduler: CronScheduler, _: trio.CancelScope) -> None:
    """Let the store actor end: whoever waits for it is answered, nobody hangs; the next start takes the run back."""
    try:
        await scheduler.store._service.mailbox.call(Broken())
    except SchedulerCrashed as answer:
        say(f"who asked is answered: {answer!r}")
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


async def experiment(happens: Experiment) -> None:
    """Open a scheduler, let a run begin, and let something happen."""
    config = CronConfig(max_concurrent_runs=2, default_max_retries=0)
    begun = trio.Event()

    async def telling_executor(context: JobContext) -> str:
        begun.set()
        return await executor(context)

    with trio.CancelScope() as scope:
        async with cronactors.open_scheduler(
            ":memory:", telling_executor, notifier=notifier, config=config, tick_interval=0.1
        ) as scheduler:
            await ask(scheduler, "work")
            await begun.wait()
            await happens(scheduler, scope)
    if scope.cancelled_caught:
        say("left: by the cancellation")


def main() -> None:
    """Do all experiments."""
    for happens in EXPERIMENTS:
        print(f"{happens.__name__.replace('_', ' ')}:", flush=True)
        try:
            trio.run(experiment, happens, instruments=[WatchEnds()])
        except (CronError, LookupError, SystemExit) as error:
            cause = f", because of {error.__cause__!r}" if error.__cause__ is not None else ""
            say(f"left: {error!r}{cause}")


if __name__ == "__main__":
    main()
