"""The pool of runner actors: each takes a run that has begun, lets the executor carry it out, records the end and begins the next."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import outcome
import trio

from cronactors.actors.actor_requests import Finished, FinishRun, FinishSettings
from cronactors.actors.async_value import Observable
from cronactors.actors.exits import actor
from cronactors.actors.failure_log import FailureLog, without_prompt
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.notifier import Notifier, RunFinished
from cronactors.actors.outcomes import INTERRUPTED, failure, success, timed_out
from cronactors.actors.running import Running, RunsInFlight
from cronactors.actors.shift import RunnerSettings, Shift
from cronactors.actors.stopping import StopDeadline
from cronactors.actors.user_code import (
    call,
    cancelled_from_outside,
    describe,
    escaping,
    inside_callback,
    split_cancelled,
    tasks_ended,
    traceback_of,
)
from cronactors.errors import StoreUnavailable, one_line, shorten
from cronactors.ledger.views import context_of, job_view
from cronactors.model import Cause, RunStatus
from cronactors.policy import Outcome
from cronactors.storage.rows import Claimed

logger = logging.getLogger("cronactors.runner")


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
        terms: RunnerSettings,
        *,
        freed: Callable[[], None],
        escape: Callable[[BaseException], None],
    ) -> None:
        self._mailbox = mailbox
        self._notifier = notifier
        self._terms = terms
        self._freed = freed
        self.finish_settings = FinishSettings(
            owner=terms.owner, policy=terms.policy, total=terms.total, shows_job=notifier.shows_jobs
        )
        self._escape = escape
        self._send, self._receive = trio.open_memory_channel[Claimed](terms.slots)
        self._nursery: trio.Nursery | None = None
        self._stop: StopDeadline | None = None
        self._interrupted = False
        self._runners = Observable(0)
        self._failures = FailureLog()
        self._recording: set[trio.CancelScope] = set()
        self.in_flight = RunsInFlight(mailbox, terms.cancel_grace)
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

    # Ending

    def stop(self, grace: float) -> StopDeadline:
        """Begin no more runs when one ends; answer how long the stop may last, which the first call settles."""
        if self._stop is None:
            self._stop = StopDeadline(grace)
        return self._stop

    async def settled(self) -> None:
        """Wait until no run goes on."""
        await self.busy.wait_for(lambda busy: busy == 0)

    def interrupt(self) -> None:
        """After `stop`: cancel all runs, and those that begin yet; their moments are put back."""
        assert self._stop is not None
        self._interrupted = True
        until = self._stop.extend()
        for scope in self._recording:
            scope.deadline = min(scope.deadline, until)
        self.in_flight.cancel_all()

    async def end(self) -> None:
        """After `interrupt`: wait for the ends of all runs, however long they take. Runs shielded."""
        assert self._stop is not None
        until = self._stop.extend()
        while self._receive.statistics().current_buffer_used:  # left there by runners that were cancelled
            with trio.CancelScope(deadline=until) as scope:
                await self._record(self._receive.receive_nowait(), INTERRUPTED, [], scope)
            self._free_slot()
        while self.busy.value:
            with trio.move_on_after(max(self._terms.cancel_grace, 0.1)):
                await self.settled()
            await self.in_flight.report_stuck()
        self.close()
        await self._runners.wait_for(lambda count: count == 0)

    def close(self) -> None:
        """Let idle runners go."""
        self._send.close()

    # Running

    def _start_runner(self, first: Claimed | None) -> None:
        assert self._nursery is not None
        self._runners.value += 1
        self._nursery.start_soon(self._runner, first)

    @actor
    async def _runner(self, claimed: Claimed | None) -> None:
        """Carry out runs in a task within. What an executor leaves open there, or cancels, ends that task; then there is another."""
        inside_callback.set("a run")
        untold: list[RunFinished] = []
        try:
            while not untold:
                shift = await self._shift(claimed, untold)
                if shift.done:
                    break
                claimed = shift.claimed
                if shift.spoilt is not None:
                    running, ending = shift.spoilt
                    await tasks_ended(shift.abandoned)
                    with trio.CancelScope() as scope:
                        claimed = await self._conclude(running, ending, untold, scope)
        finally:
            self._runners.value -= 1
        for told in untold:
            await self._notifier.tell(told)

    async def _shift(self, claimed: Claimed | None, untold: list[RunFinished]) -> Shift:
        """Carry out runs in a task and a nursery of their own, and wait for the end of all that is in it."""
        shift: Shift | None = None
        raised: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                shift = Shift(claimed, nursery, untold=untold)
                nursery.start_soon(self._serve, shift)
        except BaseException as error:  # noqa: BLE001 - it is sorted out below
            raised = error
        assert shift is not None
        bug: BaseException | None = shift.bug
        if bug is not None:
            raise bug
        if raised is not None:
            self._blame(shift, raised)
        return shift

    def _blame(self, shift: Shift, raised: BaseException) -> None:
        """Let what came out of a shift's nursery be the failure of the run at hand: it is of tasks that executors started there.

        Raises:
            trio.Cancelled: There is no run at hand, and a scope around us has been cancelled.
        """
        cancelled, strays = split_cancelled(raised)
        if strays is not None and not shift.abandoned:  # else it is trio's word on the nursery that was left open
            escaped = self._let_escape(strays)
            if shift.spoilt is None:
                logger.warning("a task that an executor left in its nursery failed: %s", one_line(describe(strays)))
            else:
                running, ending = shift.spoilt
                if isinstance(escaped, KeyboardInterrupt):
                    ending = INTERRUPTED
                elif ending.status is RunStatus.SUCCESS or (shift.torn and ending.cause is Cause.ERROR):
                    ending = INTERRUPTED if cancelled_from_outside() else _failed(running.claimed, strays)
                shift.spoilt = running, ending
        if cancelled is not None and shift.spoilt is None and shift.claimed is None:
            raise cancelled

    @trio.lowlevel.enable_ki_protection
    async def _serve(self, shift: Shift) -> None:
        """Carry out one run after the other until the pool is closed, another runner has taken over, or the task is spoilt.

        Cancelled from outside, the end of the run at hand is still recorded.
        """
        try:
            await self._carry_out(shift)
        except trio.Cancelled:
            raise
        except BaseException as bug:  # noqa: BLE001 - raised by `_shift`; here it would pass for one of an executor's tasks
            shift.bug = bug
            shift.nursery.cancel_scope.cancel()

    async def _carry_out(self, shift: Shift) -> None:
        claimed, shift.claimed = shift.claimed, None
        with trio.CancelScope() as scope:
            while not shift.untold:
                if claimed is None:
                    try:
                        claimed = await self._receive.receive()
                    except trio.EndOfChannel:
                        break
                deadline = trio.current_time() + claimed.job.timeout_secs
                running = Running(claimed, trio.lowlevel.current_task(), trio.CancelScope(deadline=deadline))
                self.in_flight.add(running)
                if self._interrupted:
                    running.cancel(INTERRUPTED)
                try:
                    ending = await self._attempt(running, shift)
                except BaseException:  # a bug of ours, or damage: it ends the scheduler, which must not wait for this run
                    self._leave_slot(running)
                    raise
                if running.task.child_nurseries or len(shift.nursery.child_tasks) > 1 or shift.is_cancelled():
                    shift.spoil(running, ending)
                    return
                claimed = await self._conclude(running, ending, shift.untold, scope)
                lost = shift.is_cancelled() or (self._interrupted and scope.cancel_called)
                if lost and not shift.untold:
                    shift.claimed = claimed  # for the next task: in this one it would be cancelled
                    return
            shift.done = True

    async def _conclude(
        self, running: Running, ending: Outcome, untold: list[RunFinished], scope: trio.CancelScope
    ) -> Claimed | None:
        """Record the end of a run, and answer the one that has begun in its slot; if there is none the slot is free.

        If the notifier lags and has no place for the end, that is untold: another runner takes over the slot, and this one is to wait
        for the place, outside of the pool.
        """
        following: Claimed | None = None
        running.over = True
        self._failures.note(running.claimed, ending)
        try:
            following = (await self._record(running.claimed, ending, untold, scope)).following
        finally:
            if untold:
                self._start_runner(following)
            if following is None:
                self._leave_slot(running)
            else:
                self.in_flight.remove(running)
        return following

    def _tell(self, claimed: Claimed, untold: list[RunFinished], finished: Finished) -> None:
        """Put an end into the notifier's queue; called by the store in the order of its commits."""
        run = finished.run
        if run is None or not self._notifier.wants(run):
            return
        job = (finished.job or job_view(claimed.job_now, ())) if self._notifier.shows_jobs else None
        told = RunFinished(run, job)
        try:
            self._notifier.tell_nowait(told)
        except trio.WouldBlock:
            untold.append(told)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.warning("nobody was told of the end of run %s: the notifier has ended", run.id)

    def _leave_slot(self, running: Running) -> None:
        self.in_flight.remove(running)
        self._free_slot()

    def _free_slot(self) -> None:
        self.busy.value -= 1
        self._freed()

    async def _attempt(self, running: Running, shift: Shift) -> Outcome:
        """Let the executor carry the run out. What it returned is success, be it late; else the scopes say why it ended."""
        claimed = running.claimed
        result: outcome.Outcome[object] | None = None
        context = running.task.context.copy()
        try:
            with running.scope:
                result = await call(self._terms.executor, context_of(claimed.run, claimed.job))
        except RuntimeError as misnested:  # trio's word on an executor that left a scope or a nursery open
            result = result if isinstance(result, outcome.Error) else outcome.Error(misnested)
        running.task.context = context  # context variables that the executor set are not for the next run
        if isinstance(result, outcome.Value):
            return success(result.value)
        return self._verdict(running, shift, result.error if isinstance(result, outcome.Error) else None)

    def _verdict(self, running: Running, shift: Shift, error: BaseException | None) -> Outcome:
        """What it means that an executor did not return."""
        if error is not None and isinstance(self._let_escape(error), KeyboardInterrupt):
            return INTERRUPTED
        if shift.is_cancelled():  # an exception of a task in it is put in place of this by `_blame`
            return failure(RuntimeError("the executor cancelled the nursery that it was called in"))
        if cancelled_from_outside():
            return INTERRUPTED
        if running.cancelled_early:
            return running.verdict
        if running.scope.cancel_called:
            return timed_out(running.claimed.job.timeout_secs)
        assert error is not None
        return _failed(running.claimed, error)

    def _let_escape(self, error: BaseException) -> BaseException | None:
        """Let a KeyboardInterrupt or SystemExit in an error end the scheduler, and answer it."""
        escaped = escaping(error)
        if escaped is not None:
            self._escape(escaped)
            if self._stop is not None:
                self.interrupt()  # a second Ctrl-C ends the grace, wherever it lands
        return escaped

    async def _record(self, claimed: Claimed, ending: Outcome, untold: list[RunFinished], scope: trio.CancelScope) -> Finished:
        """Record the end, however long the store takes: a result is never dropped.

        Only once runs have been interrupted there is a limit, that of the stop, after which ``scope`` is cancelled; what could not be
        recorded is found by the next start.

        Args:
            claimed: The run.
            ending: How it ended.
            untold: Where to put the end if the notifier has no place for it.
            scope: The innermost scope of this task; shielded if need be. A new one for each run would cost 5 us.
        """
        finished: Finished | None = None
        heard = partial(self._tell, claimed, untold) if self._notifier.listens else None
        pause = 0.1
        if self._interrupted and self._stop is not None:
            scope.deadline = min(scope.deadline, self._stop.extend())
        self._recording.add(scope)
        try:
            while finished is None:
                claim_next = self._stop is None and ending.cause is not Cause.INTERRUPTED
                request = FinishRun(claimed.run.id, ending, claim_next, self.finish_settings, claimed)
                try:
                    finished = await self._mailbox.call(request, heard)
                except trio.Cancelled:
                    if scope.shield:
                        raise  # the time is up
                    scope.shield = True  # withdrawn without effect; it is asked again, and the next checkpoint tells us once more
                except StoreUnavailable as error:
                    scope.shield = True
                    logger.debug("the end of run %s will be recorded later: %s", claimed.run.id, error)  # the store has told it
                    await trio.sleep(pause)
                    pause = min(2 * pause, 1.0)
        finally:
            self._recording.discard(scope)
            if scope.shield or self._interrupted:
                scope.shield, scope.deadline = False, math.inf
            if finished is None:
                logger.warning(
                    "the end of run %s (%s) could not be recorded: the store did not answer", claimed.run.id, ending.status
                )
        if finished.run is None:
            logger.warning("run %s of job %s was taken over: its end has no effect", claimed.run.id, shorten(claimed.job.name))
        return finished


def _failed(claimed: Claimed, error: BaseException) -> Outcome:
    """The outcome of a run that raised; the traceback is for the log."""
    if logger.isEnabledFor(logging.INFO):
        shown = without_prompt(traceback_of(error), claimed.job.prompt)
        logger.info("run %s of job %s failed:%s", claimed.run.id, shorten(claimed.job.name), shown)
    return failure(error)
