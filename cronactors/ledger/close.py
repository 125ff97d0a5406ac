"""The end of a run and all that follows from it: a further attempt, the moments it overlapped, who may start now, the job's end."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from cronactors.errors import InvalidSchedule
from cronactors.instants import Millis
from cronactors.ledger.views import timing_of
from cronactors.model import Cause, Overlap, RunStatus, Trigger
from cronactors.policy import (
    FREE_CRASHES,
    Again,
    Decision,
    Moments,
    Outcome,
    Timing,
    decide_due,
    decide_overlapped,
    further_attempt,
    is_suspect,
    misfire_from_text,
)
from cronactors.schedule import OneShot, Schedule
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import PAUSE, SUSPECTS, JobRow, JobState, RunEnd, RunRow, line_of


def stored_schedule(job: JobRow) -> Schedule | None:
    """The job's schedule; None if what is stored cannot be read, which must not stop a run from being ended."""
    timing = stored_timing(job)
    return None if timing is None else timing.schedule


def stored_timing(job: JobRow) -> Timing | None:
    """The job's schedule in its zone; None if what is stored cannot be read."""
    try:
        return timing_of(job)
    except InvalidSchedule:
        return None


def close_run(storage: Storage, run: RunRow, outcome: Outcome, policy: RetryPolicy) -> RunRow | None:
    """End an open run, pending or running, and draw the consequences for its job as the job is now.

    Returns:
        The run as it is now; None if it was not as ``run`` says any more, and nothing has been changed.
    """
    job = storage.jobs([run.job_id]).get(run.job_id)
    outcome = _as_asked(run, outcome, job)
    ended = _end(storage, run, outcome, storage.now())
    if ended is None:
        return None
    if job is not None:
        _settle_job(storage, job, ended, outcome, policy)
    free_lines(storage, run, held=job is not None and job.held_by == run.id)
    if run.status == RunStatus.RUNNING and (job is None or is_suspect(job.crashes)):
        free_suspects(storage)
    return ended


def _as_asked(run: RunRow, outcome: Outcome, job: JobRow | None) -> Outcome:
    """What somebody wanted to end is not put back when it is interrupted."""
    if not run.cancel_asked or outcome.cause is not Cause.INTERRUPTED:
        return outcome
    replaced = run.cause == Cause.REPLACED
    if replaced and outcome.crashed and job is not None and job.crashes > FREE_CRASHES:
        return outcome  # its next moment must not let a job that ends its process each time go on
    cause = Cause.REPLACED if replaced else Cause.CANCELLED
    return Outcome(status=RunStatus.CANCELLED, cause=cause, error=outcome.error, crashed=outcome.crashed)


def _end(storage: Storage, run: RunRow, outcome: Outcome, now: Millis) -> RunRow | None:
    end = RunEnd(
        id=run.id,
        was=run.status,
        status=outcome.status.value,
        cause=outcome.cause.value if outcome.cause else None,
        completed_at=now,
        session_id=outcome.session_id,
        result=outcome.result,
        error=outcome.error,
    )
    if not storage.end_runs([end])[0]:
        return None
    return attrs.evolve(
        run,
        status=end.status,
        cause=end.cause,
        completed_at=max(now, run.started_at or 0),
        session_id=end.session_id,
        result=end.result,
        error=end.error,
        waits_for=None,
    )


def free_lines(storage: Storage, run: RunRow, *, held: bool) -> None:
    """Let the next of each line start that this run kept waiting, or that it was to be the next of."""
    keys = []
    if run.session is not None and run.waits_for is None:
        keys.append(run.session)
    if held or (run.status == RunStatus.PENDING and run.waits_for is None):
        keys.append(line_of(run.job_id))
    for key in keys:
        free_first(storage, key)


def free_first(storage: Storage, key: str) -> None:
    """Let the run start that has waited longest for ``key``."""
    waiter = storage.first_waiter(key)
    if waiter is not None:
        storage.park_runs([(waiter, None)])


def free_suspects(storage: Storage) -> None:
    """Let all look again that wait because a suspect was running: they may be none any more, and nobody has to pass on a turn."""
    while (waiter := storage.first_waiter(SUSPECTS)) is not None:
        storage.park_runs([(waiter, None)])


def _settle_job(storage: Storage, job: JobRow, run: RunRow, outcome: Outcome, policy: RetryPolicy) -> None:
    crashes = job.crashes
    if outcome.status is RunStatus.SUCCESS or outcome.cause in (Cause.ERROR, Cause.TIMEOUT, Cause.GAVE_UP):
        crashes = 0
    again = further_attempt(
        outcome,
        failures=run.failures,
        crashes=crashes,
        max_retries=job.max_retries,
        policy=policy,
        ready_at=run.ready_at,
        now=storage.now(),
    )
    job = attrs.evolve(job, crashes=crashes, last_error=_last_error(job, run, outcome))
    if job.held_by == run.id:
        job = attrs.evolve(job, held_by=None)
        # Nobody knows how long a run went on that crashed, and so what it overlapped.
        if run.started_at is not None and not outcome.crashed and job.overlap not in (Overlap.ALLOW_ALL, Overlap.CANCEL_OTHER):
            job = attrs.evolve(job, next_run_at=_settle_overlapped(storage, job, run.started_at))
    if again is None:
        _conclude(storage, job, run, outcome)
        return
    attempt = _insert_attempt(storage, job, run, again)
    if outcome.crashed and again.failures > run.failures and job.held_by is None and job.enabled:
        job = attrs.evolve(job, held_by=attempt)  # else new moments would let a job that kills its process go on
    storage.advance_jobs([JobState.of(job)])


def _settle_overlapped(storage: Storage, job: JobRow, started_at: Millis) -> Millis | None:
    """Buffer or skip the moments that came due while the run went on; answer the first moment after them.

    Moments from before it started were missed for another reason, such as a full pool: they become late runs.
    """
    now = storage.now()
    first, timing = job.next_run_at, stored_timing(job)
    if first is None or first > now or not job.enabled or timing is None:
        return first
    if first <= started_at:
        late = decide_due(timing, first=first, now=min(started_at, now), misfire=misfire_from_text(job.misfire))
        if late.following is None or late.following > now:
            return first  # a claim decides them
        _store_decision(storage, job, late, Cause.MISFIRE)
        first = late.following
    waiting = [run for run in storage.open_runs([job.id]) if run.waits_for == line_of(job.id) and is_first_start(run)]
    decision = decide_overlapped(timing, first=first, now=now, overlap=Overlap(job.overlap), waiting=len(waiting))
    _store_decision(storage, job, decision, Cause.OVERLAP)
    return decision.following


def _store_decision(storage: Storage, job: JobRow, decision: Decision, cause: Cause) -> None:
    """Put what is to run into the job's line, and record what is not."""
    storage.insert_runs([buffered_run(job, moments, line_of(job.id)) for moments in decision.runs])
    storage.insert_runs([skipped_run(job, moments, cause, storage.now()) for moments in decision.skipped])


def is_braked(job: JobRow, run: RunRow) -> bool:
    """Whether a run waits because its job ended its process again and again: no new moment must let the job go on."""
    return run.id == job.held_by and run.status == RunStatus.PENDING and job.crashes > FREE_CRASHES


def is_first_start(run: RunRow) -> bool:
    """Whether a pending run is a moment that has not been started at all."""
    return run.status == RunStatus.PENDING and run.attempt == 1 and not run.manual


def _insert_attempt(storage: Storage, job: JobRow, run: RunRow, again: Again) -> int | None:
    paused = not job.enabled and not run.manual
    row = RunRow(
        id=0,
        job_id=job.id,
        job_name=job.name,
        user_id=job.user_id,
        trigger=(Trigger.RECOVERY if again.recovery else Trigger.RETRY).value,
        manual=run.manual,
        scheduled_at=run.scheduled_at,
        attempt=run.attempt + 1,
        status=RunStatus.PENDING.value,
        ready_at=again.ready_at,
        failures=again.failures,
        coalesced=run.coalesced,
        waits_for=PAUSE if paused else None,
        session=job.session,
    )
    return storage.insert_runs([row])[0]


def _last_error(job: JobRow, run: RunRow, outcome: Outcome) -> str | None:
    if outcome.status is RunStatus.SUCCESS:
        return None
    return run.error if outcome.status is RunStatus.FAILED and run.error else job.last_error


def skip_due(storage: Storage, job: JobRow, cause: Cause) -> Millis | None:
    """Record the moments of an enabled job that have come due and will not run as one skipped row; answer the first after them."""
    now = storage.now()
    first, timing = job.next_run_at, stored_timing(job)
    if first is None or first > now or not job.enabled or timing is None:
        return first
    storage.insert_runs([skipped_run(job, Moments(first, timing.count(first, now)), cause, now)])
    return timing.after(now)


def buffered_run(job: JobRow, moments: Moments, waits_for: str | None) -> RunRow:
    """A moment that has been decided to run, and has to wait."""
    return RunRow(
        id=0,
        job_id=job.id,
        job_name=job.name,
        user_id=job.user_id,
        trigger=Trigger.SCHEDULE.value,
        manual=0,
        scheduled_at=moments.at,
        attempt=1,
        status=RunStatus.PENDING.value,
        ready_at=moments.at,
        coalesced=moments.count,
        waits_for=waits_for,
        session=job.session,
    )


def skipped_run(job: JobRow, moments: Moments, cause: Cause, now: Millis) -> RunRow:
    """Moments that have been decided not to run: a row that never was open."""
    return attrs.evolve(
        buffered_run(job, moments, None), status=RunStatus.SKIPPED.value, cause=cause.value, session=None, completed_at=now
    )


def _conclude(storage: Storage, job: JobRow, run: RunRow, outcome: Outcome) -> None:
    """Write the job's state where the moment has been decided: it may have been its last one."""
    decided = not run.manual and outcome.cause is not Cause.REPLACED
    spent = decided and outcome.status in (RunStatus.SUCCESS, RunStatus.FAILED)
    one_shot = isinstance(stored_schedule(job), OneShot)
    if job.delete_after_run and (spent or (decided and one_shot)):
        if job.origin is None:
            delete_job(storage, job)
            return
        job = stop_job(storage, job, Cause.REMOVED)  # its file still lists it, and would add it again
        withdraw(storage, [other for other in storage.open_runs([job.id]) if other.waits_for == PAUSE], Cause.REMOVED)
        job = attrs.evolve(job, next_run_at=None)
    elif spent and outcome.crashed:
        job = stop_job(storage, job, Cause.INTERRUPTED)
    if job.next_run_at is None and job.enabled and not storage.open_runs([job.id]):
        job = attrs.evolve(job, enabled=0)
    storage.advance_jobs([JobState.of(job)])


def stop_job(storage: Storage, job: JobRow, cause: Cause) -> JobRow:
    """Disable a job: what is due is skipped, attempts that wait stay waiting until it is resumed; runs asked for still start."""
    skip_due(storage, job, cause)
    waiting = {run.id: run for run in storage.open_runs([job.id]) if run.status == RunStatus.PENDING and not run.manual}
    stopped = attrs.evolve(job, enabled=0, held_by=None if job.held_by in waiting else job.held_by)
    storage.advance_jobs([JobState.of(stopped)])
    storage.park_runs([(run_id, PAUSE) for run_id in waiting])
    for run in waiting.values():
        free_lines(storage, run, held=run.id == job.held_by)  # its turn, if it had one, passes to the next
    return stopped


def delete_job(storage: Storage, job: JobRow) -> None:
    """Take a job away: what waits ends as removed, what runs goes on to its end."""
    skip_due(storage, job, Cause.REMOVED)
    storage.delete_jobs([job.id])
    withdraw(storage, (run for run in storage.open_runs([job.id]) if run.status == RunStatus.PENDING), Cause.REMOVED)


def withdraw(storage: Storage, runs: Iterable[RunRow], cause: Cause) -> None:
    """End pending runs of a job whose own state needs no change, and let those start that stood behind them."""
    now = storage.now()
    outcome = Outcome(status=RunStatus.CANCELLED, cause=cause)
    ended = [run for run in runs if _end(storage, run, outcome, now) is not None]
    for run in ended:  # only now, so that none of them is given a turn
        free_lines(storage, run, held=False)
