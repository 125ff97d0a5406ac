"""The runs that are being carried out here: who waits for their end, which are to be cancelled, which do not end."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import attrs
import trio

from cronactors.actors.actor_requests import MarkStuck
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.outcomes import CANCELLED, INTERRUPTED, REPLACED
from cronactors.actors.user_code import stack_of
from cronactors.errors import CronError, shorten
from cronactors.model import Cause
from cronactors.policy import Outcome
from cronactors.storage.rows import Claimed

logger = logging.getLogger("cronactors.runner")

NOTE_LIMIT = 1.0
"""Seconds that it is tried to note in the file which runs do not end; the log has told of them already."""


@attrs.define(eq=False)
class Running:
    """A run that is being carried out.

    Attributes:
        claimed: The run and its job.
        task: The runner's task, whose stack shows where the executor is.
        scope: Round the executor. Its deadline is the timeout; cancelled to end the run early, and `verdict` says what it is then.
        asked_at: When it was cancelled early, on trio's clock.
        over: The executor has ended; the end is being recorded.
        reported: It has been reported as not ending.
        missed: How many looks in a row did not find it in the file.
    """

    claimed: Claimed
    task: trio.lowlevel.Task
    scope: trio.CancelScope
    verdict: Outcome = INTERRUPTED
    asked_at: float | None = None
    over: bool = False
    reported: bool = False
    missed: int = 0

    def cancel(self, verdict: Outcome) -> None:
        """End it early; the first verdict stands."""
        if self.asked_at is None:
            self.verdict = verdict
            self.asked_at = trio.current_time()
            self.scope.cancel()

    @property
    def cancelled_early(self) -> bool:
        """Whether somebody cancelled it before its timeout had come."""
        return self.asked_at is not None and self.asked_at < self.scope.deadline

    @property
    def cancelled_at(self) -> float:
        """When it was, or will be, cancelled: by somebody or by the timeout."""
        return self.scope.deadline if self.asked_at is None else min(self.asked_at, self.scope.deadline)


class RunsInFlight:
    """The runs of a pool.

    Args:
        mailbox: The store's.
        cancel_grace: Seconds after which a run that was cancelled is reported as not ending.
    """

    def __init__(self, mailbox: Mailbox, cancel_grace: float) -> None:
        self._mailbox = mailbox
        self._cancel_grace = cancel_grace
        self._runs: dict[int, Running] = {}
        self._waiters: dict[int, list[trio.Event]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._runs)

    def add(self, running: Running) -> None:
        """A run has begun here."""
        self._runs[running.claimed.run.id] = running

    def remove(self, running: Running) -> None:
        """A run is over, and recorded if it could be: let those look who wait for it."""
        run_id = running.claimed.run.id
        del self._runs[run_id]
        for event in self._waiters.get(run_id, ()):
            event.set()

    def cancel_all(self) -> None:
        """Interrupt all of them."""
        for running in list(self._runs.values()):
            running.cancel(INTERRUPTED)

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

    def reconcile(self, in_file: Mapping[int, Cause | None]) -> list[int]:
        """Compare with the file's RUNNING rows of this scheduler: cancel what was asked to be, and what is ours no longer.

        Args:
            in_file: Their ids, and why they are to be cancelled, if they are.

        Returns:
            Ids of rows that no runner holds.
        """
        for run_id, running in self._runs.items():
            cause = in_file.get(run_id)
            if cause is not None:
                running.cancel(REPLACED if cause is Cause.REPLACED else CANCELLED)
            running.missed = 0 if run_id in in_file or running.over else running.missed + 1
            if running.missed > 1:  # the first time its claim or its end may just be on the way
                logger.warning("run %s of job %s was taken over: it is cancelled here", run_id, shorten(running.claimed.job.name))
                running.cancel(INTERRUPTED)
        return [run_id for run_id in in_file if run_id not in self._runs]

    def next_report(self) -> float:
        """When `report_stuck` may have something to report, on trio's clock."""
        cancelled = (running.cancelled_at for running in self._runs.values() if not running.over and not running.reported)
        return min(cancelled, default=math.inf) + self._cancel_grace

    async def report_stuck(self) -> None:
        """Report runs that do not end although they were cancelled, once each, with the stack of the task."""
        now = trio.current_time()
        stuck: dict[int, Cause] = {}
        for run_id, running in self._runs.items():
            if running.over or running.reported or now < running.cancelled_at + self._cancel_grace:
                continue
            running.reported = True
            stuck[run_id] = (running.verdict.cause or Cause.CANCELLED) if running.cancelled_early else Cause.TIMEOUT
            logger.error(
                "run %s of job %s goes on %.1f s after it was cancelled (%s); it keeps its slot. Its task is at:\n%s",
                run_id,
                shorten(running.claimed.job.name),
                self._cancel_grace,
                stuck[run_id],
                stack_of(running.task),
            )
        if stuck:
            await self._note(stuck)

    async def _note(self, stuck: Mapping[int, Cause]) -> None:
        reason: object = "the store did not answer"
        with trio.move_on_after(NOTE_LIMIT):
            try:
                await self._mailbox.call(MarkStuck(tuple(stuck.items())))
            except CronError as error:
                reason = error
            else:
                return
        logger.warning("runs %s could not be marked as stuck: %s", ", ".join(map(str, stuck)), reason)
