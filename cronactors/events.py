"""Events: the changes that a scheduler has just committed, as values. `CronScheduler.events` streams them.

They carry ids, names, times, statuses and causes, and never a prompt, data or a result.
"""

from __future__ import annotations

from datetime import datetime
from typing import Self, TypeAlias

import attrs

from cronactors.model import Cause, CronRun, RunStatus, Trigger


@attrs.frozen(kw_only=True)
class JobEvent:
    """An event of a job.

    Attributes:
        job_id: The job.
        job_name: Its name.
        user_id: Whose job it is; None for the agent's own.
    """

    job_id: str
    job_name: str
    user_id: str | None


@attrs.frozen(kw_only=True)
class JobAdded(JobEvent):
    """A job was added."""


@attrs.frozen(kw_only=True)
class JobChanged(JobEvent):
    """A job was edited, paused or resumed, or is done.

    Attributes:
        enabled: False if it is paused or done.
    """

    enabled: bool


@attrs.frozen(kw_only=True)
class JobRemoved(JobEvent):
    """A job was removed."""


@attrs.frozen(kw_only=True)
class RunEvent:
    """An event of a run; the run is as the commit left it.

    Attributes:
        run_id: The run.
        job_id: Its job.
        job_name: The name of the job at that time.
        user_id: Whose job it is; None for the agent's own.
        scheduled_at: The moment, UTC.
        attempt: From 1, interruptions included.
        trigger: Why the run was created.
        coalesced: How many moments the run stands for, counted to 1,000.
        status: Its status.
        cause: Why it did not succeed.
        started_at: UTC; None if it has not started.
        completed_at: UTC; None until it has finished.
    """

    run_id: str
    job_id: str
    job_name: str
    user_id: str | None
    scheduled_at: datetime
    attempt: int
    trigger: Trigger
    coalesced: int
    status: RunStatus
    cause: Cause | None
    started_at: datetime | None
    completed_at: datetime | None

    @classmethod
    def of(cls, run: CronRun) -> Self:
        """Make the event of a run."""
        return cls(
            run_id=run.id,
            job_id=run.job_id,
            job_name=run.job_name,
            user_id=run.user_id,
            scheduled_at=run.scheduled_at,
            attempt=run.attempt,
            trigger=run.trigger,
            coalesced=run.coalesced,
            status=run.status,
            cause=run.cause,
            started_at=run.started_at,
            completed_at=run.completed_at,
        )


@attrs.frozen(kw_only=True)
class RunRequested(RunEvent):
    """A run was requested, and is pending."""


@attrs.frozen(kw_only=True)
class RunWaiting(RunEvent):
    """A moment came due whose run has to wait: for a run of its job, for its session, or because of a crash loop."""


@attrs.frozen(kw_only=True)
class RunStarted(RunEvent):
    """A run was claimed; its executor is called next."""


@attrs.frozen(kw_only=True)
class RunFinished(RunEvent):
    """A run has finished: it succeeded, failed or was cancelled. One that was cancelled while it was pending has no ``started_at``."""


@attrs.frozen(kw_only=True)
class RunInterrupted(RunEvent):
    """A run has finished as failed because its process, or its scheduler, ended before it did."""


@attrs.frozen(kw_only=True)
class MomentSkipped(RunEvent):
    """Moments were recorded as skipped; ``cause`` says why."""


@attrs.frozen(kw_only=True)
class RetryScheduled(RunEvent):
    """A retry of a moment is pending; its ``trigger`` is RETRY, or RECOVERY after an interruption.

    Attributes:
        retry_at: When it may start, UTC; None: at once.
    """

    retry_at: datetime | None = None


@attrs.frozen(kw_only=True)
class ClockJumped:
    """The wall clock was set.

    Attributes:
        seconds: By how much (s); negative: back.
        now: The time that it shows now, UTC.
    """

    seconds: float
    now: datetime


@attrs.frozen(kw_only=True)
class StoreFailed:
    """The store has failed. Actors try again, and `StoreWorking` follows when it works again.

    Attributes:
        reason: The error.
    """

    reason: str


@attrs.frozen(kw_only=True)
class StoreWorking:
    """The store works again."""


@attrs.frozen(kw_only=True)
class EventsLost:
    """Events that the reader of a stream did not take in time, in their place.

    Attributes:
        count: How many.
    """

    count: int


Event: TypeAlias = (
    JobAdded
    | JobChanged
    | JobRemoved
    | RunRequested
    | RunWaiting
    | RunStarted
    | RunFinished
    | RunInterrupted
    | MomentSkipped
    | RetryScheduled
    | ClockJumped
    | StoreFailed
    | StoreWorking
    | EventsLost
)
"""Any event of a stream."""
