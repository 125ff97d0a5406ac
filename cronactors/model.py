"""The values that users see: jobs, runs, contexts, results. All frozen; keyword-only, so that they are easy to make in a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Final, TypeAlias, TypedDict

import attrs

from cronactors.errors import InvalidJob, shorten
from cronactors.schedule import Schedule


class SessionMode(StrEnum):
    """Whether a run has a session of its own, or shares its user's main session."""

    ISOLATED = "isolated"
    MAIN = "main"


class Overlap(StrEnum):
    """What becomes of a moment that comes due while the job's own last run goes on."""

    SKIP = "skip"
    ALLOW_ALL = "allow_all"


class RunStatus(StrEnum):
    """Where a run stands. It only moves forward; a further attempt is a run of its own."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def ended(self) -> bool:
        """Whether the run has its final status."""
        return self not in (RunStatus.PENDING, RunStatus.RUNNING)


class Trigger(StrEnum):
    """What brought a run about."""

    SCHEDULE = "schedule"
    RETRY = "retry"
    MANUAL = "manual"
    RECOVERY = "recovery"


class Cause(StrEnum):
    """Why a run ended other than by success, or why it is about to."""

    ERROR = "error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    REPLACED = "replaced"
    REMOVED = "removed"
    OVERLAP = "overlap"
    MISFIRE = "misfire"
    GAVE_UP = "gave_up"


class Everybody(Enum):
    """The type of ``ALL``."""

    ALL = "all"


ALL: Final = Everybody.ALL
"""Everybody's jobs or runs, where ``None`` means those of the agent itself."""


@attrs.frozen(kw_only=True)
class Misfire:
    """What becomes of moments that were missed. Only the default is there yet: any number of them makes one late run.

    Raises:
        InvalidJob: Another value than the default.
    """

    window: timedelta | None = None
    coalesce: str = "latest"
    max_runs: int = 100

    def __attrs_post_init__(self) -> None:
        """Refuse what is not there yet."""
        for field, default in (("window", None), ("coalesce", "latest"), ("max_runs", 100)):
            value = getattr(self, field)
            if type(value) is not type(default) or value != default:
                raise InvalidJob(f"misfire {field} {shorten(value)} is not there yet, only {default!r}")


@attrs.frozen(kw_only=True)
class CronJob:
    """A stored job, as it was when it was read.

    Attributes:
        id: Made when the job is added, never used again.
        name: Unique among the jobs of one user.
        prompt: What the executor is to do.
        schedule: When.
        timezone: IANA name of the zone in which the schedule is meant.
        enabled: False while paused, and once a one-shot is done.
        delete_after_run: Whether the job goes after its first moment succeeded or its retries are spent.
        created_at: UTC.
        last_run_at: Start of the last run, UTC.
        next_run_at: The next moment that is not decided yet, UTC; None while paused and when none is left.
        retry_count: Failures and timeouts of the moment whose retry is pending or running.
        max_retries: How many failures and timeouts of one moment are tried again.
        last_error: Why the last attempt failed; None after a success.
        retry_at: When the pending retry may start, UTC.
        timeout_secs: Seconds after which a run is cancelled.
        session_mode: Own session, or the user's main session.
        user_id: Whose job it is; None for the agent's own.
        overlap: What becomes of a moment that comes due while a run of this job goes on.
        misfire: What becomes of missed moments.
    """

    id: str
    name: str
    prompt: str
    schedule: Schedule
    timezone: str = "UTC"
    enabled: bool = True
    delete_after_run: bool = False
    created_at: datetime
    last_run_at: datetime | None = None
    next_run_at: datetime | None = None
    retry_count: int = 0
    max_retries: int = 3
    last_error: str | None = None
    retry_at: datetime | None = None
    timeout_secs: float = 7200
    session_mode: SessionMode = SessionMode.ISOLATED
    user_id: str | None = None
    overlap: Overlap = Overlap.SKIP
    misfire: Misfire = Misfire()


@attrs.frozen(kw_only=True)
class JobContext:
    """What an executor is told about the run that it carries out.

    Attributes:
        prompt: What to do.
        session_mode: Own session, or the user's main session.
        job_name: The job's name.
        job_id: The job's id.
        user_id: Whose job it is; None for the agent's own.
        run_id: This attempt's id in the history.
        scheduled_at: The moment this run stands for, UTC; it may have been missed and be long past.
        attempt: 1 for the first start of the moment; interruptions count.
    """

    prompt: str
    session_mode: SessionMode
    job_name: str
    job_id: str
    user_id: str | None
    run_id: str
    scheduled_at: datetime
    attempt: int


@attrs.frozen(kw_only=True)
class JobResult:
    """What an executor returns on success.

    Attributes:
        session_id: The session that the job made or used, for routing notifications.
        summary: What came of it.
    """

    session_id: str = ""
    summary: str = ""


@attrs.frozen(kw_only=True)
class CronRun:
    """One attempt of one moment, as it stands in the history.

    Attributes:
        id: Also the fencing token: later runs have greater numbers.
        job_id: The job's id; it may have been removed since.
        job_name: The job's name at that time.
        user_id: Whose job it was.
        scheduled_at: The moment, UTC.
        attempt: From 1, interruptions included.
        trigger: What brought the run about.
        started_at: UTC; None if it has not started, or never did.
        completed_at: UTC; None while it is open.
        status: Where it stands.
        cause: Why it ended other than by success; of a run still RUNNING, why it is being stopped.
        result_summary: What the executor returned.
        error: What went wrong.
        session_id: The session that the executor named.
        coalesced: How many moments the run stands for, counted to 1,000.
    """

    id: str
    job_id: str
    job_name: str
    user_id: str | None
    scheduled_at: datetime
    attempt: int
    trigger: Trigger
    started_at: datetime | None = None
    completed_at: datetime | None = None
    status: RunStatus
    cause: Cause | None = None
    result_summary: str | None = None
    error: str | None = None
    session_id: str = ""
    coalesced: int = 1


class JobOptions(TypedDict, total=False):
    """The optional fields of a new job; see `JobSpec`."""

    delete_after_run: bool
    timezone: str | None
    max_retries: int | None
    timeout_secs: float | None
    session_mode: SessionMode
    user_id: str | None
    overlap: Overlap
    misfire: Misfire


class JobChanges(TypedDict, total=False):
    """What `CronStore.update_job` can change."""

    name: str
    prompt: str
    schedule: Schedule
    timezone: str
    delete_after_run: bool
    max_retries: int
    timeout_secs: float
    session_mode: SessionMode
    overlap: Overlap
    misfire: Misfire


JobExecutor: TypeAlias = Callable[[JobContext], Awaitable[JobResult | str | None]]
"""Carries out one run. Returning is success; raising is failure; cancellation means timeout, cancel or shutdown."""

NotificationSender: TypeAlias = Callable[[str, str, str, bool], Awaitable[None]]
"""Told job name, session id ("" on failure), result (at most 500 characters) and success, after the record is durable."""

RunObserver: TypeAlias = Callable[[CronJob, CronRun], Awaitable[None]]
"""Told the records of a finished run, under the same rules as a `NotificationSender`."""
