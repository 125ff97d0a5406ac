"""The store as users hold it: every verb on jobs and runs, with or without a scheduler."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Unpack

from cronactors.actors import user_requests
from cronactors.actors.exits import BlockExit, guarded_contextmanager
from cronactors.actors.recompute import NoteRules, recompute_moments
from cronactors.actors.store_lifetime import StoreService, StrPath, check_path, store_service
from cronactors.checks import flag, member, text, whole
from cronactors.errors import CronError, InvalidConfig, InvalidJob
from cronactors.ids import with_ids
from cronactors.ledger.job_fields import Defaults
from cronactors.ledger.upsert import JobList
from cronactors.ledger.views import run_view
from cronactors.model import ALL, AllUsers, CronJob, CronRun, RunStatus
from cronactors.origins import log_upserted
from cronactors.own_loop import check_target, outcome_from
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
_MAX_LIMIT = 1_000_000


class CronStore:
    """Jobs and their history in one file. Made by `open_store`, or the ``store`` of a `CronScheduler`.

    Every verb raises `StoreUnavailable` if the file is locked for 30 seconds, full or out of reach, `StoreCorrupt` if it is damaged
    and `SchedulerClosed` after the end of its block. An answer means that the change is durable. A call that is cancelled before its
    transaction has begun has no effect; from then on it returns its answer, a few milliseconds later.
    """

    def __init__(self, service: StoreService, *, config: CronConfig, timezone: str | None) -> None:
        self._service = service
        self._config = config
        self._owner: int | None = None
        self._recomputed = False
        self._defaults = Defaults(
            timezone=timezone or config.timezone,
            max_retries=config.default_max_retries,
            timeout_secs=config.default_timeout_secs,
        )

    @property
    def path(self) -> str:
        """The file."""
        return self._service.path

    # Jobs

    async def add_job(self, name: str, prompt: str, schedule: Schedule, **options: Unpack[JobOptions]) -> str:
        """Add a job and answer its id.

        Args:
            name: 1 to 200 printable characters, unique among the user's jobs.
            prompt: 1 to 1,000,000 characters: what the executor is to do.
            schedule: `Cron`, `Interval` or `OneShot`.
            options: As of `JobSpec`.

        Raises:
            InvalidJob: A field has a wrong type or value.
            InvalidSchedule: The schedule never fires, or its moment lies more than 60 s in the past.
            DuplicateJob: The user has a job of that name.
        """
        return (await self.add_jobs([job_spec(name, prompt, schedule, options)]))[0]

    async def add_jobs(self, specs: Iterable[JobSpec]) -> list[str]:
        """Add up to 10,000 jobs, all or none, and answer their ids in the same order.

        Raises:
            InvalidJob: Something in the list is no `JobSpec`, or there are too many.
            InvalidSchedule: A schedule never fires, or its moment lies more than 60 s in the past.
            DuplicateJob: A name is taken, or given twice.
        """
        return await self._service.mailbox.call(user_requests.AddJobs(with_ids(specs), self._defaults))

    async def upsert_job(self, name: str, prompt: str, schedule: Schedule, **options: Unpack[JobOptions]) -> str:
        """Add a job, or edit the user's job of that name, and answer its id.

        An unchanged schedule and zone keep the next moment, a pending retry, and that a one-shot is done. Paused stays paused.

        Args:
            name: 1 to 200 printable characters.
            prompt: 1 to 1,000,000 characters.
            schedule: `Cron`, `Interval` or `OneShot`.
            options: As of `JobSpec`; zone, retries and timeout that are not given stay as they were settled.

        Raises:
            InvalidJob: A field has a wrong type or value.
            InvalidSchedule: The new schedule never fires, or its moment lies more than 60 s in the past.
        """
        return (await self.upsert_jobs([job_spec(name, prompt, schedule, options)]))[0]

    async def upsert_jobs(self, specs: Iterable[JobSpec], *, origin: str | None = None) -> list[str]:
        """Add or edit up to 10,000 jobs, all or none, and answer their ids in the same order.

        Args:
            specs: The jobs.
            origin: The name of the list, such as a file's path. Its jobs that are not in the list any more are removed, zone, retries
                and timeout that an entry leaves out follow the defaults of this handle, and a one-shot whose time has passed is
                entered as done, with a warning in the log. None: none of that.

        Raises:
            InvalidJob: Something in the list is no `JobSpec`, or there are too many.
            InvalidSchedule: A new schedule never fires; or, without an origin, its moment lies more than 60 s in the past.
            DuplicateJob: A name is given twice.
        """
        if origin is not None:
            text("origin", origin, InvalidJob, limit=MAX_PATH)
        listed = JobList(specs=with_ids(specs), origin=origin, keeps_passed=origin is not None)
        (done,) = await self._service.mailbox.call(user_requests.UpsertJobs((listed,), self._defaults))
        log_upserted(done, self._defaults)
        return done.ids

    async def adopt_origin(self, origin: str, *, by: str) -> int:
        """Give the jobs of one list to another, with their history and state, and count them.

        Args:
            origin: The name of the list that has them.
            by: The name of the list that gets them; its next upsert removes those that it does not name.
        """
        text("origin", origin, InvalidJob, limit=MAX_PATH)
        return await self._service.mailbox.call(user_requests.AdoptOrigin(origin, text("by", by, InvalidJob, limit=MAX_PATH)))

    async def remove_origin(self, origin: str) -> int:
        """Remove the jobs of a list as `remove_job` does, all or none, and count them.

        Args:
            origin: The name of the list.
        """
        return await self._service.mailbox.call(user_requests.RemoveOrigin(text("origin", origin, InvalidJob, limit=MAX_PATH)))

    async def get_job(self, job_id: str) -> CronJob:
        """Read a job.

        Raises:
            JobNotFound: There is none of that id.
        """
        return await self._service.mailbox.call(user_requests.GetJob(check_id("job_id", job_id)))

    async def get_job_by_name(self, name: str, *, user_id: str | None = None) -> CronJob | None:
        """Read the user's job of a name; None if there is none.

        Args:
            name: The name.
            user_id: Whose; None for the agent's own.
        """
        return await self._service.mailbox.call(user_requests.GetJobByName(check_lookup_name(name), check_user_id(user_id)))

    async def list_jobs(self, *, user_id: str | AllUsers | None = ALL) -> list[CronJob]:
        """Read jobs in the order in which they were added, a page at a time: what changes meanwhile may or may not show.

        Args:
            user_id: Whose; None for the agent's own, ALL for everybody's.
        """
        wanted = None if user_id is ALL else check_user_id(user_id)
        jobs: list[CronJob] = []
        after: int | None = 0
        while after is not None:
            page, after = await self._service.mailbox.call(user_requests.PageOfJobs(after, _JOBS_PAGE, wanted))
            jobs += page
        return jobs

    async def update_job(self, job_id: str, **changes: Unpack[JobChanges]) -> CronJob:
        """Change fields of a job. A run that goes on keeps the old ones; a new schedule or zone counts from now.

        Raises:
            JobNotFound: There is none of that id.
            InvalidJob: A field is unknown or has a wrong type or value.
            InvalidSchedule: The new schedule never fires, or its moment lies more than 60 s in the past.
            DuplicateJob: The new name is taken.
        """
        return await self._service.mailbox.call(user_requests.UpdateJob(check_id("job_id", job_id), check_changes(changes)))

    async def pause_job(self, job_id: str) -> CronJob:
        """Pause a job: moments that pass are neither run nor missed. A run that goes on goes on.

        Moments that had come due before and have not begun are recorded as skipped.

        Raises:
            JobNotFound: There is none of that id.
        """
        return await self._service.mailbox.call(user_requests.PauseJob(check_id("job_id", job_id)))

    async def resume_job(self, job_id: str) -> CronJob:
        """Resume a job with the first moment after now, and with the retry that was waiting.

        Raises:
            JobNotFound: There is none of that id.
            InvalidJob: The moment of a one-shot has passed.
            InvalidSchedule: Its stored schedule or zone cannot be read any more.
        """
        return await self._service.mailbox.call(user_requests.ResumeJob(check_id("job_id", job_id)))

    async def remove_job(self, job_id: str) -> None:
        """Remove a job. A run that goes on goes on to its end; the history stays.

        Raises:
            JobNotFound: There is none of that id.
        """
        await self._service.mailbox.call(user_requests.RemoveJob(check_id("job_id", job_id)))

    async def remove_job_by_name(self, name: str, *, user_id: str | None = None) -> None:
        """Remove the user's job of a name.

        Args:
            name: The name.
            user_id: Whose; None for the agent's own.

        Raises:
            JobNotFound: There is none.
        """
        await self._service.mailbox.call(user_requests.RemoveJobByName(check_lookup_name(name), check_user_id(user_id)))

    # Loops of the caller's own

    async def get_due_jobs(self, *, limit: int | None = None) -> list[CronJob]:
        """Read the jobs whose next moment has come, in order of time, after taking back what dead processes left behind.

        Args:
            limit: How many at most; None for all.
        """
        return await self._due(limit, retries=False)

    async def get_retry_jobs(self, *, limit: int | None = None) -> list[CronJob]:
        """Read the jobs with an attempt that may start now: a retry, an interrupted run, a run asked for.

        ``retry_at`` of each tells when it became ready.

        Args:
            limit: How many at most; None for all.
        """
        return await self._due(limit, retries=True)

    async def _due(self, limit: int | None, *, retries: bool) -> list[CronJob]:
        if limit is not None:
            whole("limit", limit, InvalidJob, least=1, most=_MAX_LIMIT)
        if not self._recomputed:  # a scheduler has a task for it
            await recompute_moments(self._service.mailbox, await self._service.mailbox.call(NoteRules()))
            self._recomputed = True
        if (await self._service.inspect(self._owner or 0)).orphaned:
            await self._service.recover(self._config.retry)
        return await self._service.mailbox.call(user_requests.DueJobs(retries, limit))

    async def record_run_start(self, job: CronJob | str) -> str:
        """Claim a run for a loop of the caller's own, and answer its id. If this process dies the run is taken back.

        Args:
            job: As `get_due_jobs` or `get_retry_jobs` gave it: claims exactly that moment or attempt. An id: claims what is due
                of that job; if nothing is, an extra manual run begins and the next moment stays.

        Raises:
            JobNotFound: There is none of that id.
            AlreadyClaimed: Somebody else has started that moment, or the job was changed; or the moment was older than the job's
                misfire window, and has been skipped or cancelled.
            JobBusy: The job has an open run and skips what overlaps, or its session is in use.
        """
        target = check_target(job)
        started = await self._service.mailbox.call(user_requests.StartOwnRun(target, await self._own()))
        if isinstance(started, CronError):
            raise started
        return str(started.run.id)

    async def record_run_complete(
        self, run_id: str, status: RunStatus, result: str | None = None, *, session_id: str = "", error: str | None = None
    ) -> CronRun:
        """Record the end of a run, once, from any handle of the file. A failed one is tried again as its job says.

        Args:
            run_id: From `record_run_start`.
            status: SUCCESS or FAILED or CANCELLED.
            result: What came of it; of a failed run, if ``error`` is not given, what went wrong.
            session_id: The session used.
            error: What went wrong.

        Raises:
            InvalidJob: An argument has a wrong type or value.
            RunNotFound: There is none of that id.
            RunClosed: It has ended, or was taken over.
        """
        ending = outcome_from(status, result, session_id=session_id, error=error)
        return await self._service.mailbox.call(
            user_requests.FinishOwnRun(check_id("run_id", run_id), ending, self._config.retry)
        )

    async def _own(self) -> int:
        if self._owner is None:
            self._owner = (await self._service.register()).owner
        return self._owner

    # Runs

    async def request_run(self, job_id: str) -> str:
        """Ask for a run of a job, paused or not, and answer its id. Whichever scheduler has the file open starts it now.

        Raises:
            JobNotFound: There is none of that id.
            JobBusy: The job has an open run and skips what overlaps.
        """
        return (await self._service.mailbox.call(user_requests.RequestRun(check_id("job_id", job_id)))).id

    async def request_cancel(self, run_id: str) -> CronRun:
        """Cancel a run: one that waits ends at once, one that runs is cancelled by its scheduler, within a tick.

        Raises:
            RunNotFound: There is none of that id.
            RunClosed: It has ended.
        """
        return await self._service.mailbox.call(user_requests.RequestCancel(check_id("run_id", run_id), self._config.retry))

    async def get_run(self, run_id: str) -> CronRun:
        """Read a run.

        Raises:
            RunNotFound: There is none of that id.
        """
        return await self._service.mailbox.call(user_requests.GetRun(check_id("run_id", run_id)))

    async def list_runs(
        self,
        job_id: str | None = None,
        limit: int = 10,
        *,
        status: RunStatus | None = None,
        user_id: str | AllUsers | None = ALL,
    ) -> list[CronRun]:
        """Read history, newest first; also of jobs that have been removed.

        Args:
            job_id: Only that job's, in order of moment; None for all, in order of start.
            limit: How many at most.
            status: Only runs that stand there.
            user_id: Whose; None for the agent's own, ALL for everybody's.
        """
        if job_id is not None:
            check_id("job_id", job_id)
        whole("limit", limit, InvalidJob, least=1, most=_MAX_LIMIT)
        wanted_status = None if status is None else member("status", status, InvalidJob, RunStatus)
        wanted_user = None if user_id is ALL else check_user_id(user_id)
        filtered = wanted_status is not None or wanted_user is not None
        found: list[CronRun] = []
        before: RunRow | None = None
        while len(found) < limit:
            size = _RUNS_PAGE if filtered else min(limit - len(found), _RUNS_PAGE)
            page = await self._service.mailbox.call(user_requests.PageOfRuns(job_id, before, size))
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
    """Open a store without a scheduler: to edit jobs, to read history, or for a loop of one's own.

    Args:
        store: The file; it is created with mode 0600, its folder must exist. ``":memory:"`` is a private store.
        timezone: IANA name of the zone of jobs that name none; None: that of ``config``.
        config: Defaults of jobs that leave them open; its own ``jobs`` are left alone.
        create: Whether a missing file is made.

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
                yield CronStore(service, config=config, timezone=timezone)
            await service.mark_stopping(service.owners.copy())
    block_exit.raise_errors()
