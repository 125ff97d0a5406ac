"""The store that users hold: every verb on jobs and runs, with or without a scheduler. Runs in the caller's task."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Never, Unpack, final

from cronactors.actors import user_requests
from cronactors.actors.exits import BlockExit, guarded_contextmanager
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.store_lifetime import StoreService, StrPath, check_path, store_service
from cronactors.checks import flag, member, text, whole
from cronactors.errors import InvalidConfig, InvalidJob
from cronactors.ids import with_ids
from cronactors.ledger.job_fields import Defaults
from cronactors.ledger.upsert import JobList
from cronactors.ledger.views import run_view
from cronactors.model import ALL, AllUsers, CronJob, CronRun, RunStatus
from cronactors.origins import log_upserted
from cronactors.own_loop import MAX_LIMIT, OwnLoop, outcome_from
from cronactors.schedules.schedule import Schedule
from cronactors.spec import (
    MAX_PATH,
    CronConfig,
    JobChanges,
    JobOptions,
    JobSpec,
    check_changes,
    check_id,
    check_lookup_name,
    check_settings,
    check_user_id,
    job_spec,
)

if TYPE_CHECKING:
    from cronactors.storage.rows import RunRow

_JOBS_PAGE = 500
_RUNS_PAGE = 2_000


@final
class CronStore:
    """Jobs and their history in one file. `open_store` makes it, and `CronScheduler.store` is one.

    When a method returns, its change is on disk. A call that is cancelled before its transaction has started has no effect; from
    then on it returns its result, a few milliseconds later.

    Every method raises `StoreUnavailable` if the file is locked for 30 s, full or out of reach, `StoreCorrupt` if it is damaged,
    and `SchedulerClosed` after its block has ended.
    """

    _service: StoreService
    _mailbox: Mailbox
    _config: CronConfig
    _defaults: Defaults
    _own_loop: OwnLoop

    def __init__(self, *_args: Never, **_options: Never) -> None:
        raise TypeError("CronStore has no public constructor: use open_store(), or the store of a CronScheduler")

    @classmethod
    def _create(cls, service: StoreService, *, config: CronConfig, timezone: str | None) -> CronStore:
        store = cls.__new__(cls)
        store._service = service
        store._mailbox = service.mailbox
        store._config = config
        store._own_loop = OwnLoop(service, config.retry)
        store._defaults = Defaults(
            timezone=timezone or config.timezone,
            max_retries=config.default_max_retries,
            timeout_secs=config.default_timeout_secs,
        )
        return store

    @property
    def path(self) -> str:
        """The absolute path of the file."""
        return self._service.path

    # Jobs

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

    async def list_jobs(self, *, user_id: str | AllUsers | None = ALL) -> list[CronJob]:
        """Read jobs in the order in which they were added, 500 per transaction: a change in between may or may not show.

        Args:
            user_id: The user; None for the agent itself, ALL for all users.
        """
        wanted = None if user_id is ALL else check_user_id(user_id)
        jobs: list[CronJob] = []
        after: int | None = 0
        while after is not None:
            page, after = await self._mailbox.call(user_requests.PageOfJobs(after, _JOBS_PAGE, wanted))
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

    async def pause_job(self, job_id: str) -> CronJob:
        """Pause a job: moments that pass are neither run nor missed. A running run continues.

        Moments that are due already and have not started are recorded as skipped.

        Raises:
            JobNotFound: There is no job with that id.
        """
        return await self._mailbox.call(user_requests.PauseJob(check_id("job_id", job_id)))

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

    # Loops of the caller's own

    async def get_due_jobs(self, *, limit: int | None = None) -> list[CronJob]:
        """Recover the runs of dead processes, then read the jobs with a due moment, the earliest first.

        Args:
            limit: How many at most; None for all.
        """
        return await self._own_loop.due_jobs(limit, retries=False)

    async def get_retry_jobs(self, *, limit: int | None = None) -> list[CronJob]:
        """Read the jobs with a run that may start now: a retry, an interrupted run, or a requested one.

        Runs of dead processes are recovered first. ``retry_at`` of each job is the time at which its run became ready.

        Args:
            limit: How many at most; None for all.
        """
        return await self._own_loop.due_jobs(limit, retries=True)

    async def record_run_start(self, job: CronJob | str) -> str:
        """Claim a run for a loop of the caller's own, and return its id. If this process dies, the run is recovered.

        Args:
            job: A job from `get_due_jobs` or `get_retry_jobs`: claims exactly the moment or run that it shows. Or an id: claims a
                moment or run of that job that is due; if none is, an extra manual run starts and the next moment stays.

        Raises:
            JobNotFound: There is no job with that id.
            AlreadyClaimed: The moment has been started elsewhere, or the job was changed; or the moment was older than the job's
                misfire window, and has been skipped or cancelled.
            JobBusy: The job has an open run and skips moments that overlap, or its session is in use.
        """
        return await self._own_loop.start(job)

    async def record_run_complete(
        self, run_id: str, status: RunStatus, result: str | None = None, *, session_id: str = "", error: str | None = None
    ) -> CronRun:
        """Finish a run, once, through any store of the file. A failed run is retried as its job says.

        Args:
            run_id: From `record_run_start`.
            status: SUCCESS or FAILED or CANCELLED.
            result: The result; for a failed run without ``error``, the reason of the failure.
            session_id: The session used.
            error: The reason of the failure.

        Raises:
            InvalidJob: An argument has a wrong type or value.
            RunNotFound: There is no run with that id.
            RunClosed: It has ended, or was taken over.
        """
        outcome = outcome_from(status, result, session_id=session_id, error=error)
        return await self._own_loop.finish(run_id, outcome)

    # Runs

    async def request_run(self, job_id: str) -> str:
        """Request a run of a job, paused or not, and return its id. A scheduler of the file starts it now.

        Raises:
            JobNotFound: There is no job with that id.
            JobBusy: The job has an open run and skips moments that overlap.
        """
        return (await self._mailbox.call(user_requests.RequestRun(check_id("job_id", job_id)))).id

    async def request_cancel(self, run_id: str) -> CronRun:
        """Cancel a run, and return it: a pending run ends at once, a running one is cancelled by its scheduler within a tick.

        Raises:
            RunNotFound: There is no run with that id.
            RunClosed: It has ended.
        """
        return await self._mailbox.call(user_requests.RequestCancel(check_id("run_id", run_id), self._config.retry))

    async def get_run(self, run_id: str) -> CronRun:
        """Read a run.

        Raises:
            RunNotFound: There is no run with that id.
        """
        return await self._mailbox.call(user_requests.GetRun(check_id("run_id", run_id)))

    async def list_runs(
        self,
        job_id: str | None = None,
        limit: int = 10,
        *,
        status: RunStatus | None = None,
        user_id: str | AllUsers | None = ALL,
    ) -> list[CronRun]:
        """Read history, newest first, removed jobs included.

        Args:
            job_id: Runs of that job only, in order of moment; None for all jobs, in order of start.
            limit: How many at most.
            status: Only runs with that status.
            user_id: The user; None for the agent itself, ALL for all users.
        """
        if job_id is not None:
            check_id("job_id", job_id)
        whole("limit", limit, InvalidJob, least=1, most=MAX_LIMIT)
        wanted_status = None if status is None else member("status", status, InvalidJob, RunStatus)
        wanted_user = None if user_id is ALL else check_user_id(user_id)
        filtered = wanted_status is not None or wanted_user is not None
        found: list[CronRun] = []
        before: RunRow | None = None
        while len(found) < limit:
            size = _RUNS_PAGE if filtered else min(limit - len(found), _RUNS_PAGE)
            page = await self._mailbox.call(user_requests.PageOfRuns(job_id, before, size))
            wanted = (run for run in page if wanted_status in (None, run.status) and wanted_user in (None, run.user_id))
            found += map(run_view, wanted)
            if len(page) < size:
                break
            before = page[-1]
        return found[:limit]


@guarded_contextmanager
async def open_store(
    store: StrPath, *, timezone: str | None = None, config: CronConfig | None = None, create: bool = True
) -> AsyncGenerator[CronStore]:
    """Open a store without a scheduler: to edit jobs, to read history, or for a loop of your own.

    Waits up to 10 s for a file that another process has locked.

    Args:
        store: The file. It is created with mode 0600; its folder must exist. ``":memory:"`` is a private store.
        timezone: IANA name of the zone for jobs that name none; None: the zone of ``config``.
        config: Defaults for fields that jobs leave out. Its own ``jobs`` are not added.
        create: Whether to create a missing file.

    Raises:
        InvalidConfig: An argument is wrong.
        StoreUnavailable: The file is missing, locked, not permitted or out of reach.
        StoreCorrupt: The file is damaged, of another application or of a newer version; it has not been touched.
    """
    path = check_path(store)
    config = check_settings(config, timezone)
    flag("create", create, InvalidConfig)
    block_exit = BlockExit()
    with block_exit:
        async with store_service(path, create=create) as service:
            with block_exit.body:
                yield CronStore._create(service, config=config, timezone=timezone)
            await service.mark_stopping(service.owners.copy())
    block_exit.raise_errors()
