"""The requests of the actors themselves: owners and leases, what the clock does, what runners record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import ClassVar, Self

import attrs

from cronactors.actors.mailbox import Request
from cronactors.instants import Millis
from cronactors.ledger import claim, finish, leases, recovery, views
from cronactors.ledger.zone_changes import RulesOfFile, note_rules
from cronactors.model import Cause, CronJob, CronRun
from cronactors.owner import Owner
from cronactors.policy import Outcome
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import Claimed, RunRow, Upcoming

STALE: Millis = 2_000
"""How old what was seen of a lease may be when it is acted upon."""


@attrs.frozen
class Registered:
    """What a new owner has to know.

    Attributes:
        owner: Its number.
        last_seen: When any owner before it renewed its lease last.
        latest_entry: The latest time at which users entered something.
        rules: The rules by which the next moments in the file are computed.
    """

    owner: int
    last_seen: Millis | None
    latest_entry: Millis | None
    rules: RulesOfFile


@attrs.frozen
class Register(Request[Registered]):
    """Enter an owner."""

    me: Owner

    def apply(self, storage: Storage) -> Registered:
        """Answer its number."""
        last_seen, latest_entry = recovery.last_seen(storage), recovery.latest_entry(storage)
        return Registered(recovery.register(storage, self.me), last_seen, latest_entry, note_rules(storage))


@attrs.frozen
class Recover(Request[list[CronRun]]):
    """Take back the runs of dead owners. Asked a while ago it trusts no lease: all waited for the same lock."""

    may_end_runs: ClassVar[bool] = True
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
class RecomputeAfterSetBack(Request[int | None]):
    """After the wall clock was set back: one page of jobs; the first page sets pending runs and leases back too.

    Its attributes are the arguments of `recovery.rebase`.
    """

    waits_forever: ClassVar[bool] = True
    after: int
    limit: int
    owner: int
    by: Millis
    since: Millis
    earliest: Millis

    def apply(self, storage: Storage) -> int | None:
        """Answer where the next page begins."""
        return recovery.rebase(
            storage,
            after=self.after,
            limit=self.limit,
            owner=self.owner,
            by=self.by,
            since=self.since,
            earliest=self.earliest,
        )


@attrs.frozen
class Snapshot:
    """What the clock sees at a tick.

    Attributes:
        running: The scheduler's own runs, and why they are to be cancelled, if they are.
        idle: Nothing runs anywhere.
        orphaned: There are runs of a dead owner.
        upcoming: When something is to be done next.
    """

    running: dict[int, Cause | None]
    idle: bool
    orphaned: bool
    upcoming: Upcoming


@attrs.frozen
class Inspect(Request[Snapshot]):
    """One look for all: what other processes changed, runs asked to cancel, dead owners."""

    reads: ClassVar[bool] = True
    owner: int
    me: Owner
    trust_leases: bool
    mine: frozenset[int]

    def apply(self, storage: Storage) -> Snapshot:
        """Answer what there is to see."""
        running = storage.running()
        orphaned = recovery.orphans(storage, self.me, running, trust_leases=self.trust_leases, mine=self.mine)
        return Snapshot(
            running={run.id: _why_ended(run) for run in running if run.owner == self.owner},
            idle=not running,
            orphaned=bool(orphaned),
            upcoming=storage.upcoming(),
        )


def _why_ended(run: RunRow) -> Cause | None:
    if not run.cancel_requested:
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
    not_before: Millis

    def apply(self, storage: Storage) -> Claims:
        """Answer the runs that have begun."""
        begun = claim.claim_due(storage, owner=self.owner, limit=self.limit, total=self.total)
        return Claims(begun, limited=self.total is not None and storage.count_running() >= self.total)


@attrs.frozen
class CancelOverlapped(Request[bool]):
    """Let runs be ended whose job's next moment has come, and is to take their place."""

    may_end_runs: ClassVar[bool] = True
    certain: ClassVar[bool] = True

    def apply(self, storage: Storage) -> bool:
        """Answer whether there were any."""
        return claim.cancel_overlapped(storage)


@attrs.frozen(kw_only=True)
class Finished:
    """The end of a run as it stands in the file.

    Attributes:
        end: What `cronactors.ledger.finish` answers: the run, or only when it ended; None if the outcome has no effect.
        job: The job as it is now; None if it was removed, or not asked for.
        following: The run that has begun in the same slot, in the same transaction.
    """

    end: RunRow | Millis | None
    job: CronJob | None
    following: Claimed | None


@attrs.frozen(kw_only=True)
class FinishSettings:
    """What all ends of a scheduler share.

    Attributes:
        owner: Who runs.
        policy: Delays of retries.
        total: How many runs may go on at a time over all owners.
        shows_job: Whether somebody is told of the job.
    """

    owner: int
    policy: RetryPolicy
    total: int | None
    shows_job: bool


@attrs.frozen
class FinishRun(Request[Finished]):
    """End a run and, in the same transaction, begin the next one in its slot."""

    certain: ClassVar[bool] = True
    waits_forever: ClassVar[bool] = True
    run_id: int
    outcome: Outcome
    claim_next: bool
    terms: FinishSettings
    claimed: Claimed | None = None

    def apply(self, storage: Storage) -> Finished:
        """Answer the run as it stands, the job if it is wanted, and the run that has begun."""
        return self.apply_all(storage, [self])[0]

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[Finished]:
        """End all of them, then begin as many: what is read and written for many at a time costs a third."""
        finished = []
        for terms, group in groupby(requests, key=attrgetter("terms")):
            finished += _finish(storage, terms, list(group))
        return finished


def _finish(storage: Storage, terms: FinishSettings, requests: Sequence[FinishRun]) -> list[Finished]:
    ended = finish.finish_runs(storage, requests, owner=terms.owner, policy=terms.policy)
    jobs: dict[str | None, CronJob] = {}
    if terms.shows_job:
        rows = storage.jobs([job_id for job_id in map(_job_of, requests, ended) if job_id is not None])
        jobs = {job.id: job for job in views.job_views(storage, rows.values())}
    wanted = sum(request.claim_next for request in requests)
    begun = claim.claim_due(storage, owner=terms.owner, limit=wanted, total=terms.total) if wanted else []
    following = iter(begun)
    return [
        Finished(
            end=end,
            job=jobs.get(_job_of(request, end)) if terms.shows_job else None,
            following=next(following, None) if request.claim_next else None,
        )
        for request, end in zip(requests, ended, strict=True)
    ]


def _job_of(request: FinishRun, end: RunRow | Millis | None) -> str | None:
    """The job of a run that has ended."""
    if isinstance(end, RunRow):
        return end.job_id
    return None if end is None or request.claimed is None else request.claimed.job.id


@attrs.frozen
class MarkStuck(Request[None]):
    """Note why runs that do not end are being stopped."""

    stuck: tuple[tuple[int, Cause], ...]

    def apply(self, storage: Storage) -> None:
        """Answer nothing."""
        for run_id, cause in self.stuck:
            storage.mark_runs([run_id], cause=cause.value)


@attrs.frozen
class OwnersBusy(Request[bool]):
    """Read whether any of the owners runs anything."""

    reads: ClassVar[bool] = True
    owners: tuple[int, ...]

    def apply(self, storage: Storage) -> bool:
        """Answer it."""
        return any(storage.running(owner=owner) for owner in self.owners)


@attrs.frozen
class RenewLeases(Request[None]):
    """Give a sign of life."""

    owners: tuple[int, ...]

    def apply(self, storage: Storage) -> None:
        """Answer nothing."""
        leases.renew_leases(storage, self.owners)


@attrs.frozen
class SignOff(Request[None]):
    """Note that owners have closed."""

    owners: tuple[int, ...]

    def apply(self, storage: Storage) -> None:
        """Answer nothing."""
        for owner in self.owners:
            recovery.sign_off(storage, owner)
