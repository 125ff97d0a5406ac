"""Pausing a job and resuming it, by a user, by its list, or by itself when the time of its pause has come. Runs on the storage thread.

The row of the last pause stays when the job is resumed: it explains why moments in it did not run.
"""

from __future__ import annotations

from collections.abc import Sequence

from cronactors.errors import CronError, InvalidJob, shorten
from cronactors.instants import Millis, iso_utc
from cronactors.ledger.pruning_clock import decided_until
from cronactors.ledger.stored_values import timing_of
from cronactors.ledger.waiting import disable_job, release_crash_loops
from cronactors.model import Cause
from cronactors.schedules.schedule import OneShot
from cronactors.storage.pauses import PauseRow
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import PAUSE, JobRow, JobState

MOST_ENDED = 200
"""How many pauses one claim ends; the next claim ends the others."""


def insert_jobs(storage: Storage, jobs: Sequence[JobRow]) -> None:
    """Add jobs; those that are to be added paused have a pause from their first moment on."""
    storage.insert_jobs(jobs)
    paused = [job for job in jobs if job.listed_enabled == 0 and not job.enabled and job.next_run_at is not None]
    storage.pauses.put([PauseRow(job.id, job.created_at, None, None, "") for job in paused])


def pause(storage: Storage, job: JobRow, *, until: Millis | None = None, note: str = "") -> JobRow:
    """Pause a job: moments that pass are neither run nor missed, and its pending runs wait until it is resumed.

    Moments that are due already are skipped. Requested runs still start. A job that is paused already is paused until another time, and
    with another note; one that is done is not changed.

    Args:
        storage: Inside a transaction.
        job: As it is stored.
        until: When it resumes by itself; None: when a user resumes it.
        note: Why it is paused.

    Raises:
        InvalidJob: ``until`` has passed, or is later than the moment of a one-shot.
    """
    now = storage.now()
    if until is not None:
        _check_until(job, until, now)
    paused_at = now
    if job.enabled:
        job = disable_job(storage, job, Cause.CANCELLED)
    elif _is_done(storage, job):
        return job
    elif (before := storage.pauses.of([job.id]).get(job.id)) is not None and before.resumed_at is None:
        paused_at = before.paused_at
    storage.pauses.put([PauseRow(job.id, paused_at, until, None, note)])
    return job


def _check_until(job: JobRow, until: Millis, now: Millis) -> None:
    if until <= now:
        raise InvalidJob(f"until {_show(until)} of job {shorten(job.name)} has passed")
    timing = timing_of(job)
    moment = job.next_run_at
    if isinstance(timing.schedule, OneShot) and moment is not None and moment < until:
        raise InvalidJob(
            f"until {_show(until)} of job {shorten(job.name)} is later than its only moment, {_show(moment)}, which would not run: "
            "pause it without until, or give an earlier time"
        )


def _show(instant: Millis) -> str:
    return iso_utc(instant, short=True)


def _is_done(storage: Storage, job: JobRow) -> bool:
    """Return whether a job that is not enabled has nothing left to run."""
    return job.next_run_at is None and not storage.open_runs([job.id])


def resume(storage: Storage, job: JobRow) -> JobRow:
    """Resume a job: its next moment is the first one after now, and its paused runs are released.

    Raises:
        InvalidJob: The one-shot's time has passed, or it is done.
        InvalidSchedule: Its stored schedule or zone can no longer be read.
    """
    if job.enabled:
        return job
    now = storage.now()
    job = _enable(storage, job, after=now)
    if (paused := storage.pauses.of([job.id]).get(job.id)) is not None:
        storage.pauses.put([paused._replace(resumed_at=now)])
    return job


def _enable(storage: Storage, job: JobRow, *, after: Millis) -> JobRow:
    open_runs = storage.open_runs([job.id])
    if job.next_run_at is not None or all(run.manual for run in open_runs):
        timing = timing_of(job)
        following = timing.after(max(after, decided_until(storage, job, storage.now()) or after))
        if following is None:
            raise InvalidJob(f"job {shorten(job.name)} cannot be resumed: the moment of its schedule has passed")
        job = job._replace(next_run_at=following, decided_local=timing.local_until(after))
    job = job._replace(enabled=1, crashes=0)
    storage.update_job_states([JobState.of(job)])
    storage.set_waits_for([(run.id, None) for run in open_runs if run.waits_for == PAUSE])
    release_crash_loops(storage)  # its crashes count as 0 from now on, so other jobs need not wait for its running run
    return job


def end_pauses(storage: Storage) -> bool:
    """End the pauses that were to end by now, up to `MOST_ENDED` of them, and return whether there were any.

    A job is enabled again from that time on: if nothing was running then, the moments since were missed, and its misfire policy decides
    them.
    """
    ending = storage.pauses.to_end(now=storage.now(), limit=MOST_ENDED)
    _end(storage, storage.jobs([pause.job_id for pause in ending]), ending)
    return bool(ending)


def with_pauses_ended(storage: Storage, jobs: Sequence[JobRow]) -> list[JobRow]:
    """End the pauses of jobs that were to end by now, and return the jobs.

    Whoever changes a job calls it first: the clock may not have been there yet, and the moments since the end of the pause are not to be
    lost.
    """
    now = storage.now()
    pauses = storage.pauses.of([job.id for job in jobs if not job.enabled])
    ending = [each for each in pauses.values() if each.resumed_at is None and each.until_at is not None and each.until_at <= now]
    return list(_end(storage, {job.id: job for job in jobs}, ending).values())


def _end(storage: Storage, jobs: dict[str, JobRow], ending: Sequence[PauseRow]) -> dict[str, JobRow]:
    for each in ending:
        job = jobs.get(each.job_id)
        if job is not None and not job.enabled and each.until_at is not None and not _is_done(storage, job):
            jobs[job.id] = _end_one(storage, job, each.until_at)
    storage.pauses.put([each._replace(resumed_at=each.until_at) for each in ending])
    return jobs


def _end_one(storage: Storage, job: JobRow, until: Millis) -> JobRow:
    """Resume a job as of a time that has passed; one that cannot be resumed stays as it is, and its last error says why."""
    try:
        # Moments before its schedule was last changed are not moments of the schedule that it has now.
        return _enable(storage, job, after=max(until - 1, min(job.anchor_at, storage.now())))
    except CronError as error:
        job = job._replace(last_error=str(error))
        storage.update_job_states([JobState.of(job)])
        return job


def forget_pause(storage: Storage, job_id: str) -> None:
    """End the pause of a job that is enabled or disabled for another reason now, so that nothing resumes it by itself."""
    paused = storage.pauses.of([job_id]).get(job_id)
    if paused is not None and paused.resumed_at is None:
        storage.pauses.put([paused._replace(resumed_at=storage.now())])


def pause_again(storage: Storage, jobs: Sequence[JobRow], now: Millis) -> list[JobRow]:
    """Pause the jobs again whose pauses ended while the wall clock was ahead, now that it was set back; return all the jobs."""
    pauses = storage.pauses.of([job.id for job in jobs])
    return [_as_of(storage, job, pauses[job.id], now) if job.id in pauses else job for job in jobs]


def _as_of(storage: Storage, job: JobRow, paused: PauseRow, now: Millis) -> JobRow:
    resumed_at = paused.resumed_at
    if resumed_at is not None and resumed_at > now:
        resumed_at = None if resumed_at == paused.until_at else now
    corrected = paused._replace(paused_at=min(paused.paused_at, now), resumed_at=resumed_at)
    if corrected == paused:
        return job
    storage.pauses.put([corrected])
    ended_ahead = resumed_at is None and paused.resumed_at is not None
    return disable_job(storage, job, Cause.CANCELLED) if ended_ahead and job.enabled else job


def follow_list(storage: Storage, old: JobRow, new: JobRow) -> JobRow:
    """Pause or resume an existing job as its list says; return the job as it is stored then.

    A list that does not say anything, or says the same as before, leaves the job as users have set it. A one-shot that is done stays so.

    Args:
        storage: Inside a transaction.
        old: The job as it was before the list was read.
        new: The job with its new definition, which the caller writes.
    """
    if new.listed_enabled == 0 and new.enabled and (old.listed_enabled != 0 or not old.enabled):
        return pause(storage, new)  # also a one-shot that was done, and would be enabled as it has another time now
    if new.listed_enabled == 1 != old.listed_enabled and not new.enabled and not _is_done(storage, new):
        try:
            return resume(storage, new)
        except InvalidJob:
            pass  # a one-shot whose moment has passed while it was paused
    return new
