"""Claiming: what is due, in one queue in order of time, becomes running; what cannot start leaves the queue."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from cronactors.errors import CronError, InvalidJob, InvalidSchedule
from cronactors.instants import Millis
from cronactors.ledger import leases
from cronactors.ledger.close import finish_open_run
from cronactors.ledger.new_rows import (
    is_first_start,
    is_outdated_retry,
    skipped_run,
    started_run,
    waiting_run,
    waits_after_crashes,
)
from cronactors.ledger.views import check_policies, timing_of, unreadable
from cronactors.ledger.waiting import insert_moments, release_first, stop_job, withdraw
from cronactors.ledger.zone_changes import renewed
from cronactors.model import Cause, Overlap, RunStatus, Trigger
from cronactors.policy import Decision, Moments, Outcome, decide_due, in_crash_loop, misfire_from_text
from cronactors.schedules.zone_rules import RULES
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import CRASH_LOOP, Claimed, Due, JobRow, JobState, RunRow, job_key

_LOOKS = 200
"""How many places of the queue that start nothing one claim goes through; the next claim goes on from there."""


def claim_due(storage: Storage, *, owner: int, limit: int, total: int | None = None) -> list[Claimed]:
    """Begin up to ``limit`` due runs.

    Args:
        storage: Inside a transaction.
        owner: Who runs them.
        limit: How many slots are free.
        total: How many runs may go on at a time over all owners.
    """
    now = storage.now()
    if total is not None:
        limit = min(limit, total - storage.count_running())
    claimed: list[Claimed] = []
    looks = _LOOKS
    before: list[Due] = []
    while len(claimed) < limit and looks > 0:
        places = storage.due(now=now, limit=min(limit - len(claimed), looks))
        if places == before:  # nothing more; or an index of a damaged file tells what its table does not bear out
            break
        before = places
        useless = _cancel_outdated_retries(storage, places, now)
        if useless:  # what waited behind them may be due now
            looks -= useless
            continue
        together = _claim_together(storage, places, owner=owner, now=now)
        for place in places:
            looks -= 1
            if place.run_id is not None:
                begun = claim_pending(storage, place.run_id, owner=owner, now=now)
            else:
                begun = together.pop(place.job_id, None) or claim_moment(storage, place.job_id, owner=owner, now=now)
            if begun is not None:
                claimed.append(begun)
                looks += 1
    if claimed:
        leases.renew(storage, owner)
    return claimed


def _cancel_outdated_retries(storage: Storage, places: Sequence[Due], now: Millis) -> int:
    """End the attempts among the places that would start after the window of their moment; answer how many there were."""
    found = storage.runs([place.run_id for place in places if place.run_id is not None]).values()
    later = [run for run in found if run.attempt > 1 and run.waits_for is None]
    jobs = storage.jobs(list({run.job_id for run in later})) if later else {}
    useless = [run for run in later if run.job_id in jobs and is_outdated_retry(jobs[run.job_id], run, now)]
    for run in useless:
        cancel_outdated_retry(storage, jobs[run.job_id], run)
    return len(useless)


def cancel_outdated_retry(storage: Storage, job: JobRow, run: RunRow) -> None:
    """End an attempt that would start after the window of its moment, which has been decided by that as by its last retry.

    A job that waited for its backoff after crashes is paused, as when its retries are spent: a short window must not let it crash on.
    """
    error = "not started: its moment is older than the misfire window of the job"
    outcome = Outcome(status=RunStatus.CANCELLED, cause=Cause.MISFIRE, error=error, crashed=waits_after_crashes(job, run))
    finish_open_run(storage, run, outcome, RetryPolicy())


def _claim_together(storage: Storage, places: Sequence[Due], *, owner: int, now: Millis) -> dict[str, Claimed]:
    """Begin at once what needs no second look: one run of a job that has nothing else open, and shares nothing with others.

    Returns:
        What has begun, by job; all other places are for `claim_moment` and `claim_pending`.
    """
    job_ids = [place.job_id for place in places if place.run_id is None]
    jobs = storage.idle_jobs(job_ids)
    begins: list[tuple[JobRow, Decision]] = []
    decided: dict[tuple[object, ...], Decision | None] = {}  # once for all jobs with one schedule, one zone and one moment
    for job in map(jobs.get, job_ids):
        if job is None or job.session is not None or in_crash_loop(job.crashes) or job.rules != RULES:
            continue
        alike = (job.next_run_at, job.schedule, job.anchor_at, job.timezone, job.misfire, job.overlap, job.session_mode)
        if alike not in decided:
            try:
                decided[alike] = _decided(job, now)
            except (InvalidSchedule, InvalidJob):
                decided[alike] = None  # `claim_moment` stops the job
        decision = decided[alike]
        if decision is not None and len(decision.runs) == 1 and not decision.skipped and _beyond_clock(job, decision) is None:
            begins.append((job, decision))
    claims: list[Claimed] = []
    for run_id, (job, decision) in zip(storage.new_run_ids(len(begins)), begins, strict=True):
        held_by = None if job.overlap == Overlap.ALLOW_ALL else run_id
        run = started_run(job, decision.runs[0], owner=owner, now=now, run_id=run_id)
        claims.append(Claimed(run, job, decision.following, decision.decided_local, held_by))
    return {
        each.job.id: each for each in storage.insert_started_runs(claims)
    }  # the others were decided before the clock went back


def claim_moment(storage: Storage, job_id: str, *, owner: int, now: Millis) -> Claimed | None:
    """Decide the due moments of a job that holds no run: one begins, or waits for its session; others wait or are skipped."""
    job = storage.jobs([job_id])[job_id]  # a KeyError tells of a damaged file, as `run_batch` finds out
    if job.held_by is not None:
        return None
    if job.rules != RULES:
        job = renewed(storage, job)
    decision = _decide(storage, job, now)
    if decision is None:
        return None
    insert_moments(storage, {job.id: job}, [skipped_run(job, moments, Cause.MISFIRE, now) for moments in decision.skipped])
    state = JobState.of(job)._replace(next_run_at=decision.following, decided_local=decision.decided_local)
    for index, moments in enumerate(decision.runs):
        run = _begin(storage, job, moments, owner=owner, now=now)
        if run is not None:  # else decided before the clock went back
            line = None if job.overlap == Overlap.ALLOW_ALL else job_key(job_id)
            insert_moments(storage, {job.id: job}, [waiting_run(job, later, line) for later in decision.runs[index + 1 :]])
            _replace_retries(storage, run)
            state = _held(job, state, run)
            storage.advance_jobs([state])
            return None if run.started_at is None else Claimed(run, job, state.next_run_at, state.decided_local, state.held_by)
    storage.advance_jobs([_disable_if_done(storage, state)])
    return None


def _decide(storage: Storage, job: JobRow, now: Millis) -> Decision | None:
    """What the due moments become; None if there are none, or if what is stored cannot be read, which stops the job."""
    try:
        decision = _decided(job, now)
        beyond = None if decision is None else _beyond_clock(job, decision)
        if decision is not None and beyond is not None:
            decision = attrs.evolve(decision, following=timing_of(job).after_local(beyond), decided_local=beyond)
    except (InvalidSchedule, InvalidJob) as error:
        _stop_unreadable(storage, job, error)
        return None
    return decision


def _stop_unreadable(storage: Storage, job: JobRow, error: CronError) -> None:
    """Pause a job that is stored in a way that cannot be read."""
    stop_job(storage, job._replace(last_error=f"paused: {unreadable(error)}"), Cause.CANCELLED)


def _decided(job: JobRow, now: Millis) -> Decision | None:
    first = job.next_run_at
    if first is None or first > now:  # the index of a damaged file may say otherwise: nothing runs ahead of its time
        return None
    check_policies(job)
    return decide_due(timing_of(job), first=first, now=now, misfire=misfire_from_text(job.misfire))


def _beyond_clock(job: JobRow, decision: Decision) -> int | None:
    """Until when the job's times of day are decided, if the local clock is not as far: new rules have set the clock of its zone back."""
    decided, clock = job.decided_local, decision.decided_local
    return decided if decided is not None and clock is not None and decided > clock else None


def _begin(storage: Storage, job: JobRow, moments: Moments, *, owner: int, now: Millis) -> RunRow | None:
    """Begin a run, or let it wait for its session or for other suspects; None if its moment is taken."""
    barrier = _barrier(storage, job, job.session)
    run = started_run(job, moments, owner=owner, now=now) if barrier is None else waiting_run(job, moments, barrier)
    return insert_moments(storage, {job.id: job}, [run])[0]


def _barrier(storage: Storage, job: JobRow, session: str | None) -> str | None:
    """What runs of other jobs keep a run of the job waiting for, if anything: its session, or that no other suspect goes on."""
    if session is not None and storage.session_busy(session):
        return session
    if in_crash_loop(job.crashes):
        running = storage.jobs([run.job_id for run in storage.running()])
        if any(in_crash_loop(other.crashes) for other in running.values()):
            return CRASH_LOOP
    return None


def cancel_overlapped(storage: Storage) -> bool:
    """Where the new run of a job is to take the place of its open one: let the open one be ended, and the new one wait for that.

    Returns:
        Whether anything was changed.
    """
    now = storage.now()
    ids = storage.cancelling(now=now, limit=_LOOKS)
    due = [job for job in storage.jobs(ids).values() if job.next_run_at is not None and job.next_run_at <= now]
    for job in due:
        _cancel_other(storage, job, now)
    return bool(due)


def _cancel_other(storage: Storage, job: JobRow, now: Millis) -> None:
    if job.rules != RULES:
        job = renewed(storage, job)
    decision = _decide(storage, job, now)
    if decision is None:
        return
    jobs = {job.id: job}
    insert_moments(storage, jobs, [skipped_run(job, moments, Cause.MISFIRE, now) for moments in decision.skipped])
    storage.advance_jobs([JobState.of(job)._replace(next_run_at=decision.following, decided_local=decision.decided_local)])
    if not decision.runs:
        return
    opened = storage.open_runs([job.id])
    held = next((run for run in opened if run.id == job.held_by), None)
    if held is not None and waits_after_crashes(job, held):
        insert_moments(storage, jobs, [skipped_run(job, moments, Cause.OVERLAP, now) for moments in decision.runs])
        return
    *older, newest = decision.runs
    insert_moments(storage, jobs, [skipped_run(job, moments, Cause.REPLACED, now) for moments in older])
    place = newest.at  # in the line of the session too, where it would come last each time
    if held is not None and held.status == RunStatus.PENDING:
        place = min(place, held.ready_at)
    waiter = insert_moments(storage, jobs, [waiting_run(job, newest, job_key(job.id))._replace(ready_at=place)])[0]
    if waiter is None:  # decided before the clock went back: it may be the moment of the very run that is open
        return
    withdraw(storage, [run for run in opened if is_first_start(run) and run.id != job.held_by], Cause.REPLACED)
    if held is None:
        return
    if held.status == RunStatus.RUNNING:
        going_on = [run.id for run in opened if run.status == RunStatus.RUNNING]  # several if the job allowed all until now
        storage.mark_runs(going_on, cause=Cause.REPLACED.value, cancel_requested=True)
    else:  # it waits for its session
        finish_open_run(storage, held, Outcome(status=RunStatus.CANCELLED, cause=Cause.REPLACED), RetryPolicy())


def _cannot_run(storage: Storage, job: JobRow, run: RunRow) -> bool:
    """Whether the settings of a pending run's job cannot be read, which stops the job; a run that was asked for has failed."""
    try:
        check_policies(job)
    except InvalidJob as error:
        _stop_unreadable(storage, job, error)
        if run.manual:
            outcome = Outcome(status=RunStatus.FAILED, cause=Cause.GAVE_UP, error=unreadable(error))
            finish_open_run(storage, run, outcome, RetryPolicy())
        return True
    return False


def _replace_retries(storage: Storage, run: RunRow) -> None:
    """Let a moment take the place of a retry that waits for its time or behind it; what was interrupted is run again."""
    replaced = [
        other
        for other in storage.open_runs([run.job_id])
        if (other.status, other.trigger, other.manual) == (RunStatus.PENDING, Trigger.RETRY, 0)
        and other.waits_for in (None, job_key(run.job_id))
    ]
    withdraw(storage, replaced, Cause.REPLACED)


def _held(job: JobRow, state: JobState, run: RunRow) -> JobState:
    """The job's state once the run has begun, or waits for its session: other runs of the job have to wait, unless it allows all."""
    if job.overlap != Overlap.ALLOW_ALL:
        state = state._replace(held_by=run.id)
    return state if run.started_at is None else state._replace(last_run_at=run.started_at)


def _disable_if_done(storage: Storage, state: JobState) -> JobState:
    if state.next_run_at is None and not storage.open_runs([state.id]):
        return state.disabled()
    return state


def claim_pending(storage: Storage, run_id: int, *, owner: int, now: Millis) -> Claimed | None:
    """Begin a pending run; if its job, its session or another suspect keeps it waiting it joins that line instead."""
    run = storage.runs([run_id]).get(run_id)
    if run is None or run.status != RunStatus.PENDING or run.waits_for is not None:
        return None
    job = storage.jobs([run.job_id]).get(run.job_id)
    if job is None:
        withdraw(storage, [run], Cause.REMOVED)
        return None
    if _cannot_run(storage, job, run):
        return None
    held = job.held_by not in (None, run.id) and job.overlap != Overlap.ALLOW_ALL
    barrier = job_key(job.id) if held else _barrier(storage, job, run.session)
    if barrier is not None:
        storage.set_waits_for([(run.id, barrier)])
        if not held:
            storage.advance_jobs([_held(job, JobState.of(job), run)])
        if run.session not in (None, barrier) and not storage.session_busy(run.session):
            release_first(storage, run.session)  # it was this run's turn
        return None
    if is_first_start(run):
        _replace_retries(storage, run)
    storage.start_pending_runs([run.id], owner=owner, now=now)
    run = run._replace(status=RunStatus.RUNNING.value, owner=owner, started_at=now)
    state = _held(job, JobState.of(job), run)
    storage.advance_jobs([state])
    return Claimed(run, job, state.next_run_at, state.decided_local, state.held_by)
