"""Values that users read: jobs, runs, contexts, results, and the enumerations that they use.

All are frozen. They are keyword-only, which makes them easy to create in a test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Final, TypeAlias

import attrs

from cronactors import checks
from cronactors.errors import InvalidJob, shorten
from cronactors.executor_options import NO_OPTIONS, ExecutorOptions, check_executor_options
from cronactors.job_data import NO_DATA, WithData, convert_result_data, convert_stored_result
from cronactors.json_value import Json, JsonText
from cronactors.retention import History
from cronactors.schedules.schedule import Schedule
from cronactors.tags import convert_tags

MAX_COALESCED: Final = 1_000
"""How far the moments of one run, or of one skipped row, are counted."""
MAX_WINDOW: Final = timedelta(days=3_660)
"""Longest misfire window."""


class SessionMode(StrEnum):
    """Whether a run has a session of its own, or shares its user's main session."""

    ISOLATED = "isolated"
    MAIN = "main"


class Overlap(StrEnum):
    """The policy for moments that come due while the job's own last run is still running; the words are Temporal's.

    SKIP: skip them. BUFFER_ONE: run the first of them when the run has finished, and skip the others. BUFFER_ALL: run all of them, one
    after the other. CANCEL_OTHER: cancel the run, and start the new one once the task of the old one has exited. ALLOW_ALL: run them
    at once, concurrently.
    """

    SKIP = "skip"
    BUFFER_ONE = "buffer_one"
    BUFFER_ALL = "buffer_all"
    CANCEL_OTHER = "cancel_other"
    ALLOW_ALL = "allow_all"


class RunStatus(StrEnum):
    """The status of a run. It only moves forward; a retry is a run of its own."""

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
    """Why a run was created."""

    SCHEDULE = "schedule"
    RETRY = "retry"
    MANUAL = "manual"
    RECOVERY = "recovery"


class Cause(StrEnum):
    """Why a run did not succeed, or is being stopped."""

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
    """The fate of a moment, past or future: see `Explanation`. PRUNED: it is before the history that is kept."""

    RUN = "run"
    MERGED = "merged"
    SKIPPED = "skipped"
    WAITING = "waiting"
    WILL_RUN = "will_run"
    NOT_PLANNED = "not_planned"
    NO_MOMENT = "no_moment"
    PRUNED = "pruned"


class AllUsers(Enum):
    """The type of ``ALL``."""

    ALL = "all"


ALL: Final = AllUsers.ALL
"""The jobs or runs of all users, where ``None`` means those of the agent itself."""


class Coalesce(StrEnum):
    """Which runs missed moments make: one at the latest of them, one at the earliest, or one for each."""

    LATEST = "latest"
    EARLIEST = "earliest"
    ALL = "all"


def _window(value: object) -> timedelta | None:
    if value is not None and not (isinstance(value, timedelta) and timedelta() <= value <= MAX_WINDOW):
        raise InvalidJob(f"misfire window must be None or a timedelta of 0 to ten years, not {shorten(value)}")
    return value


def _coalesce(value: object) -> Coalesce:
    return checks.member("misfire coalesce", value, InvalidJob, Coalesce)


def show_length(prompt: str) -> str:
    """Return the repr of a prompt: its length, as the text may hold a secret."""
    return f"<{len(prompt):,} characters>"


def convert_options(value: Mapping[str, Json]) -> ExecutorOptions:
    """Convert and check the field ``executor_options``."""
    return check_executor_options("executor_options", value)


def _check_flag(_value: object, attribute: attrs.Attribute[bool], value: bool) -> None:
    checks.flag(attribute.name, value, InvalidJob)


def _max_runs(value: object) -> int:
    return checks.whole("misfire max_runs", value, InvalidJob, least=1, most=MAX_COALESCED)


@attrs.frozen(kw_only=True)
class Misfire:
    """The policy for moments that were missed because no scheduler was running, or because every slot was taken.

    Args:
        window: Moments that are late by more than this are recorded as skipped, and retries and interrupted runs that could start only
            later are cancelled. A timedelta of 0 to ten years, in whole milliseconds. None: moments run however late they are.
        coalesce: ``"latest"`` or ``"earliest"``: they make one run. ``"all"``: each makes one, in order.
        max_runs: With ``"all"``: how many runs at most, 1 to 1,000; the moments before them are skipped.

    Raises:
        InvalidJob: A field has a wrong type or value.
    """

    window: timedelta | None = attrs.field(default=None, converter=_window)
    coalesce: Coalesce = attrs.field(default=Coalesce.LATEST, converter=_coalesce)
    max_runs: int = attrs.field(default=100, converter=_max_runs)


@attrs.frozen(kw_only=True)
class Pause:
    """The pause of a job.

    Attributes:
        since: When it was paused, UTC.
        until: When it resumes by itself, UTC; None: when it is resumed.
        note: Why it was paused; "" if nobody said so.
        ended: When it ended, UTC; None: it lasts. Only that of an `Explanation` may have ended.
    """

    since: datetime
    until: datetime | None = None
    note: str = ""
    ended: datetime | None = None


@attrs.frozen(kw_only=True)
class CronJob(WithData):
    """A stored job, as it was when it was read.

    Attributes:
        id: Made when the job is added, and never reused.
        name: Unique among the jobs of one user.
        prompt: The text for the executor.
        schedule: When it runs.
        timezone: IANA name of the zone in which the schedule is meant.
        enabled: False while paused, and once a one-shot is done.
        delete_after_run: Whether the job is removed once its first moment has succeeded or used up its retries.
        created_at: When it was added, UTC.
        last_run_at: Start of the last run, UTC.
        next_run_at: The next moment, UTC; None while paused and when none is left.
        retry_count: Failures and timeouts of the moment whose retry is pending or running.
        max_retries: How many failures and timeouts of one moment are retried.
        last_error: Why the last attempt failed; None after a success.
        retry_at: When the pending retry may start, UTC.
        timeout_secs: How long (s) a run may take before it is cancelled.
        session_mode: Own session, or the user's main session.
        user_id: Whose job it is; None for the agent's own.
        overlap: The policy for a moment that comes due while a run of this job is still running.
        misfire: The policy for missed moments.
        executor_options: Options for the executor, besides the prompt.
        description: What the job is for.
        tags: Words by which it is found, sorted.
        data: The JSON value for its runs; None if there is none. Each access makes a copy.
        history: How much history of this job is kept; None: as the settings of the scheduler say.
        origin: The list that names it, such as the path of an agent.toml; None: none does.
        pause: The pause that it is in; None: it is not paused, or was disabled after crashes or because it cannot be read.
    """

    id: str
    name: str
    prompt: str = attrs.field(repr=show_length)
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
    # The options may hold a secret.
    executor_options: ExecutorOptions = attrs.field(default=NO_OPTIONS, repr=False, converter=convert_options)
    description: str = ""
    tags: tuple[str, ...] = attrs.field(default=(), converter=convert_tags)
    history: History | None = None
    origin: str | None = None
    pause: Pause | None = None


@attrs.frozen(kw_only=True)
class JobContext(WithData):
    """Describes a run to the executor that carries it out.

    Attributes:
        prompt: The text of the job.
        session_mode: Own session, or the user's main session.
        job_name: The job's name.
        job_id: The job's id.
        user_id: Whose job it is; None for the agent's own.
        run_id: This attempt's id in the history.
        scheduled_at: The moment of this run, UTC; if it was missed it may be long past.
        attempt: 1 for the first start of the moment; interruptions count.
        executor_options: The options of the job for its executor: a mapping of JSON values. A list or a dict that is read from it is
            a copy.
        data: The JSON value that the run was requested with, or else that of the job; None if there is none. Each access makes a copy.
    """

    prompt: str = attrs.field(repr=show_length)
    session_mode: SessionMode
    job_name: str
    job_id: str
    user_id: str | None
    run_id: str
    scheduled_at: datetime
    attempt: int
    # The options may hold a secret.
    executor_options: ExecutorOptions = attrs.field(default=NO_OPTIONS, repr=False, converter=convert_options)


@attrs.frozen(kw_only=True)
class JobResult:
    """The result of a successful run, returned by an executor.

    Attributes:
        session_id: The session that the run created or used, for routing notifications.
        summary: A summary of the result, for the history and for notifications.
        data: A JSON value for programs, kept with the run as `CronRun.result_data`: at most 65,536 bytes as JSON. It is copied.
        notify: Whether receivers are notified of the run.

    Raises:
        InvalidJob: ``data`` is no JSON value or too long, or ``notify`` is no bool. Raised inside the executor, it fails the run.
    """

    session_id: str = ""
    summary: str = ""
    _data: JsonText = attrs.field(default=NO_DATA, repr=False, converter=convert_result_data)
    notify: bool = attrs.field(default=True, validator=_check_flag)

    @property
    def data(self) -> Json:
        """The data: a copy at each access."""
        return self._data.read()


@attrs.frozen(kw_only=True)
class CronRun:
    """One attempt of one moment, as the history has it.

    Attributes:
        id: Also the fencing token: a retry has a greater number than the attempts before it, whatever machine they ran on.
        job_id: The job's id; it may have been removed since.
        job_name: The job's name at that time.
        user_id: Whose job it was.
        scheduled_at: The moment, UTC.
        attempt: From 1, interruptions included.
        trigger: Why the run was created.
        started_at: UTC; None if it has not started.
        completed_at: UTC; None until it has finished.
        status: Its status.
        cause: Why it did not succeed; of a run that is still RUNNING, why it is being stopped.
        result_summary: The summary that the executor returned.
        error: The error that ended it.
        session_id: The session that the executor named.
        coalesced: How many moments the row stands for, counted to 1,000.
        result_data: The JSON value that the executor returned; None if there is none. Each access makes a copy.
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
    _result_data: JsonText = attrs.field(default=NO_DATA, repr=False, converter=convert_stored_result)

    @property
    def result_data(self) -> Json:
        """The data of the result: a copy at each access.

        Raises:
            InvalidJob: The stored data is damaged.
        """
        return self._result_data.read()


@attrs.frozen(kw_only=True)
class Explanation:
    """The fate of one moment of a job, past or future.

    Attributes:
        outcome: The fate.
        cause: Why it was skipped, or did not succeed.
        run_id: The run or the skipped row that stands for the moment.
        next: The job's next moment, UTC; None while paused and when none is left.
        text: A sentence or two for people.
        pause: The pause of the job in which a moment without a run lies, or which ends before it.
    """

    outcome: Fate
    cause: Cause | None = None
    run_id: str | None = None
    next: datetime | None = None
    text: str
    pause: Pause | None = None


JobExecutor: TypeAlias = Callable[[JobContext], Awaitable[JobResult | str | None]]
"""Carries out one run. To return is success, to raise is failure. Cancellation means timeout, cancellation of the run, or shutdown."""

NotificationSender: TypeAlias = Callable[[str, str, str, bool], Awaitable[None]]
"""Called with job name, session id ("" on failure), result (at most 500 characters) and success, once the outcome is on disk."""

RunObserver: TypeAlias = Callable[[CronJob, CronRun], Awaitable[None]]
"""Called with the job and the finished run, under the same rules as a `NotificationSender`."""
