"""The values that users see: jobs, runs, contexts, results. All frozen; keyword-only, so that they are easy to make in a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Final, TypeAlias

import attrs

from cronactors import checks
from cronactors.errors import InvalidJob, shorten
from cronactors.executor_options import NO_OPTIONS, ExecutorOptions, Json, check_executor_options
from cronactors.schedules.schedule import Schedule

MAX_COALESCED: Final = 1_000
"""How far moments that one run or one skipped row stands for are counted."""
MAX_WINDOW: Final = timedelta(days=3_660)
"""Longest misfire window."""


class SessionMode(StrEnum):
    """Whether a run has a session of its own, or shares its user's main session."""

    ISOLATED = "isolated"
    MAIN = "main"


class Overlap(StrEnum):
    """What becomes of moments that come due while the job's own last run goes on; the words are Temporal's.

    SKIP: they are skipped. BUFFER_ONE: the first of them runs when the run has ended, the others are skipped. BUFFER_ALL: all of
    them run, one after the other. CANCEL_OTHER: the run is cancelled, and the new one starts when its task has really ended.
    ALLOW_ALL: they run at once, beside it.
    """

    SKIP = "skip"
    BUFFER_ONE = "buffer_one"
    BUFFER_ALL = "buffer_all"
    CANCEL_OTHER = "cancel_other"
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


class Fate(StrEnum):
    """What became of a moment, or what will: see `Explanation`."""

    RUN = "run"
    MERGED = "merged"
    SKIPPED = "skipped"
    WAITING = "waiting"
    WILL_RUN = "will_run"
    NOT_PLANNED = "not_planned"
    NO_MOMENT = "no_moment"


class AllUsers(Enum):
    """The type of ``ALL``."""

    ALL = "all"


ALL: Final = AllUsers.ALL
"""Everybody's jobs or runs, where ``None`` means those of the agent itself."""


class Coalesce(StrEnum):
    """Which run a number of missed moments makes: one at the latest of them, one at the earliest, or one for each."""

    LATEST = "latest"
    EARLIEST = "earliest"
    ALL = "all"


def _window(value: object) -> timedelta | None:
    if value is not None and not (isinstance(value, timedelta) and timedelta() <= value <= MAX_WINDOW):
        raise InvalidJob(f"misfire window must be None or a timedelta of 0 to ten years, not {shorten(value)}")
    return value


def _coalesce(value: object) -> Coalesce:
    return checks.member("misfire coalesce", value, InvalidJob, Coalesce)


def _options(value: Mapping[str, Json]) -> ExecutorOptions:
    return check_executor_options("executor_options", value)


def _max_runs(value: object) -> int:
    return checks.whole("misfire max_runs", value, InvalidJob, least=1, most=MAX_COALESCED)


@attrs.frozen(kw_only=True)
class Misfire:
    """What becomes of moments that were missed because nothing was running, or because every slot was taken.

    Args:
        window: Moments later than this are skipped, and recorded so; retries and interrupted runs that could start only later are
            cancelled. None: however late, they count. Whole milliseconds.
        coalesce: ``"latest"``, ``"earliest"``: they make one run. ``"all"``: each makes one, in order.
        max_runs: With ``"all"``: at most so many runs, 1 to 1,000; the moments before them are skipped.

    Raises:
        InvalidJob: A field has a wrong type or value.
    """

    window: timedelta | None = attrs.field(default=None, converter=_window)
    coalesce: Coalesce = attrs.field(default=Coalesce.LATEST, converter=_coalesce)
    max_runs: int = attrs.field(default=100, converter=_max_runs)


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
        executor_options: What the job says to its executor besides the prompt.
    """

    id: str
    name: str
    prompt: str = attrs.field(repr=False)  # it may hold a secret
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
    executor_options: ExecutorOptions = attrs.field(default=NO_OPTIONS, repr=False, converter=_options)  # it may hold a secret


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
        executor_options: What the job says to its executor besides the prompt: a mapping of JSON values. A list or a dict that is
            read from it is a copy.
    """

    prompt: str = attrs.field(repr=False)  # it may hold a secret
    session_mode: SessionMode
    job_name: str
    job_id: str
    user_id: str | None
    run_id: str
    scheduled_at: datetime
    attempt: int
    executor_options: ExecutorOptions = attrs.field(default=NO_OPTIONS, repr=False, converter=_options)  # it may hold a secret


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


@attrs.frozen(kw_only=True)
class Explanation:
    """What became of a moment of a job, or what will.

    Attributes:
        outcome: In a word.
        cause: Why it was skipped, or did not succeed.
        run_id: The run or the skipped row that stands for the moment.
        next: The job's next moment, UTC; None while paused and when none is left.
        text: A sentence or two for people.
    """

    outcome: Fate
    cause: Cause | None = None
    run_id: str | None = None
    next: datetime | None = None
    text: str


JobExecutor: TypeAlias = Callable[[JobContext], Awaitable[JobResult | str | None]]
"""Carries out one run. Returning is success; raising is failure; cancellation means timeout, cancel or shutdown."""

NotificationSender: TypeAlias = Callable[[str, str, str, bool], Awaitable[None]]
"""Told job name, session id ("" on failure), result (at most 500 characters) and success, after the record is durable."""

RunObserver: TypeAlias = Callable[[CronJob, CronRun], Awaitable[None]]
"""Told the records of a finished run, under the same rules as a `NotificationSender`."""
