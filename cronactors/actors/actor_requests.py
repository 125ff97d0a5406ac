"""The requests of the actors themselves: owners and leases, what the clock does, what runners record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import ClassVar, Self

import attrs

from cronactors.actors.mailbox import Request
from cronactors.instants import Millis
from cronactors.ledger import claim, clock_set_back, finish, leases, owners, recovery, views
from cronactors.ledger.claim import Claims
from cronactors.ledger.zone_changes import RulesOfFile, note_rules
from cronactors.model import Cause, CronJob, CronRun
from cronactors.owner import ProcessIdentity
from cronactors.policy import Outcome
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import Claimed, NextTimes, RunRow

STALE: Millis = 2_000
"""How old what was seen of a lease may be when it is acted upon."""


@attrs.frozen
class Registered:
    """What a new owner has to know.

    Attributes:
        owner: Its number.
        last_seen: When any owner before it renewed its lease last.
        latest_added_at: The latest time at which users entered something.
        rules: The rules by which the next moments in the file are computed.
    """

    owner: int
    last_seen: Millis | None
    latest_added_at: Millis | None
    rules: RulesOfFile


@attrs.frozen
class Register(Request[Registered]):
    """Enter an owner."""

    this_process: ProcessIdentity

    def apply(self, storage: Storage) -> Registered:
        """Answer its number."""
        last_seen, latest_added_at = owners.last_seen(storage), clock_set_back.latest_added_at(storage)
        return Registered(owners.register(storage, self.this_process), last_seen, latest_added_at, note_rules(storage))


@attrs.frozen
class Recover(Request[list[CronRun]]):
    """Take back the runs of dead owners. Asked a while ago it trusts no lease: all waited for the same lock."""

    may_end_runs: ClassVar[bool] = True
    this_process: ProcessIdentity
    policy: RetryPolicy
    trust_leases: bool
    mine: frozenset[int]
    requested_at: Millis

    def apply(self, storage: Storage) -> list[CronRun]:
        """Answer the runs that were interrupted."""
        trusted = self.trust_leases and abs(storage.now() - self.requested_at) < STALE
        ended = recovery.recover(storage, self.this_process, policy=self.policy, trust_leases=trusted, mine=self.mine)
        return [views.run_view(run) for run in ended]


@attrs.frozen
class RecomputeAfterSetBack(Request[int | None]):
    """After the wall clock was set back: one page of jobs; the first page sets pending runs and leases back too.

    Its attributes are the arguments of `clock_set_back.recompute_page`.
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
        return clock_set_back.recompute_page(
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
    next_times: NextTimes


@attrs.frozen
class Inspect(Request[Snapshot]):
    """One look for all: what other processes changed, runs asked to cancel, dead owners."""

    reads: ClassVar[bool] = True
    owner: int
    this_process: ProcessIdentity
    trust_leases: bool
    mine: frozenset[int]

    def apply(self, storage: Storage) -> Snapshot:
        """Answer what there is to see."""
        running = storage.running()
        orphaned = recovery.orphans(storage, self.this_process, running, trust_leases=self.trust_leases, mine=self.mine)
        return Snapshot(
            running={run.id: _why_ended(run) for run in running if run.owner == self.owner},
            idle=not running,
            orphaned=bool(orphaned),
            next_times=storage.next_times(),
        )


def _why_ended(run: RunRow) -> Cause | None:
    if not run.cancel_requested:
        return None
    return Cause.REPLACED if run.cause == Cause.REPLACED else Cause.CANCELLED


@attrs.frozen
class ClaimDue(Request[Claims]):
    """Start due runs for free slots; its attributes are the arguments of `claim.claim_due`."""

    certain: ClassVar[bool] = True
    owner: int
    limit: int
    total: int | None
    not_before: Millis
    cancel_overlapped: bool = False

    def apply(self, storage: Storage) -> Claims:
        """Return the started runs, and what blocks others."""
        return claim.claim_due(
            storage, owner=self.owner, limit=self.limit, total=self.total, cancel_overlapped=self.cancel_overlapped
        )


@attrs.frozen(kw_only=True)
class Finished:
    """The end of a run as it stands in the file.

    Attributes:
        run: The finished run; None if the outcome has no effect, as another owner has taken the run over.
        job: The job as it is now; None if it was removed, or not asked for.
        following: The run that has begun in the same slot, in the same transaction.
    """

    run: RunRow | None
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
    finished = finish.finish_runs(storage, requests, owner=terms.owner, policy=terms.policy)
    jobs: dict[str, CronJob] = {}
    if terms.shows_job:
        rows = storage.jobs([run.job_id for run in finished if run is not None])
        jobs = {job.id: job for job in views.job_views(storage, rows.values())}
    wanted = sum(request.claim_next for request in requests)
    started = claim.claim_due(storage, owner=terms.owner, limit=wanted, total=terms.total).runs if wanted else []
    following = iter(started)
    return [
        Finished(
            run=run,
            job=jobs.get(run.job_id) if run is not None else None,
            following=next(following, None) if request.claim_next else None,
        )
        for request, run in zip(requests, finished, strict=True)
    ]


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
            owners.sign_off(storage, owner)
