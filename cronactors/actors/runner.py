"""The pool of runner actors: each takes a run that has begun, lets the executor carry it out, records the end and begins the next."""

from __future__ import annotations

import logging
import math
import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import attrs
import outcome
import trio

from cronactors.actors.callbacks import call, describe, escaping, inside_callback
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.messages import Finished, FinishRun, NoteStuck
from cronactors.actors.notifier import Notifier, RunFinished
from cronactors.actors.observable import Observable
from cronactors.errors import GiveUp, Retry, StoreUnavailable, shorten
from cronactors.ledger.claim import Claimed
from cronactors.ledger.views import context_of, job_view
from cronactors.model import Cause, JobExecutor, JobResult, RunStatus
from cronactors.policy import MAX_ERROR, MAX_SUMMARY, Outcome, kept
from cronactors.spec import MAX_DELAY, MAX_NAME, RetryPolicy

logger = logging.getLogger("cronactors.runner")

RECORDING_PATIENCE = 10.0
"""Seconds that an end is tried to be recorded once the scheduler is closing; then the run is left to the next start."""

INTERRUPTED = Outcome(status=RunStatus.FAILED, cause=Cause.INTERRUPTED, error="interrupted: the scheduler was closed")
_CANCELLED = Outcome(status=RunStatus.CANCELLED, cause=Cause.CANCELLED, error="cancelled on request")


@attrs.define(eq=False)
class Running:
    """A run that is being carried out.

    Attributes:
        claimed: The run and its job.
        task: The runner's task, whose stack shows where the executor is.
        scope: Cancelled to end the run early; `verdict` says what it is then.
        timeout: The scope of the timeout.
        asked_at: When it was cancelled, on trio's clock.
        reported: It has been reported as not ending.
        missed: How many looks in a row did not find it in the file.
    """

    claimed: Claimed
    task: trio.lowlevel.Task
    scope: trio.CancelScope
    timeout: trio.CancelScope
    verdict: Outcome = INTERRUPTED
    asked_at: float | None = None
    reported: bool = False
    missed: int = 0

    def cancel(self, verdict: Outcome) -> None:
        """End it early; the first verdict stands."""
        if self.asked_at is None:
            self.verdict = verdict
            self.asked_at = trio.current_time()
            self.scope.cancel()

    @property
    def cancelled_at(self) -> float:
        """When it was, or will be, cancelled: by somebody or by the timeout."""
        return self.timeout.deadline if self.asked_at is None else min(self.asked_at, self.timeout.deadline)


@attrs.frozen(kw_only=True)
class Terms:
    """What all runners of a scheduler share."""

    owner: int
    executor: JobExecutor
    policy: RetryPolicy
    slots: int
    total: int | None
    cancel_grace: float


class RunnerPool:
    """Up to ``terms.slots`` runners.

    Args:
        mailbox: The store's.
        notifier: Told of each end.
        terms: What the runners share.
        freed: Called when a slot has become free.
        escape: Given a KeyboardInterrupt or SystemExit that an executor raised.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        notifier: Notifier,
        terms: Terms,
        *,
        freed: Callable[[], None],
        escape: Callable[[BaseException], None],
    ) -> None:
        self._mailbox = mailbox
        self._notifier = notifier
        self._terms = terms
        self._freed = freed
        self._escape = escape
        self._send, self._receive = trio.open_memory_channel[Claimed](terms.slots)
        self._nursery: trio.Nursery | None = None
        self._stopping_since: float | None = None
        self._interrupted = False
        self.running: dict[int, Running] = {}
        self._waiters: dict[int, list[trio.Event]] = {}
        self.busy = Observable(0)

    @property
    def free(self) -> int:
        """How many slots nothing runs in."""
        return self._terms.slots - self.busy.value

    def start(self, nursery: trio.Nursery) -> None:
        """Start the runners."""
        self._nursery = nursery
        for _ in range(self._terms.slots):
            nursery.start_soon(self._runner, None)

    def hand_over(self, claimed: Claimed) -> None:
        """Give a run that has begun to a free runner; the caller has asked for no more than `free`."""
        self.busy.value += 1
        self._send.send_nowait(claimed)

    @contextmanager
    def waiting_for(self, run_id: int) -> Iterator[trio.Event]:
        """An event that is set when a run ends in this pool."""
        event = trio.Event()
        waiters = self._waiters.setdefault(run_id, [])
        waiters.append(event)
        try:
            yield event
        finally:
            waiters.remove(event)
            if not waiters:
                del self._waiters[run_id]

    # Ending

    def cancel(self, run_id: int) -> None:
        """Cancel a run because somebody asked for it."""
        running = self.running.get(run_id)
        if running is not None:
            running.cancel(_CANCELLED)

    def stop_claiming(self) -> None:
        """Begin no more runs when one ends."""
        self._stopping_since = trio.current_time()

    def interrupt(self) -> None:
        """Cancel all runs, and those that begin yet; their moments are put back."""
        self._interrupted = True
        for running in list(self.running.values()):
            running.cancel(INTERRUPTED)

    async def end(self) -> None:
        """After `interrupt`: wait for the ends of all runs, however long they take, and let the runners go. Runs shielded."""
        while self._receive.statistics().current_buffer_used:  # left there by runners that were cancelled
            claimed = self._receive.receive_nowait()
            await self._record(claimed, INTERRUPTED)
            self._free_slot()
        while self.busy.value:
            with trio.move_on_after(max(self._terms.cancel_grace, 0.1)):
                await self.busy.wait_for(lambda busy: busy == 0)
            await self.report_stuck()
        self._send.close()

    def reconcile(self, in_file: Mapping[int, bool]) -> list[int]:
        """Compare with the file's RUNNING rows of this scheduler: cancel what was asked to be, and what is ours no longer.

        Args:
            in_file: Their ids, and whether somebody asked to cancel them.

        Returns:
            Ids of rows that no runner holds.
        """
        for run_id, running in self.running.items():
            if in_file.get(run_id):
                running.cancel(_CANCELLED)
            running.missed = 0 if run_id in in_file else running.missed + 1
            if running.missed > 1:  # the first time its claim or its end may just be on the way
                logger.warning("run %s of job %s was taken over: it is cancelled here", run_id, shorten(running.claimed.job.name))
                running.cancel(INTERRUPTED)
        return [run_id for run_id in in_file if run_id not in self.running]

    def next_report(self) -> float:
        """When `report_stuck` may have something to report, on trio's clock."""
        cancelled = (running.cancelled_at for running in self.running.values() if not running.reported)
        return min(cancelled, default=math.inf) + self._terms.cancel_grace

    async def report_stuck(self) -> None:
        """Report runs that do not end although they were cancelled, once each, with the stack of the task."""
        now = trio.current_time()
        for run_id, running in list(self.running.items()):
            if running.reported or now < running.cancelled_at + self._terms.cancel_grace:
                continue
            running.reported = True
            by_timeout = running.asked_at is None or running.timeout.deadline <= running.asked_at
            cause = Cause.TIMEOUT if by_timeout else running.verdict.cause or Cause.CANCELLED
            frames = traceback.StackSummary.extract(running.task.iter_await_frames())
            logger.error(
                "run %s of job %s goes on %.1f s after it was cancelled (%s); it keeps its slot. Its task is at:\n%s",
                run_id,
                shorten(running.claimed.job.name),
                self._terms.cancel_grace,
                cause,
                "".join(frames.format()),
            )
            try:
                await self._mailbox.ask(NoteStuck(run_id, cause))
            except StoreUnavailable as error:
                logger.warning("run %s could not be marked as stuck: %s", run_id, error)

    # Running

    @trio.lowlevel.enable_ki_protection
    async def _runner(self, first: Claimed | None) -> None:
        """Carry out runs until the pool is closed; cancelled from outside, the end of the run at hand is still recorded."""
        inside_callback.set("a run")
        claimed = first
        while True:
            if claimed is None:
                try:
                    claimed = await self._receive.receive()
                except trio.EndOfChannel:
                    return
            try:
                finished = await self._carry_out(claimed)
            except BaseException:
                self._free_slot()
                raise
            if finished.run is not None and self._notifier.wants(finished.run):
                told = RunFinished(finished.run, finished.job or job_view(claimed.job, ()))
                try:
                    self._notifier.tell_nowait(told)
                except trio.WouldBlock:
                    await self._retire(told, finished.following)
                    return
            claimed = finished.following
            if claimed is None:
                self._free_slot()

    async def _retire(self, ended: RunFinished, following: Claimed | None) -> None:
        """The notifier lags: leave the slot to a new runner, and wait for a place in the queue outside of the pool."""
        assert self._nursery is not None
        self._nursery.start_soon(self._runner, following)
        if following is None:
            self._free_slot()
        await self._notifier.tell(ended)

    def _free_slot(self) -> None:
        self.busy.value -= 1
        self._freed()

    async def _carry_out(self, claimed: Claimed) -> Finished:
        running = Running(claimed, trio.lowlevel.current_task(), trio.CancelScope(), trio.CancelScope())
        self.running[claimed.run.id] = running
        if self._interrupted:
            running.cancel(INTERRUPTED)
        ending = INTERRUPTED
        try:
            ending = await self._attempt(claimed, running)
        finally:
            with trio.CancelScope(shield=True):
                finished = await self._record(claimed, ending)
            del self.running[claimed.run.id]
            for event in self._waiters.get(claimed.run.id, ()):
                event.set()
        return finished

    async def _attempt(self, claimed: Claimed, running: Running) -> Outcome:
        """Let the executor carry the run out. The verdict is the scopes': the executor may have hidden its cancellation."""
        result: outcome.Outcome[object] | None = None
        running.timeout.deadline = trio.current_time() + claimed.job.timeout_secs
        try:
            with running.scope, running.timeout:
                result = await call(self._terms.executor, context_of(claimed.run, claimed.job))
        except RuntimeError as misnested:  # trio's word on an executor that left a scope or a nursery open
            result = outcome.Error(misnested)
        if isinstance(result, outcome.Value):
            return success(result.value)
        error = result.error if isinstance(result, outcome.Error) else None
        if error is not None and (escaped := escaping(error)) is not None:
            self._escape(escaped)
        if running.asked_at is not None and running.asked_at < running.timeout.deadline:
            return running.verdict
        if running.timeout.cancel_called:
            return timed_out(claimed.job.timeout_secs)
        assert error is not None
        return failure(error)

    async def _record(self, claimed: Claimed, ending: Outcome) -> Finished:
        """Record the end, however long the store takes: a result is never dropped, but for a store that fails while we close."""
        pause = 0.1
        while True:
            stopping = self._stopping_since
            goes_on = stopping is None and ending.cause is not Cause.INTERRUPTED
            request = FinishRun(
                claimed.run.id,
                ending,
                self._terms.owner,
                self._terms.policy,
                claim_next=goes_on,
                total=self._terms.total,
                show_job=self._notifier.listens,
            )
            try:
                finished = await self._mailbox.ask(request)
            except StoreUnavailable as error:
                if stopping is not None and trio.current_time() - stopping > RECORDING_PATIENCE:
                    logger.warning("the end of run %s (%s) could not be recorded: %s", claimed.run.id, ending.status, error)
                    return Finished(run=None, job=None, following=None)
                logger.warning("the end of run %s will be recorded later: %s", claimed.run.id, error)
                await trio.sleep(pause)
                pause = min(2 * pause, 2.0)
            else:
                if finished.run is None:
                    logger.warning(
                        "run %s of job %s was taken over: its end has no effect", claimed.run.id, shorten(claimed.job.name)
                    )
                return finished


def success(value: object) -> Outcome:
    """The outcome of an executor that returned; a value that cannot even be looked at is a failure."""
    try:
        return _success(value)
    except Exception as error:  # noqa: BLE001 - a user's object may do anything
        return failure(error)


def _success(value: object) -> Outcome:
    if value is None:
        value = JobResult()
    elif isinstance(value, str):
        value = JobResult(summary=value)
    if not isinstance(value, JobResult):
        return failure(TypeError(f"the executor returned {type(value).__name__}, not JobResult, str or None"))
    texts: dict[str, object] = {"summary": value.summary, "session_id": value.session_id}
    for field, text in texts.items():
        if not isinstance(text, str):
            return failure(TypeError(f"the executor returned a {field} of type {type(text).__name__}, not str"))
    return Outcome(status=RunStatus.SUCCESS, result=kept(value.summary, MAX_SUMMARY), session_id=kept(value.session_id, MAX_NAME))


def timed_out(seconds: float) -> Outcome:
    """The outcome of an executor that was cancelled by its timeout."""
    return Outcome(
        status=RunStatus.FAILED,
        cause=Cause.TIMEOUT,
        error=f"timed out after {seconds:g} s",
        spread=random.random(),  # noqa: S311 - spreads retries, guards nothing
    )


def failure(error: BaseException) -> Outcome:
    """The outcome of an executor that raised."""
    text = kept(describe(error), MAX_ERROR)
    if isinstance(error, GiveUp):
        return Outcome(status=RunStatus.FAILED, cause=Cause.GAVE_UP, error=text)
    after: float | None = None
    if isinstance(error, Retry) and isinstance(error.after, int | float):
        after = min(max(0.0, error.after), MAX_DELAY)
    return Outcome(
        status=RunStatus.FAILED,
        cause=Cause.ERROR,
        error=text,
        retry_after=after,
        spread=random.random(),  # noqa: S311 - spreads retries, guards nothing
    )
