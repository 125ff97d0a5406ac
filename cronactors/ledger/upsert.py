"""Lists of jobs that are kept elsewhere, such as in an agent.toml: upserting a whole list, and the origins by which lists are known."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from cronactors.instants import from_millis
from cronactors.ledger.jobs import Defaults, edit_job, name_key, new_job, refuse_duplicates
from cronactors.ledger.stored_values import stored_schedule
from cronactors.ledger.waiting import delete_job
from cronactors.ledger.zone_changes import note_older_rules
from cronactors.policy import misfire_to_text
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
        origin: By which name the list is known; None: jobs that are not in it stay.
        file: The file that holds it, relative to the folder of the database; None: no file does.
        former: Names that the same list may have had before.
        keeps_passed: Whether a one-shot whose time has passed is entered as done; else it is refused.
    """

    specs: Sequence[tuple[str, JobSpec]]
    origin: str | None = None
    file: str | None = None
    former: tuple[str, ...] = ()
    keeps_passed: bool = False


@attrs.frozen(kw_only=True)
class Upserted:
    """What an upsert has done.

    Attributes:
        ids: Of the jobs, in the order of the list.
        passed: Names of one-shots whose time has passed: their moment is recorded as skipped.
        zone: Names of jobs that existed and now follow the list's default zone.
        retries: The same of the number of retries.
        timeout: The same of the timeout.
    """

    ids: list[str] = attrs.field(factory=list)
    passed: list[str] = attrs.field(factory=list)
    zone: list[str] = attrs.field(factory=list)
    retries: list[str] = attrs.field(factory=list)
    timeout: list[str] = attrs.field(factory=list)


def upsert_jobs(storage: Storage, listed: JobList, defaults: Defaults) -> Upserted:
    """Add the jobs that are missing and edit those that are there; with an origin, remove its jobs that are not listed any more.

    A job that another origin lists, or none, belongs to this origin from then on: a name is found whoever listed it.

    Raises:
        DuplicateJob: A name is given twice.
        InvalidSchedule: A new schedule never fires, or its moment has passed.
    """
    refuse_duplicates(spec for _, spec in listed.specs)
    if listed.origin is not None:
        _take_former(storage, listed, listed.origin)
    note_older_rules(storage)
    now = storage.now()
    found = storage.jobs_named([name_key(spec) for _, spec in listed.specs])
    if listed.origin is not None:
        for job in storage.jobs_of_origin(listed.origin):
            if (job.user_id, job.name) not in found:
                delete_job(storage, job)
    done = Upserted()
    for new_id, spec in listed.specs:
        old = found.get(name_key(spec))
        # Nobody can say whether a one-shot has changed that cannot be read: it must not refuse its neighbours.
        lenient = listed.keeps_passed or (old is not None and stored_schedule(old) is None)
        passed = done.passed if lenient else None
        if old is None:
            storage.insert_jobs([new_job(storage, new_id, spec, defaults, now, origin=listed.origin, passed=passed)])
        else:
            new = _respecified(old, spec, listed.origin, defaults)
            if listed.origin is not None:
                _note_defaults(done, old, new, spec)
            by_default = listed.origin is not None and spec.timezone is None
            edit_job(storage, old, new, now, by_default=by_default, passed=passed)
        done.ids.append(new_id if old is None else old.id)
    return done


def _take_former(storage: Storage, listed: JobList, origin: str) -> None:
    """Note the list's file, and give the jobs that it listed under a former name to its origin."""
    files = {row.name: row.file for row in storage.origins()} if listed.former else {}
    for name in listed.former:
        # A name that is no path of this file may be another list's: then the file that is noted with it decides.
        if name != origin and name in files and files[name] in (listed.file, *([None, name] if name.startswith("/") else [])):
            adopt_origin(storage, name, by=origin)
    if listed.file is not None:
        storage.set_origin(origin, listed.file)


def adopt_origin(storage: Storage, origin: str, *, by: str) -> int:
    """Give the jobs of one origin to another, and count them. Nothing else changes in them."""
    jobs = storage.jobs_of_origin(origin)
    if origin != by:
        storage.update_jobs([job._replace(origin=by) for job in jobs])
        storage.set_origin(origin, None)
    return len(jobs)


def remove_origin(storage: Storage, origin: str) -> int:
    """Remove the jobs of an origin, as each alone is removed, and count them."""
    jobs = storage.jobs_of_origin(origin)
    for job in jobs:
        delete_job(storage, job)
    storage.set_origin(origin, None)
    return len(jobs)


def _respecified(job: JobRow, spec: JobSpec, origin: str | None, defaults: Defaults) -> JobRow:
    """Give the existing job the fields of the specification; a delay that was given before is the same one-shot.

    What the specification leaves open follows the defaults of a list with an origin; without one it was settled when the job was added.
    """
    settled = defaults
    if origin is None:
        zone = job.timezone if is_zone(job.timezone) else defaults.timezone
        settled = Defaults(timezone=zone, max_retries=job.max_retries, timeout_secs=job.timeout_secs)
    delay_ms = round(spec.schedule.in_secs * 1000) if isinstance(spec.schedule, Delay) else None
    return job._replace(
        prompt=spec.prompt,
        schedule=_delayed(job) if isinstance(spec.schedule, Delay) else schedule_to_json(spec.schedule),
        delay_ms=delay_ms,
        timezone=spec.timezone or settled.timezone,
        delete_after_run=int(spec.delete_after_run),
        max_retries=settled.max_retries if spec.max_retries is None else spec.max_retries,
        timeout_secs=settled.timeout_secs if spec.timeout_secs is None else spec.timeout_secs,
        session_mode=spec.session_mode.value,
        overlap=spec.overlap.value,
        misfire=misfire_to_text(spec.misfire),
        executor_options=spec.executor_options.text,
        origin=job.origin if origin is None else origin,
    )


def _delayed(job: JobRow) -> str:
    """The one-shot that a delay has become; one that cannot be read any more is made again from when the job was added."""
    if job.delay_ms is None or stored_schedule(job) is not None:
        return job.schedule
    return schedule_to_json(OneShot(from_millis(job.anchor_at + job.delay_ms)))


def _note_defaults(done: Upserted, old: JobRow, new: JobRow, spec: JobSpec) -> None:
    """Note which defaults of its list a job follows that it did not follow before."""
    if spec.timezone is None and new.timezone != old.timezone:
        done.zone.append(new.name)
    if spec.max_retries is None and new.max_retries != old.max_retries:
        done.retries.append(new.name)
    if spec.timeout_secs is None and new.timeout_secs != old.timeout_secs:
        done.timeout.append(new.name)
