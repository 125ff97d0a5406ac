"""The runs that the runners of one scheduler have: one is a `RunInHand`, all are the `RunsInFlight`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import attrs
import trio

from cronactors import log_fields
from cronactors.actors.actor_requests import MarkStuck
from cronactors.actors.async_value import AsyncValue
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.outcomes import CANCELLED, INTERRUPTED, REPLACED
from cronactors.actors.output import LiveRun, OutputWriter
from cronactors.actors.tracebacks import stack_of
from cronactors.errors import CronError, shorten
from cronactors.ledger.alerting import StuckRun
from cronactors.model import Cause
from cronactors.policy import Outcome
from cronactors.storage.rows import Claimed

logger = logging.getLogger("cronactors.runner")

STUCK_MARK_LIMIT = 1.0
"""How long (s) we try to mark runs in the store as stuck. The log has reported them already."""


@attrs.define(eq=False)
class RunInHand:
    """A run on its way from claim to notification.

    Attributes:
        claimed: The run and its job, as they were claimed.
        task: The task whose stack shows where the executor is.
        live: The run as its executor sees it, which collects its reports.
        scope: The scope around the executor. Its deadline is the timeout; `cancel` cancels it earlier.
        outcome: How the executor ended; None while it is still running.
        is_finishing: The executor and all that it started have ended; the outcome is being stored, or has been.
        next_claimed: The run that the same transaction claimed for this slot, if any.
        cancel_outcome: The outcome if `cancel` ends the run.
        cancel_called_at: When `cancel` was called, on trio's clock.
        is_reported: The run has been reported as stuck.
        times_missing: How many snapshots in a row did not show it.
    """

    claimed: Claimed
    task: trio.lowlevel.Task
    live: LiveRun
    scope: trio.CancelScope
    outcome: Outcome | None = None
    is_finishing: bool = False
    next_claimed: Claimed | None = None
    cancel_outcome: Outcome = INTERRUPTED
    cancel_called_at: float | None = None
    is_reported: bool = False
    times_missing: int = 0

    @classmethod
    def start(cls, claimed: Claimed, output: OutputWriter) -> RunInHand:
        """Make one in the current task. Its timeout begins now."""
        deadline = trio.current_time() + claimed.job.timeout_secs
        live = LiveRun(claimed.run, output)
        return cls(claimed, trio.lowlevel.current_task(), live, trio.CancelScope(deadline=deadline))

    def cancel(self, outcome: Outcome) -> None:
        """Cancel the executor with this outcome; if it was cancelled before, the first outcome stays."""
        if self.cancel_called_at is None:
            self.cancel_outcome = outcome
            self.cancel_called_at = trio.current_time()
            self.scope.cancel()

    @property
    def cancel_called_before_timeout(self) -> bool:
        """Whether `cancel` was called before the timeout was over."""
        return self.cancel_called_at is not None and self.cancel_called_at < self.scope.deadline

    @property
    def cancelled_at(self) -> float:
        """When it was, or will be, cancelled by `cancel` or by its timeout, on trio's clock."""
        requested_at = self.cancel_called_at
        return self.scope.deadline if requested_at is None else min(requested_at, self.scope.deadline)


class RunsInFlight:
    """The runs in hand of all runners, and the tasks that wait for one of them.

    Args:
        mailbox: The mailbox of the store.
        cancel_grace: How long (s) a cancelled run may still be running before it is reported as stuck.

    Attributes:
        first_report: When a run may have to be reported as stuck, at the earliest, on trio's clock.
    """

    def __init__(self, mailbox: Mailbox, cancel_grace: float) -> None:
        self._mailbox = mailbox
        self._cancel_grace = cancel_grace
        self.first_report = AsyncValue(math.inf)
        self._runs: dict[int, RunInHand] = {}
        self._waiters: dict[int, list[trio.Event]] = {}

    def __len__(self) -> int:
        """Count them."""
        return len(self._runs)

    def add(self, run: RunInHand) -> None:
        """Add a run that has started."""
        self._runs[run.claimed.run.id] = run
        stuck_at = run.scope.deadline + self._cancel_grace
        if stuck_at < self.first_report.value:  # noqa: PLR1730 - to set the same value again costs each run 1 us
            self.first_report.value = stuck_at

    def remove(self, run: RunInHand) -> None:
        """Remove a run that has ended, and wake the tasks that wait for it."""
        run_id = run.claimed.run.id
        del self._runs[run_id]
        for event in self._waiters.get(run_id, ()):
            event.set()

    def cancel_all(self) -> None:
        """Interrupt every run."""
        for run in list(self._runs.values()):
            run.cancel(INTERRUPTED)

    # Waiting for a run

    @contextmanager
    def waiting_for(self, run_id: int) -> Iterator[trio.Event]:
        """Give an event that is set when the run ends here, or may have been finished elsewhere."""
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
        """Let every task that waits for a run check it again."""
        for event in chain.from_iterable(self._waiters.values()):
            event.set()

    # What the patrol does with them

    def reconcile(self, in_store: Mapping[int, Cause | None]) -> list[int]:
        """Compare with the running rows of this scheduler: cancel runs for which that was requested, and runs that were taken over.

        Args:
            in_store: Their ids, each with the cause for which it should be cancelled, if any.

        Returns:
            The ids of rows that no runner has.
        """
        for run_id, run in self._runs.items():
            cause = in_store.get(run_id)
            if cause is not None:
                run.cancel(REPLACED if cause is Cause.REPLACED else CANCELLED)
            run.times_missing = 0 if run_id in in_store or run.is_finishing else run.times_missing + 1
            if run.times_missing > 1:  # the first time, the reply to its claim or its finish may be on its way
                logger.warning(
                    "run %s of job %s was taken over: cancelling it here",
                    run_id,
                    shorten(run.claimed.job.name),
                    extra=log_fields.of_run(run.claimed.run),
                )
                run.cancel(INTERRUPTED)
        return [run_id for run_id in in_store if run_id not in self._runs]

    async def report_stuck(self) -> None:
        """Log the runs that are still running although they were cancelled, once each, with the stack of their task."""
        now = trio.current_time()
        stuck: list[StuckRun] = []
        for run_id, run in self._runs.items():
            if run.is_finishing or run.is_reported or now < run.cancelled_at + self._cancel_grace:
                continue
            run.is_reported = True
            cause = (run.cancel_outcome.cause or Cause.CANCELLED) if run.cancel_called_before_timeout else Cause.TIMEOUT
            stuck.append(StuckRun(run_id, cause, round((now - run.cancelled_at) * 1000)))
            logger.error(
                "run %s of job %s is still running %.1f s after it was cancelled (%s); it keeps its slot. Its task is at:\n%s",
                run_id,
                shorten(run.claimed.job.name),
                self._cancel_grace,
                cause,
                stack_of(run.task),
                extra=log_fields.of_run(run.claimed.run),
            )
        cancelled = (run.cancelled_at for run in self._runs.values() if not (run.is_finishing or run.is_reported))
        self.first_report.value = min(cancelled, default=math.inf) + self._cancel_grace
        if stuck:
            await self._mark(stuck)

    async def _mark(self, stuck: Sequence[StuckRun]) -> None:
        reason: object = "the store did not reply"
        with trio.move_on_after(STUCK_MARK_LIMIT):
            try:
                await self._mailbox.call(MarkStuck(tuple(stuck)))
            except CronError as error:
                reason = error
            else:
                return
        logger.warning("runs %s could not be marked as stuck: %s", ", ".join(str(run.run_id) for run in stuck), reason)
