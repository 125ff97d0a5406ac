"""The requests that `CronStore` sends. `apply` runs on the storage thread, and leaves each decision to the ledger."""

from __future__ import annotations

import os
from typing import ClassVar

import attrs

from cronactors.actors.mailbox import ReadRequest, Request
from cronactors.errors import AlreadyClaimed, CronError, JobBusy
from cronactors.instants import Millis
from cronactors.job_data import data_from_column
from cronactors.json_value import JsonText
from cronactors.ledger import jobs, own_loop, pausing, runs, upsert, views
from cronactors.ledger.job_fields import Defaults
from cronactors.ledger.upsert import JobList, Upserted
from cronactors.model import CronJob, CronRun
from cronactors.owner import ProcessIdentity
from cronactors.policy import Outcome
from cronactors.settings import RetryPolicy
from cronactors.spec import JobChanges, JobSpec
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import Claimed, JobRow, OriginRow

# Jobs


@attrs.frozen
class AddJobs(Request[list[str]]):
    """Add jobs, all or none, under the ids made for them, and return these ids."""

    alone: ClassVar[bool] = False
    specs: tuple[tuple[str, JobSpec], ...]
    defaults: Defaults

    def apply(self, storage: Storage) -> list[str]:
        return jobs.add_jobs(storage, self.specs, self.defaults)


@attrs.frozen
class UpsertJobs(Request[list[Upserted]]):
    """Add or edit the jobs of lists, all or none, and remove jobs of their origins that are no longer listed."""

    may_finish_runs: ClassVar[bool] = True
    lists: tuple[JobList, ...]
    defaults: Defaults

    def apply(self, storage: Storage) -> list[Upserted]:
        return [upsert.upsert_jobs(storage, each, self.defaults) for each in self.lists]


@attrs.frozen
class ListOrigins(ReadRequest[list[tuple[OriginRow, bool]]]):
    """Read the origins of jobs, each with whether its file is gone.

    It looks for the files here, on the storage thread, where a slow file system delays no timer.
    """

    folder: str | None

    def apply(self, storage: Storage) -> list[tuple[OriginRow, bool]]:
        return [(row, row.file is not None and self._is_gone(row.file)) for row in storage.origins()]

    def _is_gone(self, file: str) -> bool:
        try:
            os.stat(os.path.join(self.folder or "", file))  # noqa: PTH116, PTH118 - as the path was made
        except (FileNotFoundError, NotADirectoryError):
            return self.folder is not None
        except (OSError, ValueError):
            pass  # out of reach, so it may still exist
        return False


@attrs.frozen
class AdoptOrigin(Request[int]):
    """Move the jobs of one origin to another, and return how many."""

    origin: str
    by: str

    def apply(self, storage: Storage) -> int:
        return upsert.adopt_origin(storage, self.origin, by=self.by)


@attrs.frozen
class RemoveOrigin(Request[int]):
    """Remove the jobs of an origin, and return how many."""

    may_finish_runs: ClassVar[bool] = True
    origin: str

    def apply(self, storage: Storage) -> int:
        return upsert.remove_origin(storage, self.origin)


@attrs.frozen
class GetJob(ReadRequest[CronJob]):
    """Read a job."""

    job_id: str

    def apply(self, storage: Storage) -> CronJob:
        return views.read_job_view(storage, jobs.find_job(storage, self.job_id))


@attrs.frozen
class GetJobByName(ReadRequest[CronJob | None]):
    """Read the user's job of a name, if there is one."""

    name: str
    user_id: str

    def apply(self, storage: Storage) -> CronJob | None:
        job = jobs.find_named(storage, self.name, self.user_id)
        return None if job is None else views.read_job_view(storage, job)


@attrs.frozen
class PageOfNames(ReadRequest[list[tuple[str, str]]]):
    """Read a page of user and name of all jobs."""

    after: tuple[str, str]
    limit: int

    def apply(self, storage: Storage) -> list[tuple[str, str]]:
        return storage.job_names(after=self.after, limit=self.limit)


@attrs.frozen
class PageOfJobs(ReadRequest[tuple[list[CronJob], int | None]]):
    """Read a page of jobs, and where the next page begins; None after the last page."""

    after: int
    limit: int
    user_id: str | None
    tag: str | None = None
    enabled: bool | None = None

    def apply(self, storage: Storage) -> tuple[list[CronJob], int | None]:
        if self.tag is None:
            page = storage.list_jobs(after=self.after, limit=self.limit, user_id=self.user_id)
        else:
            page = storage.jobs_tagged(self.tag, after=self.after, limit=self.limit)
        wanted = (job for _, job in page if self._wants(job))
        return views.job_views(storage, wanted), page[-1][0] if len(page) == self.limit else None

    def _wants(self, job: JobRow) -> bool:
        return self.user_id in (None, job.user_id) and self.enabled in (None, bool(job.enabled))


@attrs.frozen
class UpdateJob(Request[CronJob]):
    """Change fields of a job, and return the job."""

    may_finish_runs: ClassVar[bool] = True
    job_id: str
    changes: JobChanges

    def apply(self, storage: Storage) -> CronJob:
        return views.read_job_view(storage, jobs.update_job(storage, self.job_id, self.changes))


class WouldBe(CronError):
    """Raised by `TryUpdate`: the store undoes the change of a request that raises a CronError.

    Attributes:
        job: The job as it would be.
    """

    def __init__(self, job: CronJob) -> None:
        super().__init__("the update was tried, and undone")
        self.job = job


@attrs.frozen
class TryUpdate(UpdateJob):
    """Change fields of a job as `UpdateJob` does, and undo it.

    Raises:
        WouldBe: It is not refused.
    """

    def apply(self, storage: Storage) -> CronJob:
        raise WouldBe(super().apply(storage))


@attrs.frozen
class PauseJob(Request[CronJob]):
    """Pause a job until a time, or until it is resumed; return it."""

    job_id: str
    until: Millis | None = None
    note: str = ""

    def apply(self, storage: Storage) -> CronJob:
        return views.read_job_view(storage, jobs.pause_job(storage, self.job_id, until=self.until, note=self.note))


@attrs.frozen
class ResumeJob(Request[CronJob]):
    """Resume a job, and return it."""

    job_id: str

    def apply(self, storage: Storage) -> CronJob:
        return views.read_job_view(storage, jobs.resume_job(storage, self.job_id))


@attrs.frozen
class EndPauses(Request[bool]):
    """Resume jobs whose pauses were to end by now, and return whether there were any."""

    def apply(self, storage: Storage) -> bool:
        return pausing.end_pauses(storage)


@attrs.frozen
class RemoveJob(Request[None]):
    """Remove a job."""

    may_finish_runs: ClassVar[bool] = True
    job_id: str

    def apply(self, storage: Storage) -> None:
        jobs.remove_job(storage, self.job_id)


@attrs.frozen
class RemoveJobByName(Request[None]):
    """Remove the user's job of a name."""

    may_finish_runs: ClassVar[bool] = True
    name: str
    user_id: str

    def apply(self, storage: Storage) -> None:
        jobs.remove_named(storage, self.name, self.user_id)


# Runs


@attrs.frozen
class DueJobs(ReadRequest[list[CronJob]]):
    """Read the jobs with a due moment, or with a pending run that may start, in the order of the queue."""

    retries: bool
    limit: int | None

    def apply(self, storage: Storage) -> list[CronJob]:
        return own_loop.due_jobs(storage, retries=self.retries, limit=self.limit)


@attrs.frozen
class StartOwnRun(Request[Claimed | AlreadyClaimed | JobBusy]):
    """Claim a run for a loop of the caller's own; return it, or the error to raise."""

    target: CronJob | str
    owner: int
    process: ProcessIdentity

    def apply(self, storage: Storage) -> Claimed | AlreadyClaimed | JobBusy:
        return own_loop.start_own_run(storage, self.target, owner=self.owner, this_process=self.process)


@attrs.frozen
class FinishOwnRun(Request[CronRun]):
    """Finish a run of a loop of the caller's own, and return it."""

    may_finish_runs: ClassVar[bool] = True
    run_id: str
    outcome: Outcome
    policy: RetryPolicy

    def apply(self, storage: Storage) -> CronRun:
        return views.run_view(own_loop.finish_own_run(storage, self.run_id, self.outcome, policy=self.policy))


@attrs.frozen
class RequestRun(Request[CronRun]):
    """Add a pending run that may start now, and return it; or return the run that was requested with its key before."""

    alone: ClassVar[bool] = False
    job_id: str
    key: str | None
    data: str | None = attrs.field(repr=False)

    def apply(self, storage: Storage) -> CronRun:
        return views.run_view(runs.request_run(storage, self.job_id, key=self.key, data=self.data))


@attrs.frozen
class GetRunData(ReadRequest[JsonText]):
    """Read the data of a run."""

    run_id: str

    def apply(self, storage: Storage) -> JsonText:
        return data_from_column(runs.data_of_run(storage, self.run_id))


@attrs.frozen
class RequestCancel(Request[CronRun]):
    """Cancel a pending run, or mark a running one for its owner to cancel, and return it."""

    may_finish_runs: ClassVar[bool] = True
    run_id: str
    policy: RetryPolicy

    def apply(self, storage: Storage) -> CronRun:
        return views.run_view(runs.request_cancel(storage, self.run_id, policy=self.policy))


@attrs.frozen
class GetRun(ReadRequest[CronRun]):
    """Read a run."""

    run_id: str

    def apply(self, storage: Storage) -> CronRun:
        return views.run_view(runs.find_run(storage, self.run_id))
