"""A run that is being carried out, and what its end means: return value, exception, or cancellation as an outcome."""

from __future__ import annotations

import random

import attrs
import trio

from cronactors.actors.callbacks import describe, leaves
from cronactors.errors import GiveUp, Retry
from cronactors.ledger.claim import Claimed
from cronactors.model import Cause, JobResult, RunStatus
from cronactors.policy import MAX_ERROR, MAX_SUMMARY, Outcome, kept
from cronactors.spec import MAX_DELAY, MAX_NAME

INTERRUPTED = Outcome(status=RunStatus.FAILED, cause=Cause.INTERRUPTED, error="interrupted: the scheduler was closed")
CANCELLED = Outcome(status=RunStatus.CANCELLED, cause=Cause.CANCELLED, error="cancelled on request")
REPLACED = Outcome(status=RunStatus.CANCELLED, cause=Cause.REPLACED, error="cancelled for the next moment of its job")


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


@attrs.frozen
class Ending:
    """A run whose executor has ended, and how; not recorded yet."""

    running: Running
    outcome: Outcome


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
    # A nursery makes a group of a single one too.
    parts = [leaf for leaf in leaves(error) if not isinstance(leaf, trio.Cancelled)]
    if any(isinstance(part, GiveUp) for part in parts):
        return Outcome(status=RunStatus.FAILED, cause=Cause.GAVE_UP, error=text)
    after: float | None = None
    if len(parts) == 1 and isinstance(parts[0], Retry) and parts[0].after is not None:
        after = min(parts[0].after, MAX_DELAY)
    return Outcome(
        status=RunStatus.FAILED,
        cause=Cause.ERROR,
        error=text,
        retry_after=after,
        spread=random.random(),  # noqa: S311 - spreads retries, guards nothing
    )
