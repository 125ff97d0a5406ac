"""The requests of the actors: owners and leases, the clock's claims, finished runs. `apply` runs on the storage thread."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import ClassVar, Self

import attrs

from cronactors.actors.mailbox import BatchRequest, ReadRequest, Request
from cronactors.instants import Millis
from cronactors.ledger import claim, clock_set_back, finish, leases, owners, recovery, run_output, views
from cronactors.ledger.claim import Claims
from cronactors.ledger.run_output import NewOutput
from cronactors.ledger.zone_changes import RulesOfFile, note_rules
from cronactors.model import Cause, CronJob, CronRun
from cronactors.owner import ProcessIdentity
from cronactors.policy import Outcome
from cronactors.settings import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import Claimed, NextTimes, RunRow

STALE: Millis = 2_000
"""How old (ms) a request to recover runs may be and still trust that a lease has run out."""


@attrs.frozen
class Registered:
    """A new owner, and the facts about the file that its clock starts from.

    Attributes:
        owner: Its number.
        last_seen: When any earlier owner last renewed its lease.
        latest_added_at: The latest time at which users added or requested something.
        rules: The zone rules with which the next moments in the file are computed.
    """

    owner: int
    last_seen: Millis | None
    latest_added_at: Millis | None
    rules: RulesOfFile


@attrs.frozen
class Register(Request[Registered]):
    """Register this process as an owner."""

    process: ProcessIdentity

    def apply(self, storage: Storage) -> Registered:
        last_seen, latest_added_at = owners.last_seen(storage), clock_set_back.latest_added_at(storage)
        return Registered(owners.register(storage, self.process), last_seen, latest_added_at, note_rules(storage))


@attrs.frozen
class Recover(Request[list[CronRun]]):
    """Interrupt the runs of dead owners, so that their moments run again, and return these runs.

    A request that has waited longer than `STALE` trusts no lease: other owners may have waited for the same lock, unable to renew
    theirs.

    Attributes:
        process: This process; the owners of others are compared with it.
        policy: Delays of retries.
        trust_leases: Whether an owner whose lease has run out is dead.
        own_owners: The owners of this process, which are alive.
        requested_at: When the request was made.
    """

    may_finish_runs: ClassVar[bool] = True
    process: ProcessIdentity
    policy: RetryPolicy
    trust_leases: bool
    own_owners: frozenset[int]
    requested_at: Millis

    def apply(self, storage: Storage) -> list[CronRun]:
        trusted = self.trust_leases and abs(storage.now() - self.requested_at) < STALE
        recovered = recovery.recover(storage, self.process, policy=self.policy, trust_leases=trusted, mine=self.own_owners)
        return [views.run_view(run) for run in recovered]


@attrs.frozen
class RecomputeAfterSetBack(Request[int | None]):
    """Recompute one page of jobs after the wall clock was set back, and return where the next page begins; None after the last.

    The first page sets pending runs and leases back too.

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
    """What one read of the store shows the patrol.

    Attributes:
        running: The scheduler's own running runs, each with the reason to cancel it, or None.
        idle: No owner has a running run.
        orphaned: There are running runs of a dead owner.
        next_times: When something is due next, and when an open run must be cancelled next.
    """

    running: dict[int, Cause | None]
    idle: bool
    orphaned: bool
    next_times: NextTimes


@attrs.frozen
class Inspect(ReadRequest[Snapshot]):
    """Read a snapshot: changes by other processes, runs to cancel, dead owners.

    Attributes:
        owner: The scheduler's owner number; 0 if there is none.
        process: This process; the owners of others are compared with it.
        trust_leases: Whether an owner whose lease has run out is dead.
        own_owners: The owners of this process, which are alive.
    """

    owner: int
    process: ProcessIdentity
    trust_leases: bool
    own_owners: frozenset[int]

    def apply(self, storage: Storage) -> Snapshot:
        running = storage.running()
        orphaned = recovery.orphans(storage, self.process, running, trust_leases=self.trust_leases, mine=self.own_owners)
        return Snapshot(
            running={run.id: _cancel_cause(run) for run in running if run.owner == self.owner},
            idle=not running,
            orphaned=bool(orphaned),
            next_times=storage.next_times(),
        )


def _cancel_cause(run: RunRow) -> Cause | None:
    if not run.cancel_requested:
        return None
    return Cause.REPLACED if run.cause == Cause.REPLACED else Cause.CANCELLED


@attrs.frozen
class ClaimDue(BatchRequest[Claims]):
    """Start due runs for free slots; see `claim.claim_due`, and `Request.not_before`."""

    owner: int
    limit: int
    total: int | None
    not_before: Millis
    cancel_overlapped: ClassVar[bool] = False
    only_claims: ClassVar[bool] = True

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[Claims]:
        """Carry out each of them; there is rarely more than one."""
        return [
            claim.claim_due(
                storage, owner=each.owner, limit=each.limit, total=each.total, cancel_overlapped=each.cancel_overlapped
            )
            for each in requests
        ]


@attrs.frozen
class CancelAndClaim(ClaimDue):
    """Cancel the open runs that their job's next moment replaces, and start due runs. Possible without a free slot."""

    may_finish_runs: ClassVar[bool] = True
    cancel_overlapped: ClassVar[bool] = True
    only_claims: ClassVar[bool] = False


@attrs.frozen(kw_only=True)
class Finished:
    """The reply to `FinishRun`.

    Attributes:
        run: The finished run; None if the outcome has no effect: another owner has taken the run over, or it was finished with
            another outcome.
        job: The job after the run; None if it was removed, or `FinishSettings.shows_job` is False.
        next_claimed: The run that was claimed for the same slot, in the same transaction.
    """

    run: RunRow | None
    job: CronJob | None
    next_claimed: Claimed | None


@attrs.frozen(kw_only=True)
class FinishSettings:
    """The settings that all finished runs of a scheduler share.

    Attributes:
        owner: The scheduler's owner number.
        policy: Delays of retries.
        total: How many runs may be running at a time over all owners; None: no limit.
        shows_job: Whether `Finished.job` is read, for `on_finish`.
    """

    owner: int
    policy: RetryPolicy
    total: int | None
    shows_job: bool


@attrs.frozen
class FinishRun(BatchRequest[Finished]):
    """Finish a run and, in the same transaction, claim the next one for its slot."""

    waits_forever: ClassVar[bool] = True
    run_id: int
    outcome: Outcome
    claim_next: bool
    settings: FinishSettings
    claimed: Claimed | None = None
    output: NewOutput | None = None

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[Finished]:
        """Finish all of them, then claim as many runs: reading and writing for many at a time costs a third (docs/performance.md)."""
        finished = []
        for settings, group in groupby(requests, key=attrgetter("settings")):
            finished += _finish(storage, settings, list(group))
        return finished


def _finish(storage: Storage, settings: FinishSettings, requests: Sequence[FinishRun]) -> list[Finished]:
    outputs = {request.run_id: request.output for request in requests if request.output is not None}
    if outputs:
        run_output.store_last_output(storage, list(outputs.values()))
    finished = finish.finish_runs(storage, requests, owner=settings.owner, policy=settings.policy)
    jobs: dict[str, CronJob] = {}
    if settings.shows_job:
        rows = storage.jobs([run.job_id for run in finished if run is not None])
        jobs = {job.id: job for job in views.job_views(storage, rows.values())}
    wanted = sum(request.claim_next for request in requests)
    started = claim.claim_due(storage, owner=settings.owner, limit=wanted, total=settings.total).runs if wanted else []
    next_claimed = iter(started)
    return [
        Finished(
            run=run,
            job=jobs.get(run.job_id) if run is not None else None,
            next_claimed=next(next_claimed, None) if request.claim_next else None,
        )
        for request, run in zip(requests, finished, strict=True)
    ]


@attrs.frozen
class MarkStuck(Request[None]):
    """Record, for runs that have not ended although they were cancelled, why they were."""

    stuck: tuple[tuple[int, Cause], ...]

    def apply(self, storage: Storage) -> None:
        for run_id, cause in self.stuck:
            storage.mark_runs([run_id], cause=cause.value)


@attrs.frozen
class OwnersBusy(ReadRequest[bool]):
    """Read whether any of the owners has a running run."""

    owners: tuple[int, ...]

    def apply(self, storage: Storage) -> bool:
        return any(storage.running(owner=owner) for owner in self.owners)


@attrs.frozen
class RenewLeases(Request[None]):
    """Give a heartbeat for each of the owners."""

    owners: tuple[int, ...]

    def apply(self, storage: Storage) -> None:
        leases.renew_leases(storage, self.owners)


@attrs.frozen
class SignOff(Request[None]):
    """Record that owners have closed."""

    owners: tuple[int, ...]

    def apply(self, storage: Storage) -> None:
        for owner in self.owners:
            owners.sign_off(storage, owner)
