"""Makes the outcome of a run durable, and hands its notifications to the receivers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from cronactors import log_fields
from cronactors.actors.actor_requests import Finished, FinishRun, FinishSettings
from cronactors.actors.mailbox import RETRY_PAUSES, Mailbox
from cronactors.actors.receivers import Receivers
from cronactors.actors.stopping import StopDeadline
from cronactors.backoff import backoff
from cronactors.errors import StoreUnavailable, shorten
from cronactors.ledger.run_output import NewOutput
from cronactors.model import Cause
from cronactors.policy import Outcome
from cronactors.settings import RetryPolicy
from cronactors.storage.rows import Claimed

logger = logging.getLogger("cronactors.runner")


class Finisher:
    """Finishes runs: one request to the store, tried again for as long as the store fails, since an outcome is never dropped.

    Only a stop has a limit. What could not be made durable until then is recovered at the next start.

    Args:
        mailbox: The mailbox of the store.
        receivers: Notified of finished runs.
        owner: The scheduler's number in the store.
        policy: The delays of retries.
        total: How many runs may be running at a time over all owners of the file; None: no limit.
        may_claim: Whether a finish may claim the next run for its slot.

    Attributes:
        settings: Shared by all finishes of this scheduler.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        receivers: Receivers,
        *,
        owner: int,
        policy: RetryPolicy,
        total: int | None,
        may_claim: Callable[[], bool],
    ) -> None:
        self.settings = FinishSettings(owner=owner, policy=policy, total=total, receivers=receivers.names)
        self._mailbox = mailbox
        self._on_commit = self._notify if receivers.names else None
        self._receivers = receivers
        self._may_claim = may_claim
        self._stop: StopDeadline | None = None
        self._scopes: set[trio.CancelScope] = set()

    @contextmanager
    def limited(self, *, shield: bool = False) -> Iterator[None]:
        """Open a scope that `limit` gives a deadline."""
        deadline = math.inf if self._stop is None else self._stop.at
        with trio.CancelScope(shield=shield, deadline=deadline) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def limit(self, stop: StopDeadline) -> None:
        """Try until the deadline of a stop at most, from now on."""
        self._stop = stop
        until = stop.extend()
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, until)

    async def finish(self, claimed: Claimed, outcome: Outcome, output: NewOutput | None = None) -> Finished | None:
        """Finish a run. Cancelled, it is still finished; the next checkpoint raises the cancellation.

        Args:
            claimed: The run.
            outcome: Its outcome.
            output: Reports of the run that are not stored yet; None if it made none.

        Returns:
            The run as it is now, and the run that was claimed for its slot; None if a stop was over before the store worked
            again.
        """
        finished: Finished | None = None
        if self._stop is not None:
            self._stop.extend()  # an executor that shielded itself may have used up the time
        try:
            try:
                finished = await self._mailbox.call(self._request(claimed, outcome, output), self._on_commit)
            except (trio.Cancelled, StoreUnavailable):  # withdrawn or rolled back, or its reply was lost
                finished = await self._keep_trying(claimed, outcome, output)
        finally:
            if finished is None:
                logger.warning(
                    "the outcome of run %s (%s) could not be stored",
                    claimed.run.id,
                    outcome.status,
                    extra=log_fields.of_run(claimed.run),
                )
        if finished is not None and finished.run is None:
            logger.warning(
                "the outcome of run %s of job %s has no effect: the run was taken over, or finished otherwise",
                claimed.run.id,
                shorten(claimed.job.name),
                extra=log_fields.of_run(claimed.run),
            )
        return finished

    async def _keep_trying(self, claimed: Claimed, outcome: Outcome, output: NewOutput | None) -> Finished | None:
        """Try again, shielded. Only the few runs that come here pay for a scope of their own (5 us)."""
        pauses = backoff(*RETRY_PAUSES)
        finished: Finished | None = None
        with self.limited(shield=True):
            while finished is None:
                try:
                    finished = await self._mailbox.call(self._request(claimed, outcome, output, again=True), self._on_commit)
                except StoreUnavailable as error:  # which the store has logged
                    logger.debug("the outcome of run %s will be stored later: %s", claimed.run.id, error)
                    await trio.sleep(next(pauses))
        return finished

    def _request(self, claimed: Claimed, outcome: Outcome, output: NewOutput | None, *, again: bool = False) -> FinishRun:
        claim_next = outcome.cause is not Cause.INTERRUPTED and self._may_claim()
        return FinishRun(claimed.run.id, outcome, claim_next, self.settings, claimed, output, again)

    def _notify(self, finished: Finished) -> None:
        """Hand notifications to the receivers. Called by the store actor, in the order of its commits."""
        if finished.notifications:
            self._receivers.written(finished.notifications)
