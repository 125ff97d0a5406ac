"""What users do with jobs: add, upsert, update, pause, resume, remove."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from cronactors.errors import DuplicateJob, InvalidJob, InvalidSchedule, JobNotFound, shorten
from cronactors.executor_options import check_executor_options
from cronactors.instants import Millis, from_millis
from cronactors.ledger.entries import is_braked
from cronactors.ledger.lines import delete_job, free_first, free_suspects, skip_due, stop_job, withdraw
from cronactors.ledger.views import schedule_of, timing_of
from cronactors.model import Cause, JobChanges, Overlap, RunStatus
from cronactors.policy import Timing, is_suspect, misfire_to_text
from cronactors.rules import RULES
from cronactors.schedule import OneShot, Schedule, first_moment, schedule_to_json
from cronactors.spec import Delay, JobSpec
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import PAUSE, JobRow, JobState, line_of


@attrs.frozen(kw_only=True)
class Defaults:
    """What is stored with a job whose specification leaves it open."""

    timezone: str
    max_retries: int
    timeout_secs: float


def find_job(storage: Storage, job_id: str) -> JobRow:
    """The job of that id.

    Raises:
        JobNotFound: There is none.
    """
    job = storage.jobs([job_id]).get(job_id)
    if job is None:
        raise JobNotFound(f"no job has the id {shorten(job_id)}")
    return job


def find_named(storage: Storage, name: str, user_id: str) -> JobRow | None:
    """The user's job of that name."""
    return storage.jobs_named([(user_id, name)]).get((user_id, name))


def add_jobs(storage: Storage, specs: Sequence[tuple[str, JobSpec]], defaults: Defaults) -> list[str]:
    """Add jobs under the ids made for them, all or none.

    Raises:
        DuplicateJob: A name is taken, or given twice.
        InvalidSchedule: A schedule never fires, or its moment has passed.
    """
    _refuse_twins(spec for _, spec in specs)
    for user_id, name in storage.jobs_named([_key(spec) for _, spec in specs]):
        raise DuplicateJob(f"name {shorten(name)} is taken{_whose(user_id)}")
    now = storage.now()
    storage.insert_jobs([_new_job(job_id, spec, defaults, now, origin=None) for job_id, spec in specs])
    return [job_id for job_id, _ in specs]


def upsert_jobs(storage: Storage, specs: Sequence[tuple[str, JobSpec]], defaults: Defaults, origin: str | None) -> list[str]:
    """Add the jobs that are missing and edit those that are there; with an origin, remove its jobs that are not listed any more.

    Raises:
        DuplicateJob: A name is given twice.
        InvalidSchedule: A new schedule never fires, or its moment has passed.
    """
    _refuse_twins(spec for _, spec in specs)
    now = storage.now()
    found = storage.jobs_named([_key(spec) for _, spec in specs])
    if origin is not None:
        for listed in storage.jobs_of_origin(origin):
            if (listed.user_id, listed.name) not in found:
                delete_job(storage, listed)
    ids = []
    for new_id, spec in specs:
        job = found.get(_key(spec))
        if job is None:
            storage.insert_jobs([_new_job(new_id, spec, defaults, now, origin=origin)])
        else:
            _edit(storage, job, _respecified(job, spec, origin), now)
        ids.append(new_id if job is None else job.id)
    return ids


def _key(spec: JobSpec) -> tuple[str, str]:
    return (spec.user_id or "", spec.name)


def _whose(user_id: str) -> str:
    return f" by a job of user {shorten(user_id)}" if user_id else " by a job"


def _refuse_twins(specs: Iterable[JobSpec]) -> None:
    seen = set()
    for spec in specs:
        if _key(spec) in seen:
            raise DuplicateJob(f"name {shorten(spec.name)} is given twice")
        seen.add(_key(spec))


def _first_moment(schedule: Schedule, now: Millis, zone: str, name: str) -> Millis:
    try:
        return first_moment(schedule, now=now, zone=zone)
    except InvalidSchedule as error:
        raise InvalidSchedule(f"job {shorten(name)}: {error}") from None


def _new_job(job_id: str, spec: JobSpec, defaults: Defaults, now: Millis, *, origin: str | None) -> JobRow:
    delay_ms: Millis | None = None
    schedule = spec.schedule
    if isinstance(schedule, Delay):
        delay_ms = round(schedule.in_secs * 1000)
        schedule = OneShot(from_millis(now + delay_ms))
    zone = spec.timezone or defaults.timezone
    return JobRow(
        id=job_id,
        user_id=spec.user_id or "",
        name=spec.name,
        schedule=schedule_to_json(schedule),
        timezone=zone,
        anchor_at=now,
        enabled=1,
        delete_after_run=int(spec.delete_after_run),
        max_retries=defaults.max_retries if spec.max_retries is None else spec.max_retries,
        timeout_secs=defaults.timeout_secs if spec.timeout_secs is None else spec.timeout_secs,
        session_mode=spec.session_mode.value,
        overlap=spec.overlap.value,
        misfire=misfire_to_text(spec.misfire),
        origin=origin,
        delay_ms=delay_ms,
        created_at=now,
        last_run_at=None,
        last_error=None,
        crashes=0,
        next_run_at=_first_moment(schedule, now, zone, spec.name),
        decided_local=Timing(schedule=schedule, zone=zone, anchor=now).local_until(now),
        held_by=None,
        rules=RULES,
        executor_options=spec.executor_options.text,
        prompt=spec.prompt,
    )


def _respecified(job: JobRow, spec: JobSpec, origin: str | None) -> JobRow:
    """The existing job with the fields of the specification; a delay that was given before is the same one-shot.

    What the specification leaves open was settled when the job was added.
    """
    return job._replace(
        prompt=spec.prompt,
        schedule=job.schedule if isinstance(spec.schedule, Delay) else schedule_to_json(spec.schedule),
        delay_ms=round(spec.schedule.in_secs * 1000) if isinstance(spec.schedule, Delay) else None,
        timezone=spec.timezone or job.timezone,
        delete_after_run=int(spec.delete_after_run),
        max_retries=job.max_retries if spec.max_retries is None else spec.max_retries,
        timeout_secs=job.timeout_secs if spec.timeout_secs is None else spec.timeout_secs,
        session_mode=spec.session_mode.value,
        overlap=spec.overlap.value,
        misfire=misfire_to_text(spec.misfire),
        executor_options=spec.executor_options.text,
        origin=job.origin if origin is None else origin,
    )


def update_job(storage: Storage, job_id: str, changes: JobChanges) -> JobRow:
    """Change fields of a job; a run that goes on keeps the old ones. A new schedule or zone begins a new baseline from now.

    Raises:
        JobNotFound: There is none of that id.
        DuplicateJob: The new name is taken.
        InvalidSchedule: The new schedule never fires, or its moment has passed.
    """
    job = find_job(storage, job_id)
    new = job
    if "schedule" in changes:
        new = new._replace(schedule=schedule_to_json(changes["schedule"]), delay_ms=None)
    new = new._replace(
        name=changes.get("name", job.name),
        prompt=changes.get("prompt", job.prompt),
        timezone=changes.get("timezone", job.timezone),
        delete_after_run=int(changes.get("delete_after_run", job.delete_after_run)),
        max_retries=changes.get("max_retries", job.max_retries),
        timeout_secs=changes.get("timeout_secs", job.timeout_secs),
        session_mode=str(changes.get("session_mode", job.session_mode)),
        overlap=str(changes.get("overlap", job.overlap)),
        misfire=misfire_to_text(changes["misfire"]) if "misfire" in changes else job.misfire,
        executor_options=_options_text(changes) if "executor_options" in changes else job.executor_options,
    )
    if new.name != job.name and find_named(storage, new.name, new.user_id) is not None:
        raise DuplicateJob(f"name {shorten(new.name)} is taken{_whose(new.user_id)}")
    return _edit(storage, job, new, storage.now())


def _options_text(changes: JobChanges) -> str:
    return check_executor_options("executor_options", changes["executor_options"]).text


def _edit(storage: Storage, job: JobRow, new: JobRow, now: Millis) -> JobRow:
    """Write the new definition of a job."""
    if new == job:
        return job
    if (new.schedule, new.delay_ms, new.timezone) != (job.schedule, job.delay_ms, job.timezone):
        new = _new_baseline(storage, job, new, now)
    if (new.overlap == Overlap.ALLOW_ALL) != (job.overlap == Overlap.ALLOW_ALL):
        new = new._replace(held_by=_holder(storage, new))
    storage.edit_jobs([new])
    if new.overlap == Overlap.ALLOW_ALL != job.overlap:
        line = line_of(job.id)
        storage.park_runs([(run.id, None) for run in storage.open_runs([job.id]) if run.waits_for == line])
    return new


def _holder(storage: Storage, job: JobRow) -> int | None:
    """Which open run keeps others of the job waiting, now that it allows all overlaps, or none any more."""
    opened = storage.open_runs([job.id])
    if any(is_braked(job, run) for run in opened):
        return job.held_by
    if job.overlap == Overlap.ALLOW_ALL:
        return None
    running = [run for run in opened if run.status == RunStatus.RUNNING]
    return max(running, key=lambda run: (run.started_at, run.id)).id if running else None


def _new_baseline(storage: Storage, job: JobRow, new: JobRow, now: Millis) -> JobRow:
    """Begin anew from now: nothing counts as missed, no retry of the old schedule stays, a one-shot that is done comes to life."""
    if new.delay_ms is not None and new.delay_ms != job.delay_ms:
        new = new._replace(schedule=schedule_to_json(OneShot(from_millis(now + new.delay_ms))))
    open_runs = storage.open_runs([job.id])
    stale = [run for run in open_runs if run.status == RunStatus.PENDING and not run.manual]
    done = not job.enabled and job.next_run_at is None and not open_runs
    skip_due(storage, job, Cause.REPLACED)
    withdraw(storage, stale, Cause.REPLACED)
    held_by = job.held_by
    if held_by in {run.id for run in stale}:
        held_by = None
        free_first(storage, line_of(job.id))
    if is_suspect(job.crashes):  # a run of it that goes on keeps nobody waiting any more
        free_suspects(storage)
    return new._replace(
        anchor_at=now,
        next_run_at=_first_moment(schedule_of(new), now, new.timezone, new.name),
        decided_local=timing_of(new).local_until(now),
        rules=RULES,
        held_by=held_by,
        enabled=1 if done else job.enabled,
        crashes=0,
    )


def pause_job(storage: Storage, job_id: str) -> JobRow:
    """Pause: moments that pass are neither run nor missed, attempts that wait stay waiting; runs asked for still start.

    Moments that had come due before, and had not begun, are skipped.

    Raises:
        JobNotFound: There is none of that id.
    """
    job = find_job(storage, job_id)
    if not job.enabled:
        return job
    return stop_job(storage, job, Cause.CANCELLED)


def resume_job(storage: Storage, job_id: str) -> JobRow:
    """Resume: the next moment is the first one after now, attempts that waited may start.

    Raises:
        JobNotFound: There is none of that id.
        InvalidJob: The one-shot's time has passed, or it is done.
    """
    job = find_job(storage, job_id)
    if job.enabled:
        return job
    open_runs = storage.open_runs([job_id])
    following = job.next_run_at
    if following is not None or all(run.manual for run in open_runs):
        timing, now = timing_of(job), storage.now()
        following = timing.after(now)
        if following is None:
            raise InvalidJob(f"job {shorten(job.name)} cannot be resumed: the moment of its schedule has passed")
        job = job._replace(next_run_at=following, decided_local=timing.local_until(now))
    job = job._replace(enabled=1, crashes=0)
    storage.advance_jobs([JobState.of(job)])
    storage.park_runs([(run.id, None) for run in open_runs if run.waits_for == PAUSE])
    free_suspects(storage)  # a run of it that goes on keeps nobody waiting any more
    return job


def remove_job(storage: Storage, job_id: str) -> None:
    """Remove a job: what waits ends as removed, what runs goes on to its end, the history stays.

    Raises:
        JobNotFound: There is none of that id.
    """
    delete_job(storage, find_job(storage, job_id))


def remove_named(storage: Storage, name: str, user_id: str) -> None:
    """Remove the user's job of that name.

    Raises:
        JobNotFound: There is none.
    """
    job = find_named(storage, name, user_id)
    if job is None:
        raise JobNotFound(f"no job has the name {shorten(name)}")
    delete_job(storage, job)
