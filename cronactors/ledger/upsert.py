"""Lists of jobs that are kept elsewhere, such as in an agent.toml: upserting a whole list, and the origins by which lists are known.

Runs on the storage thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from cronactors.instants import from_millis
from cronactors.ledger import pausing
from cronactors.ledger.job_fields import Defaults, columns_of_spec, with_columns
from cronactors.ledger.jobs import edited, name_key, new_job, refuse_duplicates
from cronactors.ledger.stored_values import stored_schedule
from cronactors.ledger.waiting import AT_ONCE, delete_jobs
from cronactors.ledger.zone_changes import note_rules_of_new_moments
from cronactors.schedules.schedule import OneShot
from cronactors.schedules.schedule_json import schedule_to_json
from cronactors.schedules.zones import is_zone
from cronactors.spec import Delay, JobSpec
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow


@attrs.frozen(kw_only=True)
class JobList:
    """A list of jobs to upsert.

    Attributes:
        specs: The jobs, each with the id that it gets if it is new.
        origin: The name by which the list is known; None: jobs that are not in it stay.
        file: The file that holds it, relative to the folder of the database; None: no file holds it.
        former: Names that the same list may have had before.
        keeps_passed: Whether a one-shot whose time has passed is added as done; otherwise it is refused.
    """

    specs: Sequence[tuple[str, JobSpec]]
    origin: str | None = None
    file: str | None = None
    former: tuple[str, ...] = ()
    keeps_passed: bool = False


@attrs.frozen(kw_only=True)
class Upserted:
    """The result of an upsert.

    Attributes:
        ids: Ids of the jobs, in the order of the list.
        added: Names of those that are new.
        changed: Names of those that existed and are different now.
        removed: Names of jobs of the origin that are not in the list.
        passed: Names of one-shots whose time has passed: their moment is recorded as skipped.
        zone: Names of jobs that existed and now follow the list's default zone.
        retries: Names of those that now follow its default number of retries.
        timeout: Names of those that now follow its default timeout.
    """

    ids: list[str] = attrs.field(factory=list)
    added: list[str] = attrs.field(factory=list)
    changed: list[str] = attrs.field(factory=list)
    removed: list[str] = attrs.field(factory=list)
    passed: list[str] = attrs.field(factory=list)
    zone: list[str] = attrs.field(factory=list)
    retries: list[str] = attrs.field(factory=list)
    timeout: list[str] = attrs.field(factory=list)


def upsert_jobs(storage: Storage, listed: JobList, defaults: Defaults) -> Upserted:
    """Add the jobs that are missing and edit those that exist; with an origin, remove its jobs that are not listed any more.

    A job is found by its user and name. If it belonged to another origin, or to none, it belongs to this one from then on.

    Raises:
        DuplicateJob: A name is given twice.
        InvalidSchedule: A new schedule never fires, or its moment has passed.
    """
    refuse_duplicates(spec for _, spec in listed.specs)
    if listed.origin is not None:
        _take_former(storage, listed, listed.origin)
    note_rules_of_new_moments(storage)
    now = storage.now()
    named = storage.jobs_named([name_key(spec) for _, spec in listed.specs])
    found = {(job.user_id, job.name): job for job in pausing.with_pauses_ended(storage, list(named.values()))}
    done = Upserted()
    if listed.origin is not None:
        gone = [job for job in storage.jobs_of_origin(listed.origin) if (job.user_id, job.name) not in found]
        delete_jobs(storage, pausing.with_pauses_ended(storage, gone))
        done.removed.extend(job.name for job in gone)
    added, changed = [], []
    for new_id, spec in listed.specs:
        old = found.get(name_key(spec))
        # If the stored one-shot cannot be read, we cannot know whether it has changed: then it must not refuse the whole list.
        may_have_passed = listed.keeps_passed or (old is not None and stored_schedule(old) is None)
        passed = done.passed if may_have_passed else None
        if old is None:
            added.append(new_job(storage, new_id, spec, defaults, now, origin=listed.origin, passed=passed))
            done.added.append(spec.name)
        else:
            new = _with_specification(old, spec, listed.origin, defaults)
            if listed.origin is not None:
                _report_defaults(done, old, new, spec)
            by_default = listed.origin is not None and spec.timezone is None
            if new != old:
                new = edited(storage, old, new, now, by_default=by_default, passed=passed)
                changed.append(pausing.follow_list(storage, old, new))
                done.changed.append(spec.name)
        done.ids.append(new_id if old is None else old.id)
    for first in range(0, len(added), AT_ONCE):
        pausing.insert_jobs(storage, added[first : first + AT_ONCE])
    for first in range(0, len(changed), AT_ONCE):
        storage.update_jobs(changed[first : first + AT_ONCE])
    return done


def _take_former(storage: Storage, listed: JobList, origin: str) -> None:
    """Store the list's file, and give the jobs that it listed under a former name to its origin."""
    files = {row.name: row.file for row in storage.origins()} if listed.former else {}
    for name in listed.former:
        # A former name that is no path of this file may belong to another list: the file that is stored with it decides.
        if name != origin and name in files and files[name] in (listed.file, *([None, name] if name.startswith("/") else [])):
            adopt_origin(storage, name, by=origin)
    if listed.file is not None:
        storage.set_origin(origin, listed.file)


def adopt_origin(storage: Storage, origin: str, *, by: str) -> int:
    """Give the jobs of one origin to another, without changing anything else in them; return how many there are."""
    jobs = storage.jobs_of_origin(origin)
    if origin != by:
        for first in range(0, len(jobs), AT_ONCE):
            storage.update_jobs([job._replace(origin=by) for job in jobs[first : first + AT_ONCE]])
        storage.set_origin(origin, None)
    return len(jobs)


def remove_origin(storage: Storage, origin: str) -> int:
    """Remove the jobs of an origin as `delete_jobs` does; return how many there are."""
    jobs = storage.jobs_of_origin(origin)
    delete_jobs(storage, pausing.with_pauses_ended(storage, jobs))
    storage.set_origin(origin, None)
    return len(jobs)


def _with_specification(job: JobRow, spec: JobSpec, origin: str | None, defaults: Defaults) -> JobRow:
    """Return an existing job with the fields of a specification. A delay that the job was added with is the same one-shot.

    Fields that the specification leaves open follow the defaults of a list with an origin. Without an origin they stay as they were
    stored when the job was added.
    """
    if origin is None:
        zone = job.timezone if is_zone(job.timezone) else defaults.timezone
        defaults = Defaults(timezone=zone, max_retries=job.max_retries, timeout_secs=job.timeout_secs)
    columns = columns_of_spec(spec, defaults)
    if isinstance(spec.schedule, Delay):
        columns |= {"schedule": _delayed(job), "delay_ms": round(spec.schedule.in_secs * 1000)}
    else:
        columns |= {"schedule": schedule_to_json(spec.schedule), "delay_ms": None}
    if origin is not None:
        columns["origin"] = origin
    return with_columns(job, columns)


def _delayed(job: JobRow) -> str:
    """Return the one-shot that a delay was turned into; one that cannot be read is made again, from when its delay started."""
    if job.delay_ms is None or stored_schedule(job) is not None:
        return job.schedule
    return schedule_to_json(OneShot(from_millis(job.anchor_at + job.delay_ms)))


def _report_defaults(done: Upserted, old: JobRow, new: JobRow, spec: JobSpec) -> None:
    """Add the job to those that follow a default of their list that they did not follow before."""
    if spec.timezone is None and new.timezone != old.timezone:
        done.zone.append(new.name)
    if spec.max_retries is None and new.max_retries != old.max_retries:
        done.retries.append(new.name)
    if spec.timeout_secs is None and new.timeout_secs != old.timeout_secs:
        done.timeout.append(new.name)
