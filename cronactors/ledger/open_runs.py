"""What an open run means for its job: is it a first start, is it outdated, does it hold the job. Pure: rows and the time in."""

from __future__ import annotations

from collections.abc import Iterable

from cronactors.errors import InvalidJob
from cronactors.instants import Millis
from cronactors.model import Overlap, RunStatus, Trigger
from cronactors.policy import FREE_CRASHES, is_outside_window, misfire_from_text
from cronactors.storage.rows import JobRow, JobState, RunRow, job_key


def is_first_start(run: RunRow) -> bool:
    """Return whether a run is pending, and its moment has not been started before."""
    return run.status == RunStatus.PENDING and run.attempt == 1 and not run.manual


def sessions_of(job: JobRow | None, run: RunRow | None) -> list[str]:
    """Return the sessions of a run and of the other runs of its job: what is decided about them concerns who waits for them."""
    return [session for session in (job and job.session, run and run.session) if session is not None]


def waits_for_its_job(job: JobRow, run: RunRow) -> bool:
    """Return whether a pending run has to wait for another one that holds its job."""
    return job.held_by not in (None, run.id) and job.overlap != Overlap.ALLOW_ALL


def is_replaced_retry(run: RunRow) -> bool:
    """Return whether a run is a retry that a new moment of its job replaces: it is due later, or waits for the job.

    Interrupted runs start again.
    """
    is_retry = (run.status, run.trigger, run.manual) == (RunStatus.PENDING, Trigger.RETRY, 0)
    return is_retry and run.waits_for in (None, job_key(run.job_id))


def held_state(job: JobRow, state: JobState, run: RunRow) -> JobState:
    """Return the state of a job whose run has started, or waits for its session: it holds the job, unless that allows all overlaps."""
    if job.overlap != Overlap.ALLOW_ALL:
        state = state._replace(held_by=run.id)
    return state if run.started_at is None else state._replace(last_run_at=run.started_at)


def is_outdated_retry(job: JobRow, run: RunRow, now: Millis) -> bool:
    """Return whether a run is a pending retry of a moment that is by now older than the job's misfire window.

    The window does not apply to a first attempt, which was decided inside it and waits only for its own job or session, nor to a run
    that a user requested, which has no moment.
    """
    retry = run.status == RunStatus.PENDING and run.attempt > 1 and not run.manual
    return retry and is_too_late(job, run.scheduled_at, now)


def is_too_late(job: JobRow, moment: Millis, now: Millis) -> bool:
    """Return whether a moment is by now older than the job's misfire window.

    A policy that cannot be read has no window; the claim disables its job.
    """
    try:
        return is_outside_window(misfire_from_text(job.misfire), moment, now)
    except InvalidJob:
        return False


def waits_after_crashes(job: JobRow, run: RunRow) -> bool:
    """Return whether a run is the retry that a crash loop waits for: no new moment may start before it."""
    return run.id == job.held_by and run.status == RunStatus.PENDING and job.crashes > FREE_CRASHES


def holder(job: JobRow, open_runs: Iterable[RunRow]) -> int | None:
    """Return the open run that holds a job from now on: it must finish before another run of the job may start.

    We decide it again when the run that held the job has finished, and when the job's overlap policy has changed. A job that allowed
    all overlaps may have several running runs; of these the one that started last holds it.

    Returns:
        The id of the run; None if there is none, or if the job allows all overlaps.
    """
    runs = list(open_runs)
    if any(waits_after_crashes(job, run) for run in runs):
        return job.held_by
    if job.overlap == Overlap.ALLOW_ALL:
        return None
    running = [run for run in runs if run.status == RunStatus.RUNNING]
    return max(running, key=lambda run: (run.started_at, run.id)).id if running else None
