"""Rows as a storage keeps them: plain text and numbers. Times are `Millis`; a user_id of "" is the agent itself.

Named tuples: SQLite hands out tuples and takes them, and a row is made, changed and thrown away some ten times a run.
"""

from __future__ import annotations

from typing import NamedTuple

from cronactors.instants import Millis

PAUSE = "pause"
"""`RunRow.waits_for` of a run that waits until its job is resumed."""

CRASH_LOOP = "crash_loop"
"""`RunRow.waits_for` of a run that may have ended its process before, and waits until no other such run goes on."""


def session_key(user_id: str) -> str:
    """The main session of a user, as `RunRow.session` and `RunRow.waits_for` name it."""
    return f"session:{user_id}"


def job_key(job_id: str) -> str:
    """The line of runs that wait for an open run of the same job, as `RunRow.waits_for` names it."""
    return f"job:{job_id}"


class JobRow(NamedTuple):
    """A job. The order of the fields is the order in which statements name the columns.

    Attributes:
        origin: The file that lists the job.
        crashes: How often in a row its runs were interrupted by the end of their process.
        next_run_at: The first moment that is not decided yet; of a paused job too. None: none is left.
        decided_local: Of a cron job: until when its moments are decided, in seconds of the local clock of its zone.
        held_by: The open run that must end before another may start.
        schedule: The first of the fields that no run changes, and that are kept apart.
        anchor_at: Where an interval's moments are counted from.
        delay_ms: How the one-shot was given, if it was given as a delay.
        rules: The release of zone rules and parser by which ``next_run_at`` was computed; "" if that is not known.
        executor_options: JSON.
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
    executor_options: str
    prompt: str

    def with_state(self, state: JobState) -> JobRow:
        """The job in another state."""
        return self._replace(**state._asdict())

    @property
    def session(self) -> str | None:
        """The session that runs of this job share with others, if any."""
        return session_key(self.user_id) if self.session_mode == "main" else None


SPEC = JobRow._fields.index("schedule")
"""Where in a `JobRow` the fields begin that no run changes."""


class JobState(NamedTuple):
    """The columns of a job that change when its runs start and end. In the order of the statement, as `RunFinish` is."""

    next_run_at: Millis | None
    decided_local: int | None
    held_by: int | None
    last_run_at: Millis | None
    last_error: str | None
    enabled: int
    crashes: int
    id: str

    @classmethod
    def of(cls, job: JobRow) -> JobState:
        """The state that a job is in now."""
        return cls(
            next_run_at=job.next_run_at,
            decided_local=job.decided_local,
            held_by=job.held_by,
            last_run_at=job.last_run_at,
            last_error=job.last_error,
            enabled=job.enabled,
            crashes=job.crashes,
            id=job.id,
        )

    def disabled(self) -> JobState:
        """The same of a job that is not to run any more."""
        return self._replace(enabled=0)


class RunRow(NamedTuple):
    """A run: one attempt of one moment. The order of the fields is the order in which statements name the columns.

    Attributes:
        id: Grows with every run, and so is the fencing token. 0 in a row that is not stored yet.
        manual: 1 for a run that was asked for, its attempts included; part of the unique key (job, moment, manual, attempt).
        status: The first of the fields that the end of the run changes.
        failures: How many earlier attempts of the moment failed or timed out.
        ready_at: When it may start, and its place in the queue.
        waits_for: None, `PAUSE`, `CRASH_LOOP`, `session_key` or `job_key`: what must end before the run may start.
        session: The main session that it uses.
        owner: The scheduler that runs it.
        range_at: The other end of the moments that it stands for, beside ``scheduled_at``; None: it stands for one.
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

    @property
    def span(self) -> tuple[Millis, Millis]:
        """The first and the last of the moments that it stands for."""
        other = self.scheduled_at if self.range_at is None else self.range_at
        return (self.scheduled_at, other) if self.scheduled_at <= other else (other, self.scheduled_at)

    def with_id(self, run_id: int) -> RunRow:
        """The same row once it has its id."""
        return RunRow(run_id, *self[1:])

    def finished(self, end: RunFinish) -> RunRow:
        """The same run after its end."""
        return tuple.__new__(RunRow, (*self[:_END], *end[:-2], None))


_END = RunRow._fields.index("status")


class RunFinish(NamedTuple):
    """The end of a run: it takes effect only while the run still has ``expected_status``. All but the last two in the order of `RunRow`."""

    status: str
    cause: str | None
    completed_at: Millis
    session_id: str
    result: str | None
    error: str | None
    id: int
    expected_status: str


class Claimed(NamedTuple):
    """A run that has begun, the job as it was just before, and what that has changed in it.

    Attributes:
        next_run_at: The job's first moment that is not decided yet.
        decided_local: As of `JobRow`.
        held_by: The open run that must end before another one of the job may start.
    """

    run: RunRow
    job: JobRow
    next_run_at: Millis | None
    decided_local: int | None
    held_by: int | None

    @property
    def job_now(self) -> JobRow:
        """The job as it was when the run had begun."""
        return self.job._replace(
            next_run_at=self.next_run_at,
            decided_local=self.decided_local,
            held_by=self.held_by,
            last_run_at=self.run.started_at,
        )


class PlainFinish(NamedTuple):
    """The end of a run that succeeded, of a job that is to go on as its claim left it: `store_plain_finishes` says what must hold for that.

    Attributes:
        next_run_at: The job's first moment that is not decided yet, none of them due; None: none is left, and the job is done.
    """

    run_id: int
    completed_at: Millis
    session_id: str
    result: str | None
    job_id: str
    next_run_at: Millis | None


class DueItem(NamedTuple):
    """A place in the queue: a job whose moment has come (``run_id`` None), or a pending run that may start."""

    run_id: int | None
    job_id: str
    due_at: Millis


class NextTimes(NamedTuple):
    """When something is to be done next, past or future; None: never.

    Attributes:
        due: The first of the queue.
        cancelling: The first run that is to be cancelled for the next moment of its job.
    """

    due: Millis | None
    cancelling: Millis | None


class OwnerRow(NamedTuple):
    """A scheduler, or a handle with a loop of its own, that has the file open.

    Attributes:
        machine: Machine, boot and pid namespace.
        pid: Its process.
        process_start: When that process was started, as the system counts it.
        heartbeat_at: When it last renewed its lease.
        lease_until: Until when it is taken to live without one; 0 once it has closed in order.
    """

    id: int
    machine: str
    pid: int
    process_start: str
    heartbeat_at: Millis
    lease_until: Millis


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
