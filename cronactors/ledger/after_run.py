"""What the end of a run makes of its job: a further attempt, the moments that it overlapped, the job's own end.

Decided from what is told, the time too; nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import attrs

from cronactors.instants import Millis
from cronactors.ledger.new_rows import is_first_start, retry_run, skipped_run, stored_schedule, stored_timing, waiting_run
from cronactors.ledger.views import has_policies
from cronactors.model import Cause, Overlap, RunStatus
from cronactors.policy import Decision, Outcome, decide_due, decide_overlapped, misfire_from_text, plan_retry
from cronactors.schedules.schedule import OneShot
from cronactors.spec import RetryPolicy
from cronactors.storage.rows import JobRow, JobState, RunRow, job_key


class Sequel(Enum):
    """What becomes of a job."""

    GOES_ON = auto()
    HELD = auto()  # its further attempt has to come first
    STOPPED = auto()  # it ends its process each time
    DELETED = auto()
    DONE = auto()  # to be deleted, but its file lists it and would add it again


@attrs.frozen
class Settled:
    """What is to be written.

    Attributes:
        state: How the job is to stand, unless its sequel says more.
        rows: What is entered beside: moments that were overlapped, and last the further attempt.
        sequel: What becomes of the job.
    """

    state: JobState
    rows: list[RunRow]
    sequel: Sequel


def settle(job: JobRow, run: RunRow, outcome: Outcome, *, policy: RetryPolicy, others: Sequence[RunRow], now: Millis) -> Settled:
    """Decide.

    Args:
        job: As it stands.
        run: As it is after its end.
        outcome: How it ended.
        policy: Delays of retries.
        others: Other open runs of the job.
        now: The time.
    """
    crashes = job.crashes
    if outcome.status is RunStatus.SUCCESS or outcome.cause in (Cause.ERROR, Cause.TIMEOUT, Cause.GAVE_UP):
        crashes = 0
    again = plan_retry(
        outcome,
        failures=run.failures,
        crashes=crashes,
        max_retries=job.max_retries,
        policy=policy,
        ready_at=run.ready_at,
        now=now,
    )
    if run.cancel_requested and not outcome.crashed:
        again = None  # it failed before it could be cancelled
    held = job.held_by == run.id
    held_by = _heir(job, others) if held else job.held_by
    state = JobState.of(job)._replace(held_by=held_by, last_error=_last_error(job, run, outcome), crashes=crashes)
    rows: list[RunRow] = []
    # Nobody knows how long a run went on that crashed, and so what it overlapped.
    overlaps = held and held_by is None and run.started_at is not None and not outcome.crashed
    if overlaps and job.overlap not in (Overlap.ALLOW_ALL, Overlap.CANCEL_OTHER):
        state, rows = _settle_overlapped(job, run, state, others, now)
    sequel = Sequel.GOES_ON
    if again is None:
        sequel = _sequel(job, run, outcome)
    else:
        rows.append(retry_run(job, run, again))
        if outcome.crashed and again.failures > run.failures and held_by is None and job.enabled:
            sequel = Sequel.HELD  # else new moments would let a job that kills its process go on
    return Settled(state, rows, sequel)


def _heir(job: JobRow, others: Sequence[RunRow]) -> int | None:
    """Which other run keeps the job waiting now, if any goes on: the job allowed all when they began, and does so no more."""
    running = [run for run in others if run.status == RunStatus.RUNNING and job.overlap != Overlap.ALLOW_ALL]
    return max(running, key=lambda run: (run.started_at, run.id)).id if running else None


def _last_error(job: JobRow, run: RunRow, outcome: Outcome) -> str | None:
    if outcome.status is RunStatus.SUCCESS:
        return None
    return run.error if outcome.status is RunStatus.FAILED and run.error else job.last_error


def _settle_overlapped(
    job: JobRow, run: RunRow, state: JobState, others: Sequence[RunRow], now: Millis
) -> tuple[JobState, list[RunRow]]:
    """Buffer or skip the moments that came due while the run was running; give the job's state with the first moment after them.

    Moments from before it started were missed for another reason, such as a full pool: they become late runs.
    """
    first, started_at = job.next_run_at, run.started_at or 0
    if first is None or first > now or not job.enabled:
        return state, []
    timing = stored_timing(job)
    if timing is None or not has_policies(job):
        return state, []  # the next claim stops the job
    rows: list[RunRow] = []
    line = job_key(job.id)
    waiting = sum(other.waits_for == line and is_first_start(other) for other in others)
    if first <= started_at:
        late = decide_due(timing, first=first, now=min(started_at, now), misfire=misfire_from_text(job.misfire))
        if late.following is None or late.following > now:
            return state, []  # a claim decides them
        rows += _entries(job, late, Cause.MISFIRE, now)
        waiting += len(late.runs)
        first = late.following
    decision = decide_overlapped(timing, first=first, now=now, overlap=Overlap(job.overlap), waiting=waiting)
    rows += _entries(job, decision, Cause.OVERLAP, now)
    return state._replace(next_run_at=decision.following, decided_local=decision.decided_local), rows


def _entries(job: JobRow, decision: Decision, cause: Cause, now: Millis) -> list[RunRow]:
    """What is to run, in the job's line, and a record of what is not."""
    line = job_key(job.id)
    waiting = [waiting_run(job, moments, line) for moments in decision.runs]
    return waiting + [skipped_run(job, moments, cause, now) for moments in decision.skipped]


def _sequel(job: JobRow, run: RunRow, outcome: Outcome) -> Sequel:
    """What becomes of the job, its moment having been decided: it may have been the last one."""
    decided = not run.manual and outcome.cause is not Cause.REPLACED
    failed = outcome.status is RunStatus.FAILED and (not run.cancel_requested or outcome.crashed)
    spent = decided and (failed or outcome.status is RunStatus.SUCCESS or outcome.cause is Cause.MISFIRE)
    if job.delete_after_run and (spent or (decided and isinstance(stored_schedule(job), OneShot))):
        return Sequel.DELETED if job.origin is None else Sequel.DONE
    return Sequel.STOPPED if spent and outcome.crashed else Sequel.GOES_ON
