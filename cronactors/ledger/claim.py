"""Claiming: due moments and pending runs start in order of time, as many as there are free slots. Runs on the storage thread.

A claim is one transaction: it inserts a run as running, or marks a pending one so, and moves the next moment of its job on. A process
that crashes after it leaves a running run behind, which recovery finds; no moment starts twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum, auto

import attrs

from cronactors.errors import InvalidJob
from cronactors.instants import Millis
from cronactors.ledger import alerting, cancel_other, leases, pausing
from cronactors.ledger.claim_together import claim_together
from cronactors.ledger.due_moments import (
    decide_due_moments,
    disable_unreadable,
)
from cronactors.ledger.finish import finish_open_run
from cronactors.ledger.new_rows import skipped_run, started_run, waiting_run
from cronactors.ledger.open_runs import (
    held_state,
    is_first_start,
    is_outdated_retry,
    is_replaced_retry,
    sessions_of,
    waits_after_crashes,
    waits_for_its_job,
)
from cronactors.ledger.run_requests import requested_data
from cronactors.ledger.stored_values import check_policies, unreadable
from cronactors.ledger.totals import total_of_all
from cronactors.ledger.waiting import cancel_pending, insert_moments, release_first
from cronactors.ledger.zone_changes import with_current_rules
from cronactors.model import Cause, Overlap, RunStatus
from cronactors.policy import Moments, Outcome, in_crash_loop
from cronactors.settings import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import CRASH_LOOP, Claimed, DueItem, JobRow, JobState, RunRow, job_key

TOTAL = "total"
"""The key (`Storage.hold`) of the number of running runs."""
MOST_PASSED_OVER = 200
"""How many due rows that start nothing one claim passes over; the next claim continues behind them."""
MOST_STEPS = 10
"""How many pages a claim beside other transactions reads, and rows that it claims one by one: a finish waits for the sessions that it
holds, but gives up after 200 ms."""


class BlockedBy(Enum):
    """Why another claim for the same slots would start nothing now.

    TOTAL_LIMIT: as many runs are running as all schedulers of the file may run at a time; a finish, or a tick, changes that.
    NO_PROGRESS: something is due, and this claim neither started nor decided anything. It passed over `MOST_PASSED_OVER` rows, another
    transaction decides about what is due, the owner was declared dead, or an index of a damaged file names rows that its table does not
    confirm. A claim at once could spin; after a short pause it cannot.
    """

    TOTAL_LIMIT = auto()
    NO_PROGRESS = auto()


@attrs.frozen
class Claims:
    """The result of a claim.

    Attributes:
        runs: The runs that it started, in order of time.
        decided_slotless: Whether it decided moments of `Overlap.CANCEL_OTHER`, by which it may have finished runs that were pending, and
            requested that running ones are cancelled; or ended pauses.
        blocked_by: Why another claim would start nothing now. None otherwise: if this claim started or decided something, more may
            be due; if not, nothing is due, or no slot is left.
    """

    runs: list[Claimed]
    decided_slotless: bool = False
    blocked_by: BlockedBy | None = None


def claim_due(storage: Storage, *, owner: int, limit: int, total: int | None = None, slotless: bool = False) -> Claims:
    """Start up to ``limit`` due runs.

    Args:
        storage: Inside a transaction.
        owner: The owner that executes them.
        limit: How many slots are free; 0 only decides what needs none.
        total: How many runs may be running at a time over all owners of the store, unless another living one has a smaller number; None:
            no limit.
        slotless: Whether first jobs are resumed whose pause ends, and open runs cancelled that the next moment of their job replaces.
            That needs no free slot and costs queries, so only the clock requests it, when `NextTimes.slotless` is due.
    """
    now = storage.now()
    resumed = slotless and pausing.end_pauses(storage)
    decided = (slotless and cancel_other.cancel_overlapped(storage)) or resumed
    stuck = slotless and not decided
    allowed: int | None = None
    if limit > 0 and not leases.renew(storage, owner):
        return Claims([], decided, BlockedBy.NO_PROGRESS)
    if total is not None and limit > 0:
        if not storage.hold(TOTAL, wait=False):
            return Claims([], decided, BlockedBy.NO_PROGRESS)
        allowed = max(0, total_of_all(storage, total) - storage.count_running())
        limit = min(limit, allowed)
    runs, all_seen = _claim_in_order(storage, owner=owner, limit=limit, now=now)
    if stuck or not (runs or decided or all_seen):
        return Claims(runs, decided, BlockedBy.NO_PROGRESS)
    return Claims(runs, decided, BlockedBy.TOTAL_LIMIT if len(runs) == allowed else None)


def _claim_in_order(storage: Storage, *, owner: int, limit: int, now: Millis) -> tuple[list[Claimed], bool]:
    """Start due runs in order of time.

    Every due row that cannot start leaves the queue: its run waits with a `RunRow.waits_for`, or its moments are skipped. So the next
    query finds the rows behind it, and no claim walks over what keeps waiting.

    Returns:
        The runs; and whether another claim at once could not spin: the queue holds nothing more that is due, every slot is used, or a
        claim that has come to `MOST_STEPS` has taken something out of the queue.
    """
    claimed: list[Claimed] = []
    to_pass_over = MOST_PASSED_OVER
    steps_left = MOST_STEPS if storage.writes_side_by_side else math.inf
    before: list[DueItem] = []
    while len(claimed) < limit:
        if to_pass_over <= 0:
            return claimed, False
        if steps_left <= 0:
            return claimed, storage.due(now=now, limit=1) != before[:1]
        due = storage.due(now=now, limit=min(limit - len(claimed), to_pass_over))
        if due == before:  # none, or rows that cannot be decided now: see `BlockedBy.NO_PROGRESS`
            return claimed, not due and not storage.left_out
        before = due
        steps_left -= 1
        outdated = _cancel_outdated_retries(storage, due, now)
        if outdated:  # runs that waited for them may be due now
            to_pass_over -= outdated
            steps_left -= outdated
            continue
        together = claim_together(storage, due, owner=owner, now=now)
        for each in due:
            if each in together:
                started = together.pop(each)
            elif steps_left <= 0:
                continue  # the next claim begins with it
            else:
                steps_left -= 1
                started = _claim_one(storage, each, owner=owner, now=now)
            if started is None:
                to_pass_over -= 1
            else:
                claimed.append(started)
    return claimed, True


def _claim_one(storage: Storage, due: DueItem, *, owner: int, now: Millis) -> Claimed | None:
    if due.run_id is None:
        return claim_moment(storage, due.job_id, owner=owner, now=now)
    return claim_pending(storage, due.run_id, owner=owner, now=now)


def _cancel_outdated_retries(storage: Storage, due: Sequence[DueItem], now: Millis) -> int:
    """Cancel the due retries that would start after the misfire window of their moment, and count them."""
    found = storage.runs([each.run_id for each in due if each.run_id is not None]).values()
    retries = [run for run in found if run.attempt > 1 and run.waits_for is None]
    jobs = storage.jobs(list({run.job_id for run in retries})) if retries else {}
    outdated = [run for run in retries if run.job_id in jobs and is_outdated_retry(jobs[run.job_id], run, now)]
    outdated = [run for run in outdated if _may_decide(storage, jobs[run.job_id], run)]
    for run in outdated:
        cancel_outdated_retry(storage, jobs[run.job_id], run)
    return len(outdated)


def cancel_outdated_retry(storage: Storage, job: JobRow, run: RunRow) -> None:
    """Cancel a retry that would start after the misfire window of its moment. That decides the moment, as its last retry would.

    A job that waited for this retry after crashes is disabled, as it is when its retries are spent: otherwise a window shorter than the
    delay of the retry would let it crash again and again.
    """
    error = "not started: its moment is older than the misfire window of the job"
    outcome = Outcome(status=RunStatus.CANCELLED, cause=Cause.MISFIRE, error=error, crashed=waits_after_crashes(job, run))
    finish_open_run(storage, run, outcome, RetryPolicy())


def _may_decide(storage: Storage, job: JobRow, run: RunRow | None = None) -> bool:
    """Hold what the runs of a job share with those of others; return False if another transaction holds it, and may change it.

    What is decided may also cancel other runs of the job, which use other sessions if the job was edited.
    """
    keys = sessions_of(job, run)
    if storage.writes_side_by_side:
        pending = [other for other in storage.open_runs([job.id]) if other.status == RunStatus.PENDING]
        keys += [other.session for other in pending if other.session is not None]
    if in_crash_loop(job.crashes):
        keys.append(CRASH_LOOP)
    return storage.hold(*keys, wait=False)


def claim_moment(storage: Storage, job_id: str, *, owner: int, now: Millis) -> Claimed | None:
    """Decide the due moments of a job that no run holds.

    The first of them that has no row yet starts, or waits for its session or for a crash loop; the later ones wait for it, or start by
    the next claim if the job allows all overlaps. Moments outside the misfire window are skipped.

    Returns:
        The started run; None if none started.

    Raises:
        KeyError: There is no such job: an index of the file is damaged, which the store finds out.
    """
    job = storage.jobs([job_id])[job_id]
    if job.held_by is not None or not _may_decide(storage, job):
        return None
    job = with_current_rules(storage, job)
    decision = decide_due_moments(storage, job, now)
    if decision is None:
        return None
    alerting.report_missed(storage, [alerting.DecidedMoments(job, decision.runs, decision.skipped)], owner=owner)
    insert_moments(storage, {job.id: job}, [skipped_run(job, moments, Cause.MISFIRE, now) for moments in decision.skipped])
    state = JobState.of(job)._replace(next_run_at=decision.following, decided_local=decision.decided_local)
    for index, moments in enumerate(decision.runs):
        run = _insert_first(storage, job, moments, owner=owner, now=now)
        if run is not None:
            key = None if job.overlap == Overlap.ALLOW_ALL else job_key(job_id)
            insert_moments(storage, {job.id: job}, [waiting_run(job, later, key) for later in decision.runs[index + 1 :]])
            _replace_retries(storage, run)
            state = held_state(job, state, run)
            storage.update_job_states([state])
            return None if run.started_at is None else Claimed(run, job, state.next_run_at, state.decided_local, state.held_by)
    done = _disabled_if_done(storage, state)
    storage.update_job_states([done])
    if not done.enabled:
        alerting.report_ended(storage, job, owner=owner)
    return None


def _insert_first(storage: Storage, job: JobRow, moments: Moments, *, owner: int, now: Millis) -> RunRow | None:
    """Insert a run that starts now, or waits; None if its moments were decided before the clock was set back, and have rows."""
    waits_for = _waits_for(storage, job, job.session)
    run = started_run(job, moments, owner=owner, now=now) if waits_for is None else waiting_run(job, moments, waits_for)
    return insert_moments(storage, {job.id: job}, [run])[0]


def _waits_for(storage: Storage, job: JobRow, session: str | None) -> str | None:
    """Return the `RunRow.waits_for` of a run that has to wait for runs of other jobs; None if it can start.

    It waits for a run that uses its session. If its job is in a crash loop it also waits for running runs of other such jobs: they run
    one at a time, so that the job that ends the process each time is the only one to be counted for it (`policy.in_crash_loop`).
    """
    if session is not None and storage.busy_sessions([session]):
        return session
    if in_crash_loop(job.crashes):
        running = storage.read_jobs([run.job_id for run in storage.running()])
        if any(in_crash_loop(other.crashes) for other in running.values()):
            return CRASH_LOOP
    return None


def claim_pending(storage: Storage, run_id: int, *, owner: int, now: Millis) -> Claimed | None:
    """Start a pending run that is due; if its job, its session or a crash loop keeps it waiting, store that it waits for it.

    Returns:
        The started run; None if it did not start.
    """
    run = storage.runs([run_id]).get(run_id)
    if run is None or run.status != RunStatus.PENDING or run.waits_for is not None:
        return None
    job = storage.jobs([run.job_id]).get(run.job_id)
    if job is None:
        if storage.hold(*sessions_of(None, run), wait=False):
            cancel_pending(storage, [run], Cause.REMOVED)
        return None
    if not _may_decide(storage, job, run) or is_outdated_retry(job, run, now):
        return None
    if _cannot_run(storage, job, run):
        return None
    other_holds = waits_for_its_job(job, run)
    waits_for = job_key(job.id) if other_holds else _waits_for(storage, job, run.session)
    if waits_for is not None:
        storage.set_waits_for([(run.id, waits_for)])
        if not other_holds:
            storage.update_job_states([held_state(job, JobState.of(job), run)])
        if run.session not in (None, waits_for) and not storage.busy_sessions([run.session]):
            release_first(storage, run.session)  # this run was to be the next of the session
        return None
    if is_first_start(run):
        _replace_retries(storage, run)
    storage.start_pending_runs([run.id], owner=owner, now=now)
    run = run._replace(status=RunStatus.RUNNING.value, owner=owner, started_at=now)
    state = held_state(job, JobState.of(job), run)
    storage.update_job_states([state])
    return Claimed(run, job, state.next_run_at, state.decided_local, state.held_by, requested_data(storage, run))


def _cannot_run(storage: Storage, job: JobRow, run: RunRow) -> bool:
    """Return whether the policies of a pending run's job cannot be read. The job is disabled then, and a requested run fails."""
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
    """Cancel the retries that a new moment replaces: see `is_replaced_retry`."""
    replaced = [other for other in storage.open_runs([run.job_id]) if is_replaced_retry(other)]
    cancel_pending(storage, replaced, Cause.REPLACED)


def _disabled_if_done(storage: Storage, state: JobState) -> JobState:
    """Return the state of a job, disabled if it has neither a moment nor an open run left."""
    if state.next_run_at is None and not storage.open_runs([state.id]):
        return state.disabled()
    return state
