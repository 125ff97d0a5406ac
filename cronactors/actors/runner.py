"""The pool of runner actors: each takes a run that has begun, lets the executor carry it out, records the end and begins the next."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import attrs
import outcome
import trio

from cronactors.actors.callbacks import (
    call,
    cancelled_from_outside,
    escaping,
    inside_callback,
    stack_of,
    tasks_ended,
    traceback_of,
)
from cronactors.actors.duties import Finished, FinishRun, FinishTerms, NoteStuck
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.notifier import Notifier, RunFinished
from cronactors.actors.observable import Observable
from cronactors.actors.verdicts import CANCELLED, INTERRUPTED, REPLACED, Ending, Running, failure, success, timed_out
from cronactors.errors import CronError, StoreUnavailable, shorten
from cronactors.ledger.claim import Claimed
from cronactors.ledger.views import context_of, job_view
from cronactors.model import Cause, JobExecutor
from cronactors.policy import Outcome
from cronactors.spec import RetryPolicy

logger = logging.getLogger("cronactors.runner")

RECORDING_PATIENCE = 10.0
"""Seconds that an end is tried to be recorded once runs have been interrupted; then the run is left to the next start."""


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
        self.finish_terms = FinishTerms(owner=terms.owner, policy=terms.policy, total=terms.total, shows_job=notifier.shows_jobs)
        self._escape = escape
        self._send, self._receive = trio.open_memory_channel[Claimed](terms.slots)
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._interrupted = False
        self._runners = Observable(0)
        self._recording: set[trio.CancelScope] = set()
        self.running: dict[int, Running] = {}
        self._waiters: dict[int, list[trio.Event]] = {}
        self.busy = Observable(0)

    @property
    def owner(self) -> int:
        """Who runs, in the file."""
        return self._terms.owner

    @property
    def free(self) -> int:
        """How many slots nothing runs in."""
        return self._terms.slots - self.busy.value

    def start(self, nursery: trio.Nursery) -> None:
        """Start the runners."""
        self._nursery = nursery
        for _ in range(self._terms.slots):
            self._start_runner(None)

    def reserve(self) -> int:
        """Take all free slots, before runs are claimed for them."""
        free = self.free
        self.busy.value += free
        return free

    def hand_over(self, claimed: Claimed) -> None:
        """Give a run that has begun to a runner, in a slot that was reserved."""
        self._send.send_nowait(claimed)

    def give_back(self, slots: int) -> None:
        """Free slots that were reserved in vain."""
        self.busy.value -= slots

    @contextmanager
    def waiting_for(self, run_id: int) -> Iterator[trio.Event]:
        """An event that is set when a run ends in this pool, or may have been ended otherwise."""
        event = trio.Event()
        waiters = self._waiters.setdefault(run_id, [])
        waiters.append(event)
        try:
            yield event
        finally:
            waiters.remove(event)
            if not waiters:
                del self._waiters[run_id]

    def wake_waiters(self) -> None:
        """Let everybody who waits for a run look at it again."""
        for event in chain.from_iterable(self._waiters.values()):
            event.set()

    # Ending

    def stop_claiming(self) -> None:
        """Begin no more runs when one ends."""
        self._stopping = True

    async def settled(self) -> None:
        """Wait until no run goes on."""
        await self.busy.wait_for(lambda busy: busy == 0)

    def interrupt(self) -> None:
        """Cancel all runs, and those that begin yet; their moments are put back."""
        self._interrupted = True
        for scope in self._recording:
            scope.deadline = min(scope.deadline, trio.current_time() + RECORDING_PATIENCE)
        for running in list(self.running.values()):
            running.cancel(INTERRUPTED)

    async def end(self) -> None:
        """After `interrupt`: wait for the ends of all runs, however long they take. Runs shielded."""
        while self._receive.statistics().current_buffer_used:  # left there by runners that were cancelled
            claimed = self._receive.receive_nowait()
            await self._record(claimed, INTERRUPTED)
            self._free_slot()
        while self.busy.value:
            with trio.move_on_after(max(self._terms.cancel_grace, 0.1)):
                await self.settled()
            await self.report_stuck()
        self.close()
        await self._runners.wait_for(lambda count: count == 0)

    def close(self) -> None:
        """Let idle runners go."""
        self._send.close()

    def reconcile(self, in_file: Mapping[int, Cause | None]) -> list[int]:
        """Compare with the file's RUNNING rows of this scheduler: cancel what was asked to be, and what is ours no longer.

        Args:
            in_file: Their ids, and why they are to be cancelled, if they are.

        Returns:
            Ids of rows that no runner holds.
        """
        for run_id, running in self.running.items():
            cause = in_file.get(run_id)
            if cause is not None:
                running.cancel(REPLACED if cause is Cause.REPLACED else CANCELLED)
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
            logger.error(
                "run %s of job %s goes on %.1f s after it was cancelled (%s); it keeps its slot. Its task is at:\n%s",
                run_id,
                shorten(running.claimed.job.name),
                self._terms.cancel_grace,
                cause,
                stack_of(running.task),
            )
            try:
                await self._mailbox.ask(NoteStuck(run_id, cause))
            except CronError as error:
                logger.warning("run %s could not be marked as stuck: %s", run_id, error)

    # Running

    def _start_runner(self, first: Claimed | None) -> None:
        assert self._nursery is not None
        self._runners.value += 1
        self._nursery.start_soon(self._runner, first)

    @trio.lowlevel.enable_ki_protection
    async def _runner(self, claimed: Claimed | None) -> None:
        """Carry out runs in a task within, and in another one when an executor has left nurseries open in that: trio fails it."""
        inside_callback.set("a run")
        untold: list[RunFinished] = []
        going_on = True
        try:
            while going_on:
                spoilt: list[Ending] = []
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._serve, claimed, untold, spoilt)
                except BaseExceptionGroup:
                    if not spoilt:
                        raise
                going_on = False
                for ending in spoilt:
                    await tasks_ended(ending.running.task.child_nurseries)
                    claimed = await self._conclude(ending, untold)
                    going_on = not untold
        finally:
            self._runners.value -= 1
        for told in untold:
            await self._notifier.tell(told)

    @trio.lowlevel.enable_ki_protection
    async def _serve(self, claimed: Claimed | None, untold: list[RunFinished], spoilt: list[Ending]) -> None:
        """Carry out one run after the other until the pool is closed, another runner has taken over, or the task is spoilt.

        Cancelled from outside, the end of the run at hand is still recorded.
        """
        while not untold:
            if claimed is None:
                try:
                    claimed = await self._receive.receive()
                except trio.EndOfChannel:
                    return
            running = Running(claimed, trio.lowlevel.current_task(), trio.CancelScope(), trio.CancelScope())
            self.running[claimed.run.id] = running
            if self._interrupted:
                running.cancel(INTERRUPTED)
            ending = Ending(running, await self._attempt(running))
            if running.task.child_nurseries:
                spoilt.append(ending)
                return
            claimed = await self._conclude(ending, untold)

    async def _conclude(self, ending: Ending, untold: list[RunFinished]) -> Claimed | None:
        """Record the end of a run, and answer the one that has begun in its slot; if there is none the slot is free.

        If the notifier lags and has no place for the end, that is untold: another runner takes over the slot, and this one is to wait
        for the place, outside of the pool.
        """
        claimed = ending.running.claimed
        following: Claimed | None = None
        try:
            following = (await self._record(claimed, ending.outcome, untold)).following
        finally:
            del self.running[claimed.run.id]
            for event in self._waiters.get(claimed.run.id, ()):
                event.set()
            if untold:
                self._start_runner(following)
            if following is None:
                self._free_slot()
        return following

    def _tell(self, claimed: Claimed, finished: Finished, untold: list[RunFinished]) -> None:
        """Put an end into the notifier's queue; called by the store in the order of its commits."""
        if finished.run is None or not self._notifier.wants(finished.run):
            return
        job = (finished.job or job_view(claimed.job_now, ())) if self._notifier.shows_jobs else None
        told = RunFinished(finished.run, job)
        try:
            self._notifier.tell_nowait(told)
        except trio.WouldBlock:
            untold.append(told)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.warning("nobody was told of the end of run %s: the notifier has ended", finished.run.id)

    def _free_slot(self) -> None:
        self.busy.value -= 1
        self._freed()

    async def _attempt(self, running: Running) -> Outcome:
        """Let the executor carry the run out. What it returned is success, be it late; else the scopes say why it ended."""
        claimed = running.claimed
        result: outcome.Outcome[object] | None = None
        context = running.task.context.copy()
        running.timeout.deadline = trio.current_time() + claimed.job.timeout_secs
        try:
            with running.scope, running.timeout:
                result = await call(self._terms.executor, context_of(claimed.run, claimed.job))
        except RuntimeError as misnested:  # trio's word on an executor that left a scope or a nursery open
            result = result if isinstance(result, outcome.Error) else outcome.Error(misnested)
        running.task.context = context  # context variables that the executor set are not for the next run
        if isinstance(result, outcome.Value):
            return success(result.value)
        error = result.error if isinstance(result, outcome.Error) else None
        if error is not None and (escaped := escaping(error)) is not None:
            self._escape(escaped)
            if self._stopping:
                self.interrupt()  # a second Ctrl-C ends the grace, wherever it lands
            if isinstance(escaped, KeyboardInterrupt):
                return INTERRUPTED
        if cancelled_from_outside():
            return INTERRUPTED
        if running.asked_at is not None and running.asked_at < running.timeout.deadline:
            return running.verdict
        if running.timeout.cancel_called:
            return timed_out(claimed.job.timeout_secs)
        assert error is not None
        if logger.isEnabledFor(logging.INFO):
            logger.info("run %s of job %s failed:%s", claimed.run.id, shorten(claimed.job.name), traceback_of(error))
        return failure(error)

    async def _record(self, claimed: Claimed, ending: Outcome, untold: list[RunFinished] | None = None) -> Finished:
        """Record the end, however long the store takes: a result is never dropped. Shielded.

        Only once runs have been interrupted there is a limit; what could not be recorded is found by the next start.
        """
        finished: Finished | None = None
        patience = RECORDING_PATIENCE if self._interrupted else math.inf
        with trio.CancelScope(shield=True, deadline=trio.current_time() + patience) as scope:
            self._recording.add(scope)
            try:
                finished = await self._finish(claimed, ending, [] if untold is None else untold)
            finally:
                self._recording.discard(scope)
        if finished is None:
            logger.warning(
                "the end of run %s (%s) could not be recorded: the store did not answer", claimed.run.id, ending.status
            )
            return Finished(run=None, job=None, following=None)
        if finished.run is None:
            logger.warning("run %s of job %s was taken over: its end has no effect", claimed.run.id, shorten(claimed.job.name))
        return finished

    async def _finish(self, claimed: Claimed, ending: Outcome, untold: list[RunFinished]) -> Finished:
        pause = 0.1
        while True:
            claim_next = not self._stopping and ending.cause is not Cause.INTERRUPTED
            request = FinishRun(claimed.run.id, ending, claim_next, self.finish_terms)
            try:
                return await self._mailbox.ask(request, lambda finished: self._tell(claimed, finished, untold))
            except StoreUnavailable as error:
                logger.debug("the end of run %s will be recorded later: %s", claimed.run.id, error)  # the store has told it
                await trio.sleep(pause)
                pause = min(2 * pause, 1.0)
