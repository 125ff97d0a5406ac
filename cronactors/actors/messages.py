"""The requests that the store actor carries out. Each carries its reply type, and decides nothing itself: `cronactors.ledger` does."""

from __future__ import annotations

from typing import ClassVar

import attrs

from cronactors.actors.mailbox import Request
from cronactors.instants import Millis
from cronactors.ledger import claim, explain, jobs, recovery, runs, views
from cronactors.ledger.claim import Claimed
from cronactors.ledger.jobs import Defaults
from cronactors.model import Cause, CronJob, CronRun, Explanation, JobChanges
from cronactors.owner import Owner
from cronactors.policy import Outcome
from cronactors.spec import JobSpec, RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow

STALE: Millis = 2_000
"""How old what was seen of a lease may be when it is acted upon."""

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
class UpsertJobs(Request[list[str]]):
    """Add or edit jobs, all or none; remove those of the origin that are not listed any more."""

    stirs: ClassVar[bool] = True
    specs: tuple[tuple[str, JobSpec], ...]
    defaults: Defaults
    origin: str | None

    def apply(self, storage: Storage) -> list[str]:
        """Answer the ids, new or old."""
        return jobs.upsert_jobs(storage, self.specs, self.defaults, self.origin)


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
        page = storage.page_of_jobs(after=self.after, limit=self.limit, user_id=self.user_id)
        return views.job_views(storage, (job for _, job in page)), page[-1][0] if len(page) == self.limit else None


@attrs.frozen
class UpdateJob(Request[CronJob]):
    """Change fields of a job."""

    stirs: ClassVar[bool] = True
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

    stirs: ClassVar[bool] = True
    job_id: str

    def apply(self, storage: Storage) -> None:
        """Answer nothing."""
        jobs.remove_job(storage, self.job_id)


@attrs.frozen
class RemoveJobByName(Request[None]):
    """Remove the user's job of a name."""

    stirs: ClassVar[bool] = True
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
        return runs.due_jobs(storage, retries=self.retries, limit=self.limit)


@attrs.frozen
class StartRun(Request[Claimed]):
    """Claim for a loop of the caller's own."""

    target: CronJob | str
    owner: int

    def apply(self, storage: Storage) -> Claimed:
        """Answer the run that has begun."""
        return runs.start_run(storage, self.target, owner=self.owner)


@attrs.frozen
class CompleteRun(Request[CronRun]):
    """End a run of a loop of the caller's own."""

    run_id: str
    outcome: Outcome
    policy: RetryPolicy

    def apply(self, storage: Storage) -> CronRun:
        """Answer the run as it is now."""
        return views.run_view(runs.complete_run(storage, self.run_id, self.outcome, policy=self.policy))


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

    stirs: ClassVar[bool] = True
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
        return storage.page_of_runs(job_id=self.job_id, before=self.before, limit=self.limit)


@attrs.frozen
class Explain(Request[Explanation]):
    """Tell what became of a moment, or what will."""

    reads: ClassVar[bool] = True
    job_id: str
    at: Millis

    def apply(self, storage: Storage) -> Explanation:
        """Answer it."""
        return explain.explain(storage, jobs.find_job(storage, self.job_id), self.at)


# The scheduler


@attrs.frozen
class Registered:
    """An owner's number, and the latest sign of life that any owner gave before."""

    owner: int
    last_seen: Millis | None


@attrs.frozen
class Register(Request[Registered]):
    """Enter an owner."""

    me: Owner

    def apply(self, storage: Storage) -> Registered:
        """Answer its number."""
        last_seen = recovery.last_seen(storage)
        return Registered(recovery.register(storage, self.me), last_seen)


@attrs.frozen
class Recover(Request[list[CronRun]]):
    """Take back the runs of dead owners. Asked a while ago it trusts no lease: all waited for the same lock."""

    me: Owner
    policy: RetryPolicy
    trust_leases: bool
    mine: frozenset[int]
    asked_at: Millis

    def apply(self, storage: Storage) -> list[CronRun]:
        """Answer the runs that were interrupted."""
        trusted = self.trust_leases and abs(storage.now() - self.asked_at) < STALE
        ended = recovery.recover(storage, self.me, policy=self.policy, trust_leases=trusted, mine=self.mine)
        return [views.run_view(run) for run in ended]


@attrs.frozen
class Rebase(Request[int | None]):
    """After the wall clock was set back: one page of jobs; the first page moves the pending runs too."""

    patient: ClassVar[bool] = True
    after: int
    limit: int
    by: Millis

    def apply(self, storage: Storage) -> int | None:
        """Answer where the next page begins."""
        if self.after == 0:
            storage.shift_pending(now=storage.now(), by=self.by)
        return recovery.rebase(storage, after=self.after, limit=self.limit)


@attrs.frozen
class Sight:
    """What the clock sees at a tick.

    Attributes:
        running: The scheduler's own runs, and why they are to be cancelled, if they are.
        orphaned: There are runs of a dead owner.
        next_due: When the first of the queue comes due.
        next_cancelling: When the first run is to be cancelled for the next moment of its job.
    """

    running: dict[int, Cause | None]
    orphaned: bool
    next_due: Millis | None
    next_cancelling: Millis | None


@attrs.frozen
class Look(Request[Sight]):
    """One look for all: what other processes changed, runs asked to cancel, dead owners."""

    reads: ClassVar[bool] = True
    owner: int
    me: Owner
    trust_leases: bool
    mine: frozenset[int]

    def apply(self, storage: Storage) -> Sight:
        """Answer what there is to see."""
        return Sight(
            running={run.id: _why_ended(run) for run in storage.running(owner=self.owner)},
            orphaned=bool(recovery.orphans(storage, self.me, trust_leases=self.trust_leases, mine=self.mine)),
            next_due=storage.next_due(),
            next_cancelling=storage.next_cancelling(),
        )


def _why_ended(run: RunRow) -> Cause | None:
    if not run.cancel_asked:
        return None
    return Cause.REPLACED if run.cause == Cause.REPLACED else Cause.CANCELLED


@attrs.frozen
class Claims:
    """Runs that have begun, and whether the limit over all schedulers kept others from it."""

    runs: list[Claimed]
    limited: bool


@attrs.frozen
class ClaimDue(Request[Claims]):
    """Begin due runs for free slots."""

    certain: ClassVar[bool] = True
    owner: int
    limit: int
    total: int | None

    def apply(self, storage: Storage) -> Claims:
        """Answer the runs that have begun."""
        begun = claim.claim_due(storage, owner=self.owner, limit=self.limit, total=self.total)
        return Claims(begun, limited=self.total is not None and storage.count_running() >= self.total)


@attrs.frozen
class CancelOverlapped(Request[bool]):
    """Let runs be ended whose job's next moment has come, and is to take their place."""

    stirs: ClassVar[bool] = True
    certain: ClassVar[bool] = True

    def apply(self, storage: Storage) -> bool:
        """Answer whether there were any."""
        return claim.cancel_overlapped(storage)


@attrs.frozen(kw_only=True)
class Finished:
    """The end of a run as it stands in the file.

    Attributes:
        run: The run; None if it was taken over meanwhile, and the outcome has no effect.
        job: The job as it is now; None if it was removed, or not asked for.
        following: The run that has begun in the same slot, in the same transaction.
    """

    run: RunRow | None
    job: CronJob | None
    following: Claimed | None


@attrs.frozen
class FinishRun(Request[Finished]):
    """End a run and, in the same transaction, begin the next one in its slot."""

    certain: ClassVar[bool] = True
    patient: ClassVar[bool] = True
    run_id: int
    outcome: Outcome
    owner: int
    policy: RetryPolicy
    claim_next: bool
    total: int | None
    show_job: bool = False

    def apply(self, storage: Storage) -> Finished:
        """Answer the run as it stands, the job if it is wanted, and the run that has begun."""
        run = runs.finish_run(storage, self.run_id, self.outcome, owner=self.owner, policy=self.policy)
        job = storage.jobs([run.job_id]).get(run.job_id) if run is not None and self.show_job else None
        shown = None if job is None else views.job_views(storage, [job])[0]
        following = claim.claim_due(storage, owner=self.owner, limit=1, total=self.total) if self.claim_next else []
        return Finished(run=run, job=shown, following=following[0] if following else None)


@attrs.frozen
class NoteStuck(Request[None]):
    """Note why a run that does not end is being stopped."""

    run_id: int
    cause: Cause

    def apply(self, storage: Storage) -> None:
        """Answer nothing."""
        storage.mark_runs([self.run_id], cause=self.cause.value)
