"""The requests of users, through `CronStore`. Each carries its reply type, and decides nothing itself: `cronactors.ledger` does."""

from __future__ import annotations

import os
from typing import ClassVar

import attrs

from cronactors.actors.mailbox import Request
from cronactors.errors import AlreadyClaimed, JobBusy
from cronactors.instants import Millis
from cronactors.ledger import explain, jobs, own_loop, runs, stored_values, upsert, views
from cronactors.ledger.jobs import Defaults
from cronactors.ledger.upsert import JobList, Upserted
from cronactors.model import CronJob, CronRun, Explanation, JobChanges
from cronactors.policy import Outcome
from cronactors.spec import JobSpec, RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import Claimed, OriginRow, RunRow

# Jobs


@attrs.frozen
class AddJobs(Request[list[str]]):
    """Add jobs, all or none, under the ids made for them."""

    specs: tuple[tuple[str, JobSpec], ...]
    defaults: Defaults

    def apply(self, storage: Storage) -> list[str]:
        """Answer the ids."""
        return jobs.add_jobs(storage, self.specs, self.defaults)


@attrs.frozen
class UpsertJobs(Request[list[Upserted]]):
    """Add or edit the jobs of lists, all or none; remove those of their origins that are not listed any more."""

    may_end_runs: ClassVar[bool] = True
    lists: tuple[JobList, ...]
    defaults: Defaults

    def apply(self, storage: Storage) -> list[Upserted]:
        """Give what was done with each list."""
        return [upsert.upsert_jobs(storage, each, self.defaults) for each in self.lists]


@attrs.frozen
class ListOrigins(Request[list[tuple[OriginRow, bool]]]):
    """Read which origins jobs have, and whether the file that is noted with each is gone."""

    reads: ClassVar[bool] = True
    folder: str | None

    def apply(self, storage: Storage) -> list[tuple[OriginRow, bool]]:
        """Look at the files too: on the storage thread a slow file system holds up no timer."""
        return [(row, row.file is not None and self._is_gone(row.file)) for row in storage.origins()]

    def _is_gone(self, file: str) -> bool:
        try:
            os.stat(os.path.join(self.folder or "", file))  # noqa: PTH116, PTH118 - as the path was made
        except (FileNotFoundError, NotADirectoryError):
            return self.folder is not None
        except (OSError, ValueError):
            pass  # it cannot be seen, which says nothing
        return False


@attrs.frozen
class AdoptOrigin(Request[int]):
    """Give the jobs of one origin to another."""

    origin: str
    by: str

    def apply(self, storage: Storage) -> int:
        """Give their number."""
        return upsert.adopt_origin(storage, self.origin, by=self.by)


@attrs.frozen
class RemoveOrigin(Request[int]):
    """Remove the jobs of an origin."""

    may_end_runs: ClassVar[bool] = True
    origin: str

    def apply(self, storage: Storage) -> int:
        """Give their number."""
        return upsert.remove_origin(storage, self.origin)


@attrs.frozen
class GetJob(Request[CronJob]):
    """Read a job."""

    reads: ClassVar[bool] = True
    job_id: str

    def apply(self, storage: Storage) -> CronJob:
        """Answer the job."""
        return views.job_views(storage, [jobs.find_job(storage, self.job_id)])[0]


@attrs.frozen
class GetJobByName(Request[CronJob | None]):
    """Read the user's job of a name."""

    reads: ClassVar[bool] = True
    name: str
    user_id: str

    def apply(self, storage: Storage) -> CronJob | None:
        """Answer the job, if there is one."""
        job = jobs.find_named(storage, self.name, self.user_id)
        return None if job is None else views.job_views(storage, [job])[0]


@attrs.frozen
class PageOfJobs(Request[tuple[list[CronJob], int | None]]):
    """Read a page of jobs."""

    reads: ClassVar[bool] = True
    after: int
    limit: int
    user_id: str | None

    def apply(self, storage: Storage) -> tuple[list[CronJob], int | None]:
        """Answer the jobs, and where the next page begins."""
        page = storage.list_jobs(after=self.after, limit=self.limit, user_id=self.user_id)
        return views.job_views(storage, (job for _, job in page)), page[-1][0] if len(page) == self.limit else None


@attrs.frozen
class UpdateJob(Request[CronJob]):
    """Change fields of a job."""

    may_end_runs: ClassVar[bool] = True
    job_id: str
    changes: JobChanges

    def apply(self, storage: Storage) -> CronJob:
        """Answer the job as it is now."""
        return views.job_views(storage, [jobs.update_job(storage, self.job_id, self.changes)])[0]


@attrs.frozen
class PauseJob(Request[CronJob]):
    """Pause a job."""

    job_id: str

    def apply(self, storage: Storage) -> CronJob:
        """Answer the job as it is now."""
        return views.job_views(storage, [jobs.pause_job(storage, self.job_id)])[0]


@attrs.frozen
class ResumeJob(Request[CronJob]):
    """Resume a job."""

    job_id: str

    def apply(self, storage: Storage) -> CronJob:
        """Answer the job as it is now."""
        return views.job_views(storage, [jobs.resume_job(storage, self.job_id)])[0]


@attrs.frozen
class RemoveJob(Request[None]):
    """Remove a job."""

    may_end_runs: ClassVar[bool] = True
    job_id: str

    def apply(self, storage: Storage) -> None:
        """Answer nothing."""
        jobs.remove_job(storage, self.job_id)


@attrs.frozen
class RemoveJobByName(Request[None]):
    """Remove the user's job of a name."""

    may_end_runs: ClassVar[bool] = True
    name: str
    user_id: str

    def apply(self, storage: Storage) -> None:
        """Answer nothing."""
        jobs.remove_named(storage, self.name, self.user_id)


# Runs


@attrs.frozen
class DueJobs(Request[list[CronJob]]):
    """Read the jobs whose moment, or whose pending attempt, has come."""

    reads: ClassVar[bool] = True
    retries: bool
    limit: int | None

    def apply(self, storage: Storage) -> list[CronJob]:
        """Answer the jobs, in order of the queue."""
        return own_loop.due_jobs(storage, retries=self.retries, limit=self.limit)


@attrs.frozen
class StartOwnRun(Request[Claimed | AlreadyClaimed | JobBusy]):
    """Claim for a loop of the caller's own."""

    target: CronJob | str
    owner: int

    def apply(self, storage: Storage) -> Claimed | AlreadyClaimed | JobBusy:
        """Answer the run that has begun, or the error to raise."""
        return own_loop.start_own_run(storage, self.target, owner=self.owner)


@attrs.frozen
class FinishOwnRun(Request[CronRun]):
    """End a run of a loop of the caller's own."""

    may_end_runs: ClassVar[bool] = True
    run_id: str
    outcome: Outcome
    policy: RetryPolicy

    def apply(self, storage: Storage) -> CronRun:
        """Answer the run as it is now."""
        return views.run_view(own_loop.finish_own_run(storage, self.run_id, self.outcome, policy=self.policy))


@attrs.frozen
class RequestRun(Request[CronRun]):
    """Put a run into the queue, to start now."""

    job_id: str

    def apply(self, storage: Storage) -> CronRun:
        """Answer the pending run."""
        return views.run_view(runs.request_run(storage, self.job_id))


@attrs.frozen
class RequestCancel(Request[CronRun]):
    """Cancel a pending run, or ask the owner of a running one to."""

    may_end_runs: ClassVar[bool] = True
    run_id: str
    policy: RetryPolicy

    def apply(self, storage: Storage) -> CronRun:
        """Answer the run as it is now."""
        return views.run_view(runs.request_cancel(storage, self.run_id, policy=self.policy))


@attrs.frozen
class GetRun(Request[CronRun]):
    """Read a run."""

    reads: ClassVar[bool] = True
    run_id: str

    def apply(self, storage: Storage) -> CronRun:
        """Answer the run."""
        return views.run_view(runs.find_run(storage, self.run_id))


@attrs.frozen
class PageOfRuns(Request[list[RunRow]]):
    """Read a page of history, newest first."""

    reads: ClassVar[bool] = True
    job_id: str | None
    before: RunRow | None
    limit: int

    def apply(self, storage: Storage) -> list[RunRow]:
        """Answer the rows; fewer than the limit means that there are no more."""
        return storage.list_runs(job_id=self.job_id, before=self.before, limit=self.limit)


@attrs.frozen
class Explain(Request[Explanation]):
    """Tell what became of a moment, or what will."""

    reads: ClassVar[bool] = True
    job_id: str
    at: Millis

    def apply(self, storage: Storage) -> Explanation:
        """Answer it."""
        job = jobs.find_job(storage, self.job_id)
        stored_values.check_policies(job)
        return explain.explain(storage, job, self.at)
