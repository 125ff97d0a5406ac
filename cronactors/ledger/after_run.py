"""What a finished run means for its job: a retry, the moments that it overlapped, and whether the job continues.

Pure: rows and the time in, changes out. A transaction finishes up to 100 runs, and reading and writing for many at a time costs a third
of doing it one by one. So `cronactors.ledger.finish` reads the jobs and their open runs first, we decide here for one run after the
other, and it writes all changes together. Nothing that is decided here may depend on the storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import attrs

from cronactors.instants import Millis
from cronactors.ledger.new_rows import retry_run, skipped_run, waiting_run
from cronactors.ledger.open_runs import holder, is_first_start
from cronactors.ledger.stored_values import has_policies, stored_schedule, stored_timing
from cronactors.model import Cause, Overlap, RunStatus
from cronactors.policy import Decision, Outcome, RetryPlan, decide_due, decide_overlapped, misfire_from_text, plan_retry
from cronactors.schedules.schedule import OneShot
from cronactors.settings import RetryPolicy
from cronactors.storage.rows import JobRow, JobState, RunRow, job_key


class JobAction(Enum):
    """The fate of the job of a finished run.

    CONTINUE: It is written as `Consequences.state` says, and disabled if it has neither a moment nor an open run left.
    HOLD_FOR_RETRY: It starts nothing before the retry.
    DISABLE: It crashed on every retry that it had.
    DELETE: It was to be deleted after this run.
    MARK_DONE: As DELETE, but a file lists the job: it stays, disabled, since the next start would add it again.
    """

    CONTINUE = auto()
    HOLD_FOR_RETRY = auto()
    DISABLE = auto()
    DELETE = auto()
    MARK_DONE = auto()


@attrs.frozen
class Consequences:
    """The changes that follow from a finished run.

    Attributes:
        state: The job's new state, unless ``action`` changes more.
        rows: Runs to insert: those of moments that were overlapped, and last the retry, if there is one.
        action: The fate of the job.
    """

    state: JobState
    rows: list[RunRow]
    action: JobAction


def after_run(
    job: JobRow, run: RunRow, outcome: Outcome, *, policy: RetryPolicy, others: Sequence[RunRow], now: Millis
) -> Consequences:
    """Decide what a finished run means for its job.

    Four things follow from a run, and they depend on each other in this order. The outcome decides whether its moment is retried. If
    the run held the job, so that moments that came due had to wait for it, another open run may hold it next; only if none does are
    those moments decided, by the job's overlap policy. Then the moment of the run is decided, or a retry will decide it: a job to be
    deleted after its run is deleted, a job whose process crashed on its last retry is disabled. And if the process crashed more than
    twice in a row (`FREE_CRASHES`), the job has to wait for its retry, as the next moment would crash it again without any delay.

    Args:
        job: As it is stored.
        run: The finished run.
        outcome: Its outcome.
        policy: Delays of retries.
        others: Other open runs of the job.
        now: The time.
    """
    crashes = 0 if _finished_by_itself(outcome) else job.crashes
    retry = _plan_retry(job, run, outcome, crashes=crashes, policy=policy, now=now)
    held_job = job.held_by == run.id
    held_by = holder(job, others) if held_job else job.held_by
    state = JobState.of(job)._replace(
        held_by=held_by,
        last_error=_last_error(job, run, outcome),
        crashes=crashes,
        consecutive_failures=_consecutive_failures(job, outcome),
    )
    rows: list[RunRow] = []
    if held_job and held_by is None and _decides_overlapped(job, run, outcome):
        state, rows = _decide_overlapped(job, run, state, others, now)
    if retry is None:
        return Consequences(state, rows, _action_without_retry(job, run, outcome))
    rows.append(retry_run(job, run, retry))
    in_backoff = outcome.crashed and retry.failures > run.failures and held_by is None and job.enabled
    return Consequences(state, rows, JobAction.HOLD_FOR_RETRY if in_backoff else JobAction.CONTINUE)


def _finished_by_itself(outcome: Outcome) -> bool:
    """Return whether the process lived to the end of the run, so that crashes before it do not count any more."""
    return outcome.status is RunStatus.SUCCESS or outcome.cause in (Cause.ERROR, Cause.TIMEOUT, Cause.GAVE_UP)


def _plan_retry(
    job: JobRow, run: RunRow, outcome: Outcome, *, crashes: int, policy: RetryPolicy, now: Millis
) -> RetryPlan | None:
    if run.cancel_requested and not outcome.crashed:
        return None  # cancelled by a user or by the next moment: it failed before the cancellation reached it
    return plan_retry(
        outcome,
        failures=run.failures,
        crashes=crashes,
        max_retries=job.max_retries,
        policy=policy,
        ready_at=run.ready_at,
        now=now,
    )


def _consecutive_failures(job: JobRow, outcome: Outcome) -> int:
    """Count the runs that failed or timed out since the last success; an interruption or a cancellation says nothing."""
    if outcome.status is RunStatus.SUCCESS:
        return 0
    return job.consecutive_failures + (outcome.cause in (Cause.ERROR, Cause.TIMEOUT, Cause.GAVE_UP))


def _last_error(job: JobRow, run: RunRow, outcome: Outcome) -> str | None:
    if outcome.status is RunStatus.SUCCESS:
        return None
    return run.error if outcome.status is RunStatus.FAILED and run.error else job.last_error


def _decides_overlapped(job: JobRow, run: RunRow, outcome: Outcome) -> bool:
    """Return whether moments that came due during the run are decided now.

    Not after a crash: how long the run was running, and so what it overlapped, is not known. Not for ALLOW_ALL and CANCEL_OTHER, which
    decide each moment when it comes.
    """
    decided_when_due = job.overlap in (Overlap.ALLOW_ALL, Overlap.CANCEL_OTHER)
    return run.started_at is not None and not outcome.crashed and not decided_when_due


def _decide_overlapped(
    job: JobRow, run: RunRow, state: JobState, others: Sequence[RunRow], now: Millis
) -> tuple[JobState, list[RunRow]]:
    """Buffer or skip the moments that came due while the run was running.

    Moments from before it started were missed for another reason, such as a full pool: they are decided by the misfire policy.

    Returns:
        The job's state with the first moment after them, and their rows.
    """
    first, started_at = job.next_run_at, run.started_at or 0
    if first is None or first > now or not job.enabled:
        return state, []
    timing = stored_timing(job)
    if timing is None or not has_policies(job):
        return state, []  # the next claim disables the job
    if (
        job.pruned_until is not None and first <= job.pruned_until <= now and not isinstance(timing.schedule, OneShot)
    ):  # since the clock was set back and forth
        following = timing.after(job.pruned_until)
        if following is None or following > now:
            return state._replace(next_run_at=following), []
        first = following
    rows: list[RunRow] = []
    key = job_key(job.id)
    waiting = sum(other.waits_for == key and is_first_start(other) for other in others)
    if first <= started_at:
        late = decide_due(timing, first=first, now=min(started_at, now), misfire=misfire_from_text(job.misfire))
        if late.following is None or late.following > now:
            return state, []  # nothing was overlapped; a claim decides the late moments
        rows += _rows(job, late, Cause.MISFIRE, now)
        waiting += len(late.runs)
        first = late.following
    decision = decide_overlapped(timing, first=first, now=now, overlap=Overlap(job.overlap), waiting=waiting)
    rows += _rows(job, decision, Cause.OVERLAP, now)
    return state._replace(next_run_at=decision.following, decided_local=decision.decided_local), rows


def _rows(job: JobRow, decision: Decision, cause: Cause, now: Millis) -> list[RunRow]:
    """Make the rows of a decision: its runs wait for the job, its skipped moments are recorded."""
    key = job_key(job.id)
    waiting = [waiting_run(job, moments, key) for moments in decision.runs]
    return waiting + [skipped_run(job, moments, cause, now) for moments in decision.skipped]


def _action_without_retry(job: JobRow, run: RunRow, outcome: Outcome) -> JobAction:
    """Decide what happens to a job now that the moment of its run is decided: it may have been the last one."""
    has_moment = not run.manual and outcome.cause is not Cause.REPLACED
    failed = outcome.status is RunStatus.FAILED and (not run.cancel_requested or outcome.crashed)
    spent = has_moment and (failed or outcome.status is RunStatus.SUCCESS or outcome.cause is Cause.MISFIRE)
    if job.delete_after_run and (spent or (has_moment and isinstance(stored_schedule(job), OneShot))):
        return JobAction.DELETE if job.origin is None else JobAction.MARK_DONE
    return JobAction.DISABLE if spent and outcome.crashed else JobAction.CONTINUE
