"""The end of runs and all that follows from it, for many at a time: what was decided for each is written for all together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from cronactors.ledger.after_run import Sequel, Settled, settle
from cronactors.ledger.new_rows import finish_values
from cronactors.ledger.views import by_job
from cronactors.ledger.waiting import delete_job, insert_moments, release_crash_loops, release_waiting, stop_job, withdraw
from cronactors.model import Cause, RunStatus
from cronactors.policy import FREE_CRASHES, Outcome, in_crash_loop
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import PAUSE, JobRow, JobState, RunRow


def finish_open_run(storage: Storage, run: RunRow, outcome: Outcome, policy: RetryPolicy) -> RunRow | None:
    """End an open run, pending or running, and draw the consequences for its job as the job is now.

    Returns:
        The run as it is now; None if it was not as ``run`` says any more, and nothing has been changed.
    """
    return finish_open_runs(storage, [(run, outcome)], policy)[0]


def finish_open_runs(storage: Storage, endings: Sequence[tuple[RunRow, Outcome]], policy: RetryPolicy) -> list[RunRow | None]:
    """End several runs. Those of one job are ended one after the other: each end may change the job for the next one."""
    job_ids = [run.job_id for run, _ in endings]
    if len(set(job_ids)) < len(job_ids):
        return [finish_open_run(storage, run, outcome, policy) for run, outcome in endings]
    now = storage.now()
    jobs = storage.jobs(job_ids)
    asked = [(run, _as_asked(run, outcome, jobs.get(run.job_id))) for run, outcome in endings]
    ends = [finish_values(run, outcome, now) for run, outcome in asked]
    took_effect = storage.store_finishes(ends)
    others = by_job(storage.open_runs(job_ids))
    closed: list[RunRow | None] = []
    settled: dict[str, Settled] = {}
    for (run, outcome), end, done in zip(asked, ends, took_effect, strict=True):
        row = run.finished(end) if done else None
        closed.append(row)
        job = jobs.get(run.job_id)
        if row is not None and job is not None:
            settled[job.id] = settle(job, row, outcome, policy=policy, others=others.get(job.id, ()), now=now)
    _write(storage, jobs, settled, others)
    _let_go(storage, [run for (run, _), done in zip(asked, took_effect, strict=True) if done], jobs, settled, others)
    return closed


def _as_asked(run: RunRow, outcome: Outcome, job: JobRow | None) -> Outcome:
    """What somebody wanted to end is not put back when it is interrupted."""
    if not run.cancel_requested or outcome.cause is not Cause.INTERRUPTED:
        return outcome
    replaced = run.cause == Cause.REPLACED
    if replaced and outcome.crashed and job is not None and job.crashes > FREE_CRASHES:
        return outcome  # its next moment must not let a job that ends its process each time go on
    cause = Cause.REPLACED if replaced else Cause.CANCELLED
    return Outcome(status=RunStatus.CANCELLED, cause=cause, error=outcome.error, crashed=outcome.crashed)


def _write(storage: Storage, jobs: dict[str, JobRow], settled: dict[str, Settled], others: dict[str, list[RunRow]]) -> None:
    """Enter what is new, and let the jobs stand as they are to."""
    entered = iter(insert_moments(storage, jobs, [row for each in settled.values() for row in each.rows]))
    states = []
    for job_id, each in settled.items():
        state, rows = each.state, list(islice(entered, len(each.rows)))
        match each.sequel:
            case Sequel.GOES_ON:
                if state.next_run_at is None and state.enabled and job_id not in others and not _waits(rows):
                    state = state.disabled()
            case Sequel.HELD:
                state = state._replace(held_by=None if rows[-1] is None else rows[-1].id)
            case Sequel.STOPPED:
                state = JobState.of(stop_job(storage, jobs[job_id].with_state(state), Cause.INTERRUPTED))
            case Sequel.DONE:
                state = JobState.of(stop_job(storage, jobs[job_id].with_state(state), Cause.REMOVED))._replace(next_run_at=None)
                paused = [run for run in storage.open_runs([job_id]) if run.waits_for == PAUSE]
                withdraw(storage, paused, Cause.REMOVED)
            case Sequel.DELETED:
                delete_job(storage, jobs[job_id].with_state(state))
                continue
        states.append(state)
    storage.advance_jobs(states)


def _waits(rows: Sequence[RunRow | None]) -> bool:
    """Whether any of the rows is open; None is one whose moments were decided before."""
    return any(row is not None and row.status == RunStatus.PENDING for row in rows)


def _let_go(
    storage: Storage,
    runs: Iterable[RunRow],
    jobs: dict[str, JobRow],
    settled: dict[str, Settled],
    others: dict[str, list[RunRow]],
) -> None:
    """Let those start that waited for these runs. Nobody waits for the run of a job that has no other, but for its session."""
    suspects = False
    for run in runs:
        job, what = jobs.get(run.job_id), settled.get(run.job_id)
        if run.session is not None or run.job_id in others or (what is not None and what.rows):
            release_waiting(storage, run, held=job is not None and job.held_by == run.id)
        suspects |= run.status == RunStatus.RUNNING and (job is None or in_crash_loop(job.crashes))
    if suspects:
        release_crash_loops(storage)
