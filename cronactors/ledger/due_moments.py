"""Which due moments of a job run, merge or are skipped, from its stored schedule and policies."""

from __future__ import annotations

import attrs

from cronactors.errors import CronError, InvalidJob, InvalidSchedule
from cronactors.instants import Millis
from cronactors.ledger import alert_texts, alerting
from cronactors.ledger.pruning_clock import decided_until
from cronactors.ledger.stored_values import check_policies, timing_of, unreadable
from cronactors.ledger.waiting import disable_job
from cronactors.model import Cause
from cronactors.policy import Decision, decide_due, misfire_from_text
from cronactors.schedules.schedule import OneShot
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow


def decide_due_moments(storage: Storage, job: JobRow, now: Millis) -> Decision | None:
    """Decide the due moments of a job.

    Returns:
        None if there are none, or if the schedule or a policy cannot be read; the job is disabled then.
    """
    try:
        job, was_pruned = _after_pruned(storage, job, now)
        decision = due_decision(job, now)
        if decision is None and was_pruned:
            return Decision(runs=(), following=job.next_run_at, decided_local=job.decided_local)
        ahead = None if decision is None else decided_ahead_of_clock(job, decision)
        if decision is not None and ahead is not None:
            decision = attrs.evolve(decision, following=timing_of(job).after_local(ahead), decided_local=ahead)
    except (InvalidSchedule, InvalidJob) as error:
        disable_unreadable(storage, job, error)
        return None
    return decision


def has_pruned_moment(job: JobRow) -> bool:
    """Return whether the row of a job's next moment may have been pruned: only if the clock was set back and forth."""
    return job.pruned_until is not None and job.next_run_at is not None and job.next_run_at <= job.pruned_until


def _after_pruned(storage: Storage, job: JobRow, now: Millis) -> tuple[JobRow, bool]:
    """Return a job whose next moment is later than its pruned rows, and whether that has changed it.

    Raises:
        InvalidSchedule: The schedule cannot be read.
    """
    if not has_pruned_moment(job):
        return job, False
    pruned = decided_until(storage, job, now)
    if pruned is None or job.next_run_at is None or job.next_run_at > pruned:
        return job, False
    timing = timing_of(job)
    if isinstance(timing.schedule, OneShot):
        return job, False  # a user has given it this moment since
    return job._replace(next_run_at=timing.after(pruned)), True


def due_decision(job: JobRow, now: Millis) -> Decision | None:
    """Decide the due moments of a job without the storage; None if there are none.

    Raises:
        InvalidSchedule: The schedule or its zone cannot be read.
        InvalidJob: A policy cannot be read.
    """
    first = job.next_run_at
    if first is None or first > now:  # the index of a damaged file may name the job all the same: nothing starts before its time
        return None
    check_policies(job)
    return decide_due(timing_of(job), first=first, now=now, misfire=misfire_from_text(job.misfire))


def decided_ahead_of_clock(job: JobRow, decision: Decision) -> int | None:
    """Return until when the job's times of day are decided (s of its local clock), if that clock has not come so far.

    New zone rules may have set the local clock back. Times of day up to there have been decided under the old rules, and must not come
    due a second time.

    Returns:
        None if the local clock has come so far, or the schedule has no times of day.
    """
    decided, clock = job.decided_local, decision.decided_local
    return decided if decided is not None and clock is not None and decided > clock else None


def disable_unreadable(storage: Storage, job: JobRow, error: CronError) -> None:
    """Disable a job whose schedule or policies cannot be read; its ``last_error`` says why."""
    disable_job(storage, job._replace(last_error=f"paused: {unreadable(error)}"), Cause.CANCELLED)
    alerting.report(storage, [alert_texts.paused_as_unreadable(job, why=unreadable(error), now=storage.now())])
