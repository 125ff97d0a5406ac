"""Claiming: what is due, in one queue in order of time, becomes running; what cannot start leaves the queue."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import attrs

from cronactors.errors import InvalidJob, InvalidSchedule
from cronactors.instants import Millis
from cronactors.ledger import cancel_other, leases
from cronactors.ledger.due_moments import decide_due_moments, decided_ahead_of_clock, disable_unreadable, due_decision
from cronactors.ledger.finish import finish_open_run
from cronactors.ledger.new_rows import skipped_run, started_run, waiting_run
from cronactors.ledger.open_runs import is_first_start, is_outdated_retry, waits_after_crashes
from cronactors.ledger.stored_values import check_policies, unreadable
from cronactors.ledger.waiting import cancel_pending, insert_moments, release_first
from cronactors.ledger.zone_changes import recomputed
from cronactors.model import Cause, Overlap, RunStatus, Trigger
from cronactors.policy import Decision, Moments, Outcome, in_crash_loop
from cronactors.schedules.zone_rules import RULES
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import CRASH_LOOP, Claimed, DueItem, JobRow, JobState, RunRow, job_key

MOST_PASSED_OVER = 200
"""How many due rows that start nothing one claim passes over; the next claim continues behind them."""


class BlockedBy(Enum):
    """Why another claim for the same slots would start nothing now.

    TOTAL_LIMIT: as many runs are running as all schedulers of the file may run at a time; a finish, or a tick, changes that.
    NO_PROGRESS: something is due, and this claim neither started nor cancelled anything. It passed over `MOST_PASSED_OVER` rows, or an
    index of a damaged file names rows that its table does not confirm. A claim at once could spin; after a short pause it cannot.
    """

    TOTAL_LIMIT = auto()
    NO_PROGRESS = auto()


@attrs.frozen
class Claims:
    """What a claim has done.

    Attributes:
        runs: The runs that it started, in order of time.
        cancelled_overlapped: Whether it decided moments of `Overlap.CANCEL_OTHER`: it may have finished runs that were pending, and have
            requested that running ones are cancelled.
        blocked_by: Why another claim would start nothing now; None: if this one started or cancelled something, more may be due, else
            nothing is due or every slot is used.
    """

    runs: list[Claimed]
    cancelled_overlapped: bool = False
    blocked_by: BlockedBy | None = None


def claim_due(storage: Storage, *, owner: int, limit: int, total: int | None = None, cancel_overlapped: bool = False) -> Claims:
    """Start up to ``limit`` due runs.

    Args:
        storage: Inside a transaction.
        owner: The owner that executes them.
        limit: How many slots are free; 0 only cancels.
        total: How many runs may be running at a time over all owners; None: any number.
        cancel_overlapped: Whether open runs are cancelled first that the next moment of their job replaces. That needs no free slot and
            costs a query, so only the clock requests it, when `Upcoming.cancelling` is due.
    """
    now = storage.now()
    cancelled = cancel_overlapped and cancel_other.cancel_overlapped(storage)
    stuck = cancel_overlapped and not cancelled
    allowed: int | None = None
    if total is not None and limit > 0:
        allowed = max(0, total - storage.count_running())
        limit = min(limit, allowed)
    runs, all_seen = _claim_in_order(storage, owner=owner, limit=limit, now=now)
    if runs:
        leases.renew(storage, owner)
    if stuck or not (runs or cancelled or all_seen):
        return Claims(runs, cancelled, BlockedBy.NO_PROGRESS)
    return Claims(runs, cancelled, BlockedBy.TOTAL_LIMIT if len(runs) == allowed else None)


def _claim_in_order(storage: Storage, *, owner: int, limit: int, now: Millis) -> tuple[list[Claimed], bool]:
    """Start due runs in order of time.

    Returns:
        The runs; and whether nothing is left that is due, or no slot is.
    """
    claimed: list[Claimed] = []
    to_pass_over = MOST_PASSED_OVER
    before: list[DueItem] = []
    while len(claimed) < limit:
        if to_pass_over <= 0:
            return claimed, False
        due = storage.due(now=now, limit=min(limit - len(claimed), to_pass_over))
        if due == before:  # none, or the index of a damaged file names rows that its table does not confirm
            return claimed, not due
        before = due
        outdated = _cancel_outdated_retries(storage, due, now)
        if outdated:  # runs that waited behind them may be due now
            to_pass_over -= outdated
            continue
        together = _claim_together(storage, due, owner=owner, now=now)
        for each in due:
            if each.run_id is not None:
                started = claim_pending(storage, each.run_id, owner=owner, now=now)
            else:
                started = together.pop(each.job_id, None) or claim_moment(storage, each.job_id, owner=owner, now=now)
            if started is None:
                to_pass_over -= 1
            else:
                claimed.append(started)
    return claimed, True


def _cancel_outdated_retries(storage: Storage, places: Sequence[DueItem], now: Millis) -> int:
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


def _claim_together(storage: Storage, places: Sequence[DueItem], *, owner: int, now: Millis) -> dict[str, Claimed]:
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
                decided[alike] = due_decision(job, now)
            except (InvalidSchedule, InvalidJob):
                decided[alike] = None  # `claim_moment` stops the job
        decision = decided[alike]
        if (
            decision is not None
            and len(decision.runs) == 1
            and not decision.skipped
            and decided_ahead_of_clock(job, decision) is None
        ):
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
        job = recomputed(storage, job)
    decision = decide_due_moments(storage, job, now)
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
            storage.update_job_states([state])
            return None if run.started_at is None else Claimed(run, job, state.next_run_at, state.decided_local, state.held_by)
    storage.update_job_states([_disable_if_done(storage, state)])
    return None


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


def _cannot_run(storage: Storage, job: JobRow, run: RunRow) -> bool:
    """Whether the settings of a pending run's job cannot be read, which stops the job; a run that was asked for has failed."""
    try:
        check_policies(job)
    except InvalidJob as error:
        disable_unreadable(storage, job, error)
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
    cancel_pending(storage, replaced, Cause.REPLACED)


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
        cancel_pending(storage, [run], Cause.REMOVED)
        return None
    if _cannot_run(storage, job, run):
        return None
    held = job.held_by not in (None, run.id) and job.overlap != Overlap.ALLOW_ALL
    barrier = job_key(job.id) if held else _barrier(storage, job, run.session)
    if barrier is not None:
        storage.set_waits_for([(run.id, barrier)])
        if not held:
            storage.update_job_states([_held(job, JobState.of(job), run)])
        if run.session not in (None, barrier) and not storage.session_busy(run.session):
            release_first(storage, run.session)  # it was this run's turn
        return None
    if is_first_start(run):
        _replace_retries(storage, run)
    storage.start_pending_runs([run.id], owner=owner, now=now)
    run = run._replace(status=RunStatus.RUNNING.value, owner=owner, started_at=now)
    state = _held(job, JobState.of(job), run)
    storage.update_job_states([state])
    return Claimed(run, job, state.next_run_at, state.decided_local, state.held_by)
