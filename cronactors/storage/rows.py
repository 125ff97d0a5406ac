"""Rows as a storage holds them: text and numbers. Times are `Millis`; a user_id of "" is the agent itself.

They are named tuples, because SQLite takes and returns tuples, and some ten rows are made, changed and dropped for each run.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cronactors.instants import Millis
from cronactors.owner import ProcessIdentity

PAUSE: Final = "pause"
"""`RunRow.waits_for` of a run that waits until its job is resumed."""

CRASH_LOOP: Final = "crash_loop"
"""`RunRow.waits_for` of a run whose job is in a crash loop: it waits until no other such run is running."""

DECLARED_DEAD: Final[Millis] = -1
"""`OwnerRow.lease_until` of an owner whose lease had run out when another one took over its runs. It starts nothing until it is revived."""

_SECRET = frozenset({"prompt", "executor_options", "data", "last_error", "result", "result_data", "error", "request_data"})
"""Fields that a repr leaves out: texts of users and of their executors."""


def session_key(user_id: str) -> str:
    """Return the main session of a user, as `RunRow.session` and `RunRow.waits_for` name it."""
    return f"session:{user_id}"


def job_key(job_id: str) -> str:
    """Return the `RunRow.waits_for` of runs that wait for an open run of their job."""
    return f"job:{job_id}"


def _repr(row: NamedTuple) -> str:
    """Show a row without its secret fields."""
    shown = [f"{name}={value!r}" for name, value in zip(row._fields, row, strict=True) if name not in _SECRET]
    return f"{type(row).__name__}({', '.join(shown)})"


class JobRow(NamedTuple):
    """A job. Statements name the columns in the order of these fields.

    Attributes:
        origin: The file that lists the job.
        crashes: How many of its runs in a row were interrupted because their process crashed.
        next_run_at: The first moment that is not decided yet, also while the job is paused. None: there is none.
        decided_local: For a cron job, until when its moments are decided: seconds of the local clock of its zone.
        held_by: The open run that must finish before another may start.
        consecutive_failures: How many of its runs failed or timed out since the last success.
        pruned_until: The latest moment among its pruned rows: moments up to it are decided. None: no row was pruned.
        schedule: The first of the fields that no run changes; they are stored in a table of their own.
        anchor_at: The moment from which an interval counts.
        delay_ms: The delay of a one-shot that was given as a delay.
        rules: The release of zone rules and parser by which ``next_run_at`` was computed; "" if that is not known.
        description: What it is for.
        tags: A JSON list.
        history: JSON: how much of its history is kept, where that differs from the settings.
        listed_enabled: Whether the list that names it, or the last upsert, says that it is enabled; None: it does not say.
        executor_options: JSON.
        data: JSON; None: it carries none.
    """

    id: str
    user_id: str
    name: str
    origin: str | None
    overlap: str
    delete_after_run: int
    enabled: int
    crashes: int
    next_run_at: Millis | None
    decided_local: int | None
    held_by: int | None
    last_run_at: Millis | None
    last_error: str | None
    consecutive_failures: int
    pruned_until: Millis | None
    schedule: str
    timezone: str
    anchor_at: Millis
    max_retries: int
    timeout_secs: float
    session_mode: str
    misfire: str
    delay_ms: Millis | None
    created_at: Millis
    rules: str
    description: str
    tags: str
    history: str
    listed_enabled: int | None
    executor_options: str
    data: str | None
    prompt: str

    def __repr__(self) -> str:
        """Leave out the secret fields."""
        return _repr(self)

    def with_state(self, state: JobState) -> JobRow:
        """Return the job in another state."""
        return self._replace(**state._asdict())

    @property
    def session(self) -> str | None:
        """The session that runs of this job share with others, if any."""
        return session_key(self.user_id) if self.session_mode == "main" else None


SPEC: Final = JobRow._fields.index("schedule")
"""The position in a `JobRow` from which on no run changes the fields."""


class JobState(NamedTuple):
    """The columns of a job that change when its runs start and finish."""

    id: str
    next_run_at: Millis | None
    decided_local: int | None
    held_by: int | None
    last_run_at: Millis | None
    last_error: str | None
    enabled: int
    crashes: int
    consecutive_failures: int

    def __repr__(self) -> str:
        """Leave out the secret fields."""
        return _repr(self)

    @classmethod
    def of(cls, job: JobRow) -> JobState:
        """Return the state of a job."""
        return cls(
            id=job.id,
            next_run_at=job.next_run_at,
            decided_local=job.decided_local,
            held_by=job.held_by,
            last_run_at=job.last_run_at,
            last_error=job.last_error,
            enabled=job.enabled,
            crashes=job.crashes,
            consecutive_failures=job.consecutive_failures,
        )

    def disabled(self) -> JobState:
        """Return the same state, disabled."""
        return self._replace(enabled=0)


class RunRow(NamedTuple):
    """A run: one attempt of one moment. Statements name the columns in the order of these fields.

    Attributes:
        id: Greater than that of any run that the job had when it was added, so it also serves as the fencing token. 0 in a row that is not stored yet.
        manual: 1 for a run that a user requested, and for its retries; part of the unique key (job, moment, manual, attempt).
        failures: How many earlier attempts of the moment failed or timed out.
        ready_at: From when on it may start; the queue is in this order.
        waits_for: None, `PAUSE`, `CRASH_LOOP`, `session_key` or `job_key`: the reason why the run may not start yet.
        session: The main session that it uses.
        owner: The scheduler that runs it.
        range_at: The other end of the moments that were merged into the run; ``scheduled_at`` is the first end. None: one moment.
        result_data: JSON that the executor returned; None: none.
    """

    id: int
    job_id: str
    job_name: str
    user_id: str
    trigger: str
    manual: int
    scheduled_at: Millis
    attempt: int
    ready_at: Millis
    failures: int = 0
    coalesced: int = 1
    range_at: Millis | None = None
    session: str | None = None
    owner: int | None = None
    cancel_requested: int = 0
    started_at: Millis | None = None
    status: str = "pending"
    cause: str | None = None
    completed_at: Millis | None = None
    session_id: str = ""
    result: str | None = None
    error: str | None = None
    waits_for: str | None = None
    result_data: str | None = None

    def __repr__(self) -> str:
        """Leave out the secret fields."""
        return _repr(self)

    @property
    def span(self) -> tuple[Millis, Millis]:
        """The first and the last of the moments that were merged into it."""
        other = self.scheduled_at if self.range_at is None else self.range_at
        return (self.scheduled_at, other) if self.scheduled_at <= other else (other, self.scheduled_at)

    def with_id(self, run_id: int) -> RunRow:
        """Return the row with the id under which it is stored."""
        return RunRow(run_id, *self[1:])

    def finished(self, finish: RunFinish) -> RunRow:
        """Return the run after it has finished."""
        return self._replace(
            status=finish.status,
            cause=finish.cause,
            completed_at=finish.completed_at,
            session_id=finish.session_id,
            result=finish.result,
            error=finish.error,
            waits_for=None,
            result_data=finish.result_data,
        )


class RunFinish(NamedTuple):
    """The columns to store when a run finishes, if it still has ``expected_status``."""

    id: int
    expected_status: str
    status: str
    cause: str | None
    completed_at: Millis
    session_id: str
    result: str | None
    error: str | None
    result_data: str | None = None

    def __repr__(self) -> str:
        """Leave out the secret fields."""
        return _repr(self)


class Claimed(NamedTuple):
    """A run that has been started, its job before that, and the changes of the job.

    Attributes:
        next_run_at: The first moment of the job that is not decided yet.
        decided_local: As in `JobRow`.
        held_by: The open run that must finish before another of the job may start.
        request_data: The data that the run was requested with: JSON. None: it has the data of its job.
    """

    run: RunRow
    job: JobRow
    next_run_at: Millis | None
    decided_local: int | None
    held_by: int | None
    request_data: str | None = None

    def __repr__(self) -> str:
        """Leave out the secret fields."""
        return _repr(self)

    @property
    def job_now(self) -> JobRow:
        """The job after the run was started."""
        return self.job._replace(
            next_run_at=self.next_run_at,
            decided_local=self.decided_local,
            held_by=self.held_by,
            last_run_at=self.run.started_at,
        )


class PlainFinish(NamedTuple):
    """The columns to store when a run succeeded and its job is as the claim left it; `Storage.store_plain_finishes` checks that.

    Attributes:
        next_run_at: The first moment of the job that is not decided yet; it is not due. None: there is none, and the job is done.
    """

    run_id: int
    completed_at: Millis
    session_id: str
    result: str | None
    job_id: str
    next_run_at: Millis | None
    result_data: str | None = None

    def __repr__(self) -> str:
        """Leave out the secret fields."""
        return _repr(self)


class DueItem(NamedTuple):
    """An item of the queue: a job with a moment that is due (``run_id`` None), or a pending run that may start."""

    run_id: int | None
    job_id: str
    due_at: Millis


class OverdueMoment(NamedTuple):
    """A moment that is due: the first one of a job, and the number of the job, by which equal moments are in order."""

    at: Millis
    number: int
    job_id: str


class NextTimes(NamedTuple):
    """The times for which a scheduler has to wake, past or future; None: never.

    Attributes:
        due: Of the first item of the queue.
        slotless: Of the first decision that needs no free slot: a moment for which the open run of its job is to be cancelled, or the
            end of a pause.
    """

    due: Millis | None
    slotless: Millis | None


class OwnerRow(NamedTuple):
    """A scheduler, or a store that runs jobs in a loop of its own, which has the file open.

    Attributes:
        machine: Machine, boot and pid namespace.
        pid: The id of its process.
        process_start: When that process was started, as the system counts it.
        heartbeat_at: When it last renewed its lease.
        lease_until: When its lease ends; 0 once it has closed in order, or `DECLARED_DEAD`.
        receivers: The names of the receivers of notifications that it has: a JSON list.
    """

    id: int
    machine: str
    pid: int
    process_start: str
    heartbeat_at: Millis
    lease_until: Millis
    receivers: str = "[]"

    @property
    def process(self) -> ProcessIdentity:
        """Its process."""
        return ProcessIdentity(self.machine, self.pid, self.process_start)


class OriginRow(NamedTuple):
    """A list of jobs.

    Attributes:
        name: The ``origin`` of its jobs.
        file: The file that lists them, relative to the folder of the database where that is possible; None: no file does.
        jobs: How many jobs it has.
    """

    name: str
    file: str | None
    jobs: int
