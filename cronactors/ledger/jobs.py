"""Jobs, one at a time: add, update, remove. Lists of jobs are in `cronactors.ledger.upsert`. Runs on the storage thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cronactors.errors import DuplicateJob, InvalidSchedule, JobNotFound, shorten
from cronactors.instants import Millis, from_millis
from cronactors.ledger import pausing
from cronactors.ledger.job_fields import Defaults, columns_of_changes, columns_of_spec, row_of, with_columns
from cronactors.ledger.new_rows import skipped_run
from cronactors.ledger.open_runs import holder
from cronactors.ledger.pruning_clock import decided_until
from cronactors.ledger.stored_values import schedule_of
from cronactors.ledger.waiting import (
    AT_ONCE,
    cancel_pending,
    delete_jobs,
    release_crash_loops,
    release_first,
    skip_due,
)
from cronactors.ledger.zone_changes import note_rules_of_new_moments
from cronactors.model import Cause, Overlap, RunStatus
from cronactors.policy import Moments, Timing, in_crash_loop
from cronactors.schedules.fire_times import ONE_SHOT_GRACE, first_moment
from cronactors.schedules.schedule import OneShot, Schedule
from cronactors.schedules.schedule_json import schedule_to_json
from cronactors.schedules.timestamps import read_timestamp
from cronactors.schedules.zone_rules import RULES, depends_on_rules
from cronactors.spec import Delay, JobChanges, JobSpec
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, job_key


def find_job(storage: Storage, job_id: str) -> JobRow:
    """Return the job of an id.

    Raises:
        JobNotFound: There is none.
    """
    job = storage.jobs([job_id]).get(job_id)
    if job is None:
        raise JobNotFound(f"no job has the id {shorten(job_id)}")
    return job


def _find_to_change(storage: Storage, job_id: str) -> JobRow:
    """Return the job of an id, without a pause that was to end by now."""
    return pausing.with_pauses_ended(storage, [find_job(storage, job_id)])[0]


def find_named(storage: Storage, name: str, user_id: str) -> JobRow | None:
    """Return the user's job of a name, if there is one."""
    return storage.jobs_named([(user_id, name)]).get((user_id, name))


def add_jobs(storage: Storage, specs: Sequence[tuple[str, JobSpec]], defaults: Defaults) -> list[str]:
    """Add jobs under the given ids, all or none.

    Raises:
        DuplicateJob: A name is taken, or given twice.
        InvalidSchedule: A schedule never fires, or its moment has passed.
    """
    refuse_duplicates(spec for _, spec in specs)
    for user_id, name in storage.jobs_named([name_key(spec) for _, spec in specs]):
        raise DuplicateJob(f"name {shorten(name)} is taken{_whose(user_id)}")
    note_rules_of_new_moments(storage)
    now = storage.now()
    for first in range(0, len(specs), AT_ONCE):
        rows = [new_job(storage, job_id, spec, defaults, now) for job_id, spec in specs[first : first + AT_ONCE]]
        pausing.insert_jobs(storage, rows)
    return [job_id for job_id, _ in specs]


def name_key(spec: JobSpec) -> tuple[str, str]:
    """Return the user_id and name by which a job is found."""
    return (spec.user_id or "", spec.name)


def _whose(user_id: str) -> str:
    return f" by a job of user {shorten(user_id)}" if user_id else " by a job"


def refuse_duplicates(specs: Iterable[JobSpec]) -> None:
    """Check that a list gives no name twice.

    Raises:
        DuplicateJob: It does.
    """
    seen = set()
    for spec in specs:
        if name_key(spec) in seen:
            raise DuplicateJob(f"name {shorten(spec.name)} is given twice")
        seen.add(name_key(spec))


def new_job(
    storage: Storage,
    job_id: str,
    spec: JobSpec,
    defaults: Defaults,
    now: Millis,
    *,
    origin: str | None = None,
    passed: list[str] | None = None,
) -> JobRow:
    """Make the row of a new job, for the caller to insert.

    Args:
        storage: Inside a transaction.
        job_id: Its id.
        spec: Its specification.
        defaults: For fields that the specification leaves open.
        now: The time.
        origin: The list that it is in, if it is in one.
        passed: A list that takes the names of one-shots whose time has passed: their rows are made as done. None: they are refused.

    Raises:
        InvalidSchedule: The schedule never fires, or its moment has passed.
    """
    delay_ms: Millis | None = None
    schedule = spec.schedule
    if isinstance(schedule, Delay):
        delay_ms = round(schedule.in_secs * 1000)
        schedule = OneShot(from_millis(now + delay_ms))
    job = row_of(
        {
            **columns_of_spec(spec, defaults),
            "id": job_id,
            "origin": origin,
            "schedule": schedule_to_json(schedule),
            "delay_ms": delay_ms,
            "anchor_at": now,
            "created_at": now,
            "enabled": 1,
            "crashes": 0,
            "next_run_at": None,
            "decided_local": None,
            "held_by": None,
            "last_run_at": None,
            "last_error": None,
            "consecutive_failures": 0,
            "pruned_until": None,
            "rules": RULES,
        }
    )
    job = _start_schedule(storage, job, schedule, now, passed)
    return job._replace(enabled=int(job.next_run_at is not None and job.listed_enabled != 0))


def _start_schedule(storage: Storage, job: JobRow, schedule: Schedule, now: Millis, passed: list[str] | None) -> JobRow:
    """Return a job with the first moment of its schedule from now on.

    A one-shot whose time has passed is refused. With ``passed``, which takes its name, it has no moment left, and its own is recorded as
    skipped unless it has a row from before.
    """
    job = job._replace(anchor_at=now, rules=RULES)
    moment = None if passed is None else _passed_moment(schedule, job.timezone, now)
    if passed is not None and moment is not None:
        was_pruned = job.pruned_until is not None and moment <= job.pruned_until
        if not was_pruned and storage.insert_runs([skipped_run(job, Moments(moment), Cause.MISFIRE, now)]) != [None]:
            passed.append(job.name)
        return job._replace(next_run_at=None, decided_local=None)
    try:
        first = first_moment(schedule, now=now, zone=job.timezone)
    except InvalidSchedule as error:
        raise InvalidSchedule(f"job {shorten(job.name)}: {error}") from None
    timing = Timing(schedule=schedule, zone=job.timezone, anchor=now)
    pruned = decided_until(storage, job, now)
    if pruned is not None and first <= pruned and not isinstance(schedule, OneShot):  # since the clock was set back
        first = timing.after(pruned) or first
    return job._replace(next_run_at=first, decided_local=timing.local_until(now))


def _passed_moment(schedule: Schedule, zone: str, now: Millis) -> Millis | None:
    """Return the moment of a one-shot that is too old to be due at once.

    Returns:
        None for any other schedule, for a younger moment, and for a local time that does not exist.
    """
    if not isinstance(schedule, OneShot) or read_timestamp(schedule.at).is_skipped(zone):
        return None
    moment = read_timestamp(schedule.at).instant(zone)
    return moment if moment < now - ONE_SHOT_GRACE else None


def update_job(storage: Storage, job_id: str, changes: JobChanges) -> JobRow:
    """Change fields of a job. A running run keeps the old ones; a new schedule or zone starts at the current time.

    Raises:
        JobNotFound: There is none of that id.
        DuplicateJob: The new name is taken.
        InvalidSchedule: The new schedule never fires, or its moment has passed.
    """
    job = _find_to_change(storage, job_id)
    columns = columns_of_changes(changes)
    if "schedule" in changes:
        columns |= {"schedule": schedule_to_json(changes["schedule"]), "delay_ms": None}
    new = with_columns(job, columns)
    if new.name != job.name and find_named(storage, new.name, new.user_id) is not None:
        raise DuplicateJob(f"name {shorten(new.name)} is taken{_whose(new.user_id)}")
    note_rules_of_new_moments(storage)
    return edit_job(storage, job, new, storage.now())


def edit_job(
    storage: Storage, job: JobRow, new: JobRow, now: Millis, *, by_default: bool = False, passed: list[str] | None = None
) -> JobRow:
    """Store the new definition of a job, and return the job as it is stored now; see `edited`."""
    if new != job:
        new = edited(storage, job, new, now, by_default=by_default, passed=passed)
        storage.update_jobs([new])
    return new


def edited(
    storage: Storage, job: JobRow, new: JobRow, now: Millis, *, by_default: bool = False, passed: list[str] | None = None
) -> JobRow:
    """Return the row of a job with a new definition, for the caller to write; its pending runs are changed here.

    Args:
        storage: Inside a transaction.
        job: The job as it is stored.
        new: The job with its new fields, and its moments as they are stored.
        now: The time.
        by_default: Whether a new zone is a default that the job follows, rather than one that a user gave it.
        passed: See `new_job`.

    Raises:
        InvalidSchedule: The new schedule never fires, or its moment has passed.
    """
    if (new.schedule, new.delay_ms) != (job.schedule, job.delay_ms):
        new = _restart_schedule(storage, job, new, now, passed)
    elif new.timezone != job.timezone and depends_on_rules(schedule_of(new)):
        new = (_change_zone if by_default else _restart_schedule)(storage, job, new, now, passed)
    if (new.overlap == Overlap.ALLOW_ALL) != (job.overlap == Overlap.ALLOW_ALL):
        new = new._replace(held_by=holder(new, storage.open_runs([job.id])))
    if new.overlap == Overlap.ALLOW_ALL != job.overlap:
        key = job_key(job.id)
        storage.set_waits_for([(run.id, None) for run in storage.open_runs([job.id]) if run.waits_for == key])
    return new


def _restart_schedule(storage: Storage, job: JobRow, new: JobRow, now: Millis, passed: list[str] | None) -> JobRow:
    """Return a job whose new schedule starts now.

    Moments of the old schedule are not missed: due ones are skipped, and its pending runs are cancelled, as replaced. A one-shot that was
    done is enabled again.
    """
    if new.delay_ms is not None and new.delay_ms != job.delay_ms:
        new = new._replace(schedule=schedule_to_json(OneShot(from_millis(now + new.delay_ms))))
    open_runs = storage.open_runs([job.id])
    replaced = [run for run in open_runs if run.status == RunStatus.PENDING and not run.manual]
    done = not job.enabled and job.next_run_at is None and not open_runs
    skip_due(storage, job, Cause.REPLACED)
    cancel_pending(storage, replaced, Cause.REPLACED)
    held_by = job.held_by
    if held_by in {run.id for run in replaced}:
        held_by = None
        release_first(storage, job_key(job.id))
    if in_crash_loop(job.crashes):  # its crashes count as 0 from now on, so other jobs need not wait for its running run
        release_crash_loops(storage)
    new = _start_schedule(storage, new, schedule_of(new), now, passed)._replace(held_by=held_by, crashes=0)
    if new.next_run_at is None:
        return new._replace(enabled=int(bool(job.enabled) and len(open_runs) > len(replaced)))
    if done:
        pausing.forget_pause(storage, job.id)
    return new._replace(enabled=1 if done else job.enabled)


def _change_zone(storage: Storage, job: JobRow, new: JobRow, now: Millis, passed: list[str] | None) -> JobRow:
    """Return a job whose schedule is meant in another default zone from now on.

    Pending runs stay, and so does a one-shot whose moment is decided.
    """
    if job.next_run_at is None:
        return new
    skip_due(storage, job, Cause.REPLACED)
    new = _start_schedule(storage, new, schedule_of(new), now, passed)
    if new.next_run_at is None and not storage.open_runs([job.id]):
        return new._replace(enabled=0)
    return new


def pause_job(storage: Storage, job_id: str, *, until: Millis | None = None, note: str = "") -> JobRow:
    """Pause a job; see `pausing.pause`.

    Raises:
        JobNotFound: There is none of that id.
        InvalidJob: ``until`` has passed, or is later than the moment of a one-shot.
    """
    return pausing.pause(storage, _find_to_change(storage, job_id), until=until, note=note)


def resume_job(storage: Storage, job_id: str) -> JobRow:
    """Resume a job; see `pausing.resume`.

    Raises:
        JobNotFound: There is none of that id.
        InvalidJob: The one-shot's time has passed, or it is done.
        InvalidSchedule: Its stored schedule or zone can no longer be read.
    """
    return pausing.resume(storage, _find_to_change(storage, job_id))


def remove_job(storage: Storage, job_id: str) -> None:
    """Remove a job: its pending runs are cancelled, running ones continue, its history stays.

    Raises:
        JobNotFound: There is none of that id.
    """
    delete_jobs(storage, [_find_to_change(storage, job_id)])


def remove_named(storage: Storage, name: str, user_id: str) -> None:
    """Remove the user's job of a name.

    Raises:
        JobNotFound: There is none.
    """
    job = find_named(storage, name, user_id)
    if job is None:
        raise JobNotFound(f"no job has the name {shorten(name)}")
    delete_jobs(storage, pausing.with_pauses_ended(storage, [job]))
