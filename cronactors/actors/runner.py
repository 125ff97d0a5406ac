"""A runner actor: carries out one run after another, in one task.

We do not open a nursery for each run: that would cost 33 us of the some 55 that a run takes (docs/performance.md). Instead the
runs of a runner share a `Sandbox`, a nursery and a task that are thrown away as soon as an executor leaves something behind in
them. Nor do we return to the clock between two runs: the transaction that finishes a run claims the next one for the same slot.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from outcome import Maybe, Value

from cronactors import log_fields
from cronactors.actors.exception_groups import find_exit
from cronactors.actors.exits import actor
from cronactors.actors.failure_log import FailureLog, without_prompt
from cronactors.actors.outcomes import INTERRUPTED, failure, success, timed_out
from cronactors.actors.output import LiveRun
from cronactors.actors.pool import RunnerPool
from cronactors.actors.run_in_hand import RunInHand
from cronactors.actors.tracebacks import describe, traceback_of
from cronactors.actors.user_code import Sandbox, cancelled_from_outside, inside_user_code
from cronactors.errors import one_line, shorten
from cronactors.ledger.views import context_of
from cronactors.model import Cause, JobContext, RunStatus
from cronactors.policy import Outcome
from cronactors.run_context import current
from cronactors.storage.rows import Claimed

logger = logging.getLogger("cronactors.runner")


class Runner:
    """Serves one slot of a pool.

    Args:
        pool: Where claimed runs come from, and finished ones go to.
        failures: The log of failed runs, shared by all runners.
        escape: Called with a KeyboardInterrupt or SystemExit that an executor raised: it ends the program.
    """

    def __init__(self, pool: RunnerPool, failures: FailureLog, escape: Callable[[BaseException], None]) -> None:
        self._pool = pool
        self._failures = failures
        self._escape = escape
        self._is_closed = False

    @actor
    async def run(self) -> None:
        """Carry out runs until the pool is closed. Cancelled, the run in hand is still finished."""
        inside_user_code.set("a run")
        claimed: Claimed | None = None
        with self._pool.finisher.limited():
            while not self._is_closed:
                sandbox = Sandbox()
                run = await sandbox.run(partial(self._carry_out, claimed))
                claimed = await self._after_sandbox(sandbox, run)

    async def _carry_out(self, claimed: Claimed | None, sandbox: Sandbox) -> RunInHand | None:
        """Carry out one run after another, the first one given or received, as long as the sandbox is clean.

        Returns:
            The run whose executor left something behind, which may not be finished yet; None once the pool is closed.
        """
        while True:
            if claimed is None:
                try:
                    claimed = await self._pool.receive()
                except trio.EndOfChannel:
                    self._is_closed = True
                    return None
            run = RunInHand.start(claimed, self._pool.output)
            await self._execute(run, sandbox)
            if sandbox.is_spent():
                run.task = sandbox.visible_task
                return run
            await self._finish(run)
            if sandbox.is_cancelled():  # a task that appeared meanwhile belongs to the next run
                return run
            claimed = run.next_claimed

    async def _after_sandbox(self, sandbox: Sandbox, run: RunInHand | None) -> Claimed | None:
        """Finish the run for which a sandbox was thrown away. Return the run that follows it in this slot, if any."""
        if sandbox.stray_error is not None:
            self._apply_stray_error(sandbox, run, sandbox.stray_error)
        if run is None:
            return None
        if not run.is_finishing:
            await self._finish(run)
        return run.next_claimed

    # Executing

    async def _execute(self, run: RunInHand, sandbox: Sandbox) -> None:
        """Let the executor carry the run out, and set its outcome."""
        self._pool.in_flight.add(run)
        if self._pool.is_interrupted:
            run.cancel(INTERRUPTED)
        try:
            result = await sandbox.call(run.scope, self._call_executor, run.live, context_of(run.claimed))
            run.outcome = self._outcome_of(run, sandbox, result)
        except BaseException:  # a bug of this package, or a damaged file: it ends the scheduler, which must not wait for this run
            self._pool.end_run(run)
            raise

    def _call_executor(self, live: LiveRun, context: JobContext) -> Awaitable[object]:
        """Call the executor with its current run. Inside the sandbox's call, which undoes context variables."""
        current.set(live)
        return self._pool.settings.executor(context)

    def _outcome_of(self, run: RunInHand, sandbox: Sandbox, result: Maybe[object] | None) -> Outcome:
        """Decide the outcome of a run from what its executor returned or raised. A value is success, even after the timeout."""
        if isinstance(result, Value):
            return success(result.value)
        error = None if result is None else result.error
        if error is not None and isinstance(self._let_escape(error), KeyboardInterrupt):
            return INTERRUPTED
        if sandbox.is_cancelled():  # `_apply_stray_error` replaces it if a task there raised an exception
            return failure(RuntimeError("the executor cancelled the nursery that it was called in"))
        return _why_cancelled(run) or (INTERRUPTED if error is None else self._failed(run, error))

    def _apply_stray_error(self, sandbox: Sandbox, run: RunInHand | None, error: BaseException) -> None:
        """Make an exception of tasks that an executor started around itself the failure of its run."""
        escaped = self._let_escape(error)
        if run is None or run.outcome is None or run.is_finishing:
            logger.warning("a task that an executor left in its nursery failed: %s", one_line(describe(error)))
        elif isinstance(escaped, KeyboardInterrupt):
            run.outcome = INTERRUPTED
        elif run.outcome.status is RunStatus.SUCCESS or (sandbox.was_cancelled and run.outcome.cause is Cause.ERROR):
            run.outcome = INTERRUPTED if cancelled_from_outside() else self._failed(run, error)

    def _let_escape(self, error: BaseException) -> BaseException | None:
        """Let a KeyboardInterrupt or SystemExit in an error end the scheduler, and return it."""
        escaped = find_exit(error)
        if escaped is not None:
            self._escape(escaped)
            self._pool.interrupt_if_stopping()
        return escaped

    def _failed(self, run: RunInHand, error: BaseException) -> Outcome:
        """Return the outcome of a run that raised, and log its traceback for those who want it."""
        if logger.isEnabledFor(logging.INFO):
            shown = without_prompt(traceback_of(error), run.claimed.job.prompt)
            name, fields = shorten(run.claimed.job.name), log_fields.of_run(run.claimed.run)
            logger.info("run %s of job %s failed:%s", run.claimed.run.id, name, shown, extra=fields)
        return failure(error)

    # Finishing

    async def _finish(self, run: RunInHand) -> None:
        """Make the outcome durable, notify, and take the run that follows in this slot; without one the slot is released."""
        assert run.outcome is not None
        run.is_finishing = True
        self._failures.note(run.claimed, run.outcome)
        try:
            finished = await self._pool.finisher.finish(run.claimed, run.outcome, run.live.end())
            run.next_claimed = None if finished is None else finished.next_claimed
        finally:
            self._pool.end_run(run)


def _why_cancelled(run: RunInHand) -> Outcome | None:
    """Decide the outcome of an executor that was cancelled: what came first counts. None if it was not cancelled."""
    if run.cancel_called_before_timeout:
        return run.cancel_outcome
    timed_out_first = run.cancel_called_at is not None
    if cancelled_from_outside() and not timed_out_first:
        return INTERRUPTED
    return timed_out(run.claimed.job.timeout_secs) if run.scope.cancel_called else None
