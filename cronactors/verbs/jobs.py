"""The verbs on jobs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Unpack

from cronactors.actors import user_requests
from cronactors.checks import flag, text
from cronactors.errors import InvalidJob
from cronactors.ids import with_ids
from cronactors.ledger.upsert import JobList
from cronactors.model import ALL, AllUsers, CronJob
from cronactors.origins import log_upserted
from cronactors.schedules.schedule import Schedule
from cronactors.spec import (
    MAX_PATH,
    JobChanges,
    JobOptions,
    JobSpec,
    check_changes,
    check_description,
    check_id,
    check_instant,
    check_lookup_name,
    check_user_id,
    job_spec,
)
from cronactors.tags import check_tag
from cronactors.verbs.base import Verbs

_PAGE = 500
_PAGE_OF_NAMES = 5_000


class JobVerbs(Verbs):
    """Adding, reading, changing and removing jobs."""

    async def add_job(self, name: str, prompt: str, schedule: Schedule, **options: Unpack[JobOptions]) -> str:
        """Add a job and return its id.

        Args:
            name: 1 to 200 printable characters, unique among the user's jobs.
            prompt: 1 to 1,000,000 characters: the task for the executor.
            schedule: `Cron`, `Interval` or `OneShot`.
            options: The optional fields of `JobSpec`.

        Raises:
            InvalidJob: A field has a wrong type or value.
            InvalidSchedule: The schedule never fires, or its moment lies more than 60 s in the past.
            DuplicateJob: The user has a job of that name.
        """
        return (await self.add_jobs([job_spec(name, prompt, schedule, options)]))[0]

    async def add_jobs(self, specs: Iterable[JobSpec]) -> list[str]:
        """Add up to 10,000 jobs, all or none, and return their ids in the same order.

        Raises:
            InvalidJob: Something in the list is no `JobSpec`, or there are too many.
            InvalidSchedule: A schedule never fires, or its moment lies more than 60 s in the past.
            DuplicateJob: A name is taken, or given twice.
        """
        return await self._mailbox.call(user_requests.AddJobs(with_ids(specs), self._defaults))

    async def upsert_job(self, name: str, prompt: str, schedule: Schedule, **options: Unpack[JobOptions]) -> str:
        """Add a job, or edit the user's job of that name, and return its id.

        While schedule and zone are unchanged, the job keeps its next moment and a pending retry, and a one-shot that is done
        stays done. A paused job stays paused.

        Args:
            name: 1 to 200 printable characters.
            prompt: 1 to 1,000,000 characters.
            schedule: `Cron`, `Interval` or `OneShot`.
            options: The optional fields of `JobSpec`. A zone, retries and a timeout that are left out keep their stored values.

        Raises:
            InvalidJob: A field has a wrong type or value.
            InvalidSchedule: The new schedule never fires, or its moment lies more than 60 s in the past.
        """
        return (await self.upsert_jobs([job_spec(name, prompt, schedule, options)]))[0]

    async def upsert_jobs(self, specs: Iterable[JobSpec], *, origin: str | None = None) -> list[str]:
        """Add or edit up to 10,000 jobs, all or none, and return their ids in the same order.

        Args:
            specs: The jobs.
            origin: The name of the list, such as the path of a file. Jobs of this origin that are no longer in the list are
                removed. A zone, retries and a timeout that a job leaves out follow the defaults of this store. A one-shot whose
                time has passed is stored as done, with a warning in the log. None: none of these three.

        Raises:
            InvalidJob: Something in the list is no `JobSpec`, or there are too many.
            InvalidSchedule: A new schedule never fires; or, without an origin, its moment lies more than 60 s in the past.
            DuplicateJob: A name is given twice.
        """
        if origin is not None:
            text("origin", origin, InvalidJob, limit=MAX_PATH)
        listed = JobList(specs=with_ids(specs), origin=origin, keeps_passed=origin is not None)
        (done,) = await self._mailbox.call(user_requests.UpsertJobs((listed,), self._defaults))
        log_upserted(done, self._defaults)
        return done.ids

    async def adopt_origin(self, origin: str, *, by: str) -> int:
        """Move the jobs of one list to another, with their history and state, and return how many.

        Args:
            origin: The name of the list that has them.
            by: The name of the list that gets them. Its next upsert removes those that it does not name.
        """
        text("origin", origin, InvalidJob, limit=MAX_PATH)
        return await self._mailbox.call(user_requests.AdoptOrigin(origin, text("by", by, InvalidJob, limit=MAX_PATH)))

    async def remove_origin(self, origin: str) -> int:
        """Remove the jobs of a list as `remove_job` does, all or none, and return how many.

        Args:
            origin: The name of the list.
        """
        return await self._mailbox.call(user_requests.RemoveOrigin(text("origin", origin, InvalidJob, limit=MAX_PATH)))

    async def get_job(self, job_id: str) -> CronJob:
        """Read a job.

        Raises:
            JobNotFound: There is no job with that id.
        """
        return await self._mailbox.call(user_requests.GetJob(check_id("job_id", job_id)))

    async def get_job_by_name(self, name: str, *, user_id: str | None = None) -> CronJob | None:
        """Read the user's job of a name; return None if there is none.

        Args:
            name: The name.
            user_id: The user; None for the agent itself.
        """
        return await self._mailbox.call(user_requests.GetJobByName(check_lookup_name(name), check_user_id(user_id)))

    async def job_names(self) -> list[tuple[str | None, str]]:
        """Read user and name of all jobs, sorted, 5,000 per transaction; the user is None for jobs of the agent itself."""
        names: list[tuple[str, str]] = []
        page = [("", "")]
        while page:
            page = await self._mailbox.call(user_requests.PageOfNames(page[-1], _PAGE_OF_NAMES))
            names += page
        return [(user_id or None, name) for user_id, name in names]

    async def list_jobs(
        self, *, user_id: str | AllUsers | None = ALL, tag: str | None = None, enabled: bool | None = None
    ) -> list[CronJob]:
        """Read jobs in the order in which they were added, 500 per transaction: a change in between may or may not show.

        Args:
            user_id: The user; None for the agent itself, ALL for all users.
            tag: Only jobs with this tag, which an index finds; None for all.
            enabled: True for jobs that are enabled, False for those that are paused or done; None for both.

        Raises:
            InvalidJob: An argument has a wrong type or value.
        """
        wanted = None if user_id is ALL else check_user_id(user_id)
        if tag is not None:
            check_tag("tag", tag)
        if enabled is not None:
            flag("enabled", enabled, InvalidJob)
        jobs: list[CronJob] = []
        after: int | None = 0
        while after is not None:
            page, after = await self._mailbox.call(user_requests.PageOfJobs(after, _PAGE, wanted, tag, enabled))
            jobs += page
        return jobs

    async def update_job(self, job_id: str, **changes: Unpack[JobChanges]) -> CronJob:
        """Change fields of a job, and return it. A running run keeps the old values; a new schedule or zone counts from now.

        Raises:
            JobNotFound: There is no job with that id.
            InvalidJob: A field is unknown or has a wrong type or value.
            InvalidSchedule: The new schedule never fires, or its moment lies more than 60 s in the past.
            DuplicateJob: The new name is taken.
        """
        return await self._mailbox.call(user_requests.UpdateJob(check_id("job_id", job_id), check_changes(changes)))

    async def pause_job(self, job_id: str, *, until: datetime | None = None, note: str = "") -> CronJob:
        """Pause a job, and return it: moments that pass are neither run nor missed. A running run continues.

        Moments that are due already and have not started are recorded as skipped. A job that is paused already gets the other time and
        note; one that is done stays as it is.

        Args:
            job_id: The job.
            until: When it resumes by itself, an aware datetime: the first moment from then on runs. If no scheduler is running at that
                time, the moments since are missed ones for the next. None: when it is resumed.
            note: Why, for those who look later: at most 1,000 characters.

        Raises:
            JobNotFound: There is no job with that id.
            InvalidJob: ``until`` has passed, or is later than the only moment of a one-shot; or an argument has a wrong type or value.
            InvalidSchedule: With ``until``: its stored schedule or zone can no longer be read.
        """
        ends = None if until is None else check_instant("until", until)
        return await self._mailbox.call(user_requests.PauseJob(check_id("job_id", job_id), ends, check_description("note", note)))

    async def resume_job(self, job_id: str) -> CronJob:
        """Resume a job with the first moment after now, and with the retry that was waiting.

        Raises:
            JobNotFound: There is no job with that id.
            InvalidJob: The moment of a one-shot has passed.
            InvalidSchedule: Its stored schedule or zone can no longer be read.
        """
        return await self._mailbox.call(user_requests.ResumeJob(check_id("job_id", job_id)))

    async def remove_job(self, job_id: str) -> None:
        """Remove a job. A running run continues to its end; the history stays.

        Raises:
            JobNotFound: There is no job with that id.
        """
        await self._mailbox.call(user_requests.RemoveJob(check_id("job_id", job_id)))

    async def remove_job_by_name(self, name: str, *, user_id: str | None = None) -> None:
        """Remove the user's job of a name.

        Args:
            name: The name.
            user_id: The user; None for the agent itself.

        Raises:
            JobNotFound: There is no such job.
        """
        await self._mailbox.call(user_requests.RemoveJobByName(check_lookup_name(name), check_user_id(user_id)))
